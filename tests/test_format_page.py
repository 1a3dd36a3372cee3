"""docs/format.md is enough for another implementation: every checksum can be made by what the page
says, and it lists every file, attribute and field that is stored.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from crc32c import crc32c
from doc_pages import DOCS
from oracle import world

import dask_embstab as es

PAGE = (DOCS / "format.md").read_text()
Json = dict[str, Any]


def load(*parts: Path | str) -> Json:
    values: Json = json.loads(Path(*parts).read_bytes())
    return values


def of_json(values: Json) -> int:
    """The checksum of JSON: sorted keys, ``", "`` and ``": "`` between, ASCII."""
    return int(crc32c(json.dumps(values, sort_keys=True).encode()))


def tail(file: Path) -> int:
    """The last four bytes of a chunk file: the checksum of those before."""
    data = file.read_bytes()
    assert crc32c(data[:-4]) == int.from_bytes(data[-4:], "little")
    return int.from_bytes(data[-4:], "little")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series of two days, and a run stabilized and one in shards outside of it."""
    folder = tmp_path_factory.mktemp("stored")
    T, W = world(0)
    ids = {"item_ids": np.arange(60), "user_ids": [f"u{n}" for n in range(90)]}
    series = es.Series.init(folder / "series")
    for n in range(2):
        series.add(es.create_run(folder / f"{n}.zarr", T + 0.02 * n, W, chunk_rows=16, **ids))
    es.stabilize(folder / "1.zarr", folder / "out.zarr", reference=folder / "0.zarr")
    keys = [uuid.UUID(int=n) for n in range(60)]
    es.create_run(folder / "shards.zarr", T, item_ids=keys, chunk_rows=8, shard_rows=32)
    return folder


def test_a_stabilized_run_records_digests_of_its_input_and_of_its_own_files(stored: Path) -> None:
    attributes = load(stored, "out.zarr", "transform", "zarr.json")["attributes"]
    for table, n in (("items", 60), ("users", 90)):
        rows = np.full((-(-n // 16) * 16, 4), np.nan)
        rows[:n] = zarr.open_array(stored / "1.zarr" / table / "vectors", mode="r")[:]
        chunks = [crc32c(rows[start : start + 16].tobytes()) for start in range(0, len(rows), 16)]
        assert attributes["digests"][table] == chunks
    output = attributes["output"]
    assert output["root"] == load(stored, "out.zarr", "zarr.json")["attributes"]
    for pattern, digests in output["arrays"].items():
        files = [stored / "out.zarr" / pattern.format(n) for n in range(len(digests))]
        assert [tail(file) for file in files] == digests
    for name, digest in output["metadata"].items():
        assert crc32c((stored / "out.zarr" / name).read_bytes()) == digest
    assert of_json(attributes | {"output": output | {"crc32c": None}}) != output["crc32c"]
    digest = output.pop("crc32c")
    assert of_json(attributes) == digest


def test_a_series_is_checked_by_what_the_page_says(stored: Path) -> None:
    series = stored / "series"
    made = load(series, "series.json")
    assert made.pop("crc32c") == of_json(made)
    for n in (1, 2):
        lines = (series / "versions" / f"{n}.json").read_bytes().splitlines(keepends=True)
        version = json.loads(b"".join(lines))
        assert len(lines) == 4
        assert version["crc32c"] == crc32c(b"".join(lines[:3]))
        file = series / version["digests_file"]
        assert crc32c(file.read_bytes()) == version["digests_crc32c"]
        assert file.name == f"{version['run']}.{version['digests_crc32c']:08x}.json"
        digests = load(file)
        for key, folder in (("run", "runs"), ("reference", "references")):
            run = series / folder / f"{version['run']}.zarr"
            for name, digest in digests[key].get("chunks", {}).items():
                assert tail(run / name) == digest
                assert (run / name).stat().st_size == digests[key]["bytes"][name]
            for name, digest in digests[key].get("metadata", {}).items():
                assert crc32c((run / name).read_bytes()) == digest


def test_a_shard_ends_in_the_digest_of_its_rows(stored: Path) -> None:
    vectors = stored / "shards.zarr" / "items" / "vectors"
    rows = np.full((64, 4), np.nan)
    rows[:60] = zarr.open_array(vectors, mode="r")[:]
    for n in range(2):
        stored_digest = (vectors / "c" / str(n) / "0").read_bytes()[-4:]
        assert int.from_bytes(stored_digest, "little") == crc32c(
            rows[32 * n : 32 * n + 32].tobytes()
        )


def names_in(stored: Path) -> Iterator[str]:
    """What a reader of these files meets: keys of attributes and of JSON, places, arrays."""
    attributes = load(stored, "out.zarr", "transform", "zarr.json")["attributes"]
    yield from attributes
    yield from attributes["output"]
    yield from attributes["digests"].keys() - {"items", "users"}
    yield from load(stored, "series", "series.json")
    digests = load(next((stored / "series" / "digests").glob("1.*.json")))
    yield from (*digests, *digests["run"], *digests["inputs"])
    yield from digests["inputs"]["tables"]["items"]
    yield from (path.name for path in (stored / "series").iterdir())
    es.fit(stored / "1.zarr", reference=stored / "0.zarr").save(stored / "t.npz")
    yield from np.load(stored / "t.npz").files
    for run in ("out.zarr", "shards.zarr"):
        for file in stored.glob(f"{run}/*/*/zarr.json"):
            array = load(file)
            kind = array["data_type"]
            yield kind if isinstance(kind, str) else kind["name"]
            yield from (codec["name"] for codec in array["codecs"])


def test_the_page_names_what_is_stored(stored: Path) -> None:
    known = set(re.findall(r"[\w.-]+", " ".join(re.findall(r"`([^`]+)`", PAGE))))
    assert set(names_in(stored)) <= known


def test_the_page_of_series_lists_every_field_of_a_version(stored: Path) -> None:
    page = (DOCS / "series.md").read_text().partition("## A version")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    version = load(stored, "series", "versions", "2.json")
    fields = version.keys() | version["findings"].keys() | version["details"].keys()
    of_digests = {"digests", "reference_digests", "inputs"}
    assert listed - of_digests == fields - {"findings", "details"}
