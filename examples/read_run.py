"""A reader of runs and series in plain zarr and NumPy: what docs/format.md says, as a program.

    python examples/read_run.py SERIES|RUN [items|users]

Nothing of dask_embstab is imported. Another implementation can start here. Zarr compares every
chunk with the checksum stored with it; what is written here besides is the log of a series.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

Json = dict[str, Any]


def located(log: list[Json], version: Json) -> tuple[str, Json]:
    """Under which name a run is stored now, and in which basis it is read."""
    moves = [v for v in log if v["kind"] in ("rebase", "forget")]
    name = version["run"]
    places = [v["moved"][name]["run"] for v in moves if name in v["moved"]]
    return (places or [name])[-1], moves[-1]["basis"] if moves else {}


def rows(group: Any, turn: Any = None) -> Iterator[tuple[Any, Any]]:
    """Ids (row numbers where none are stored) and vectors of a table, a chunk at a time."""
    vectors = group["vectors"]
    for start in range(0, vectors.shape[0], vectors.chunks[0]):
        part = vectors[start : start + vectors.chunks[0]]
        end = start + len(part)
        ids = group["id"][start:end] if "id" in group else np.arange(start, end)
        yield ids, part if turn is None else (part.astype("f8") @ turn).astype(part.dtype)


def open_table(place: Path, table: str = "items") -> Iterator[tuple[Any, Any]]:
    """The rows of a run, or of the head of a series, in the space in which they are read now."""
    if not (place / "series.json").exists():
        return rows(zarr.open_group(place, mode="r")[table])
    count = len(list((place / "versions").glob("[1-9]*.json")))  # version n is n.json, without gaps
    log = [json.loads((place / f"versions/{n + 1}.json").read_text()) for n in range(count)]
    head = [v for v in log if v["state"] == "live" and v["run"] is not None][-1]
    (name, basis), turn = located(log, head), None
    if basis.get("file") and not basis.get("applied"):  # a lazy rebase: one matrix per stored run
        with np.load(place / basis["file"]) as stored:
            names = json.loads(str(stored["names"]))
            turn = stored[f"m{names.index(head['run'])}"] if head["run"] in names else None
    return rows(zarr.open_group(place / "runs" / f"{name}.zarr", mode="r")[table], turn)


if __name__ == "__main__":
    parts = list(open_table(Path(sys.argv[1]), *sys.argv[2:]))
    (ids, vectors), *_ = parts
    print(f"first row: id {ids[0]}, {vectors.shape[1]} components of {vectors.dtype}")
    print(f"{sum(len(ids) for ids, _ in parts)} rows")
