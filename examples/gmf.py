"""Stabilize three real training runs of one recommender, and measure what it does.

The runs are of the same GMF model on MovieLens-1M (He et al., Neural Collaborative Filtering,
doi:10.1145/3038912.3052569), 8 components each, as `gmf_a.npz`, `gmf_b.npz` and `gmf_c.npz` with
the keys users, items and weight. Its score is sigmoid((users * weight) @ items.T + bias): with the
weight folded into the items the ranking is that of a dot product.

    python examples/gmf.py [FOLDER] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import dask_embstab as es
from dask_embstab.demo.table1 import HEADER, LEGEND, ROWS_HEADER, ROWS_LEGEND, score_change, table1
from dask_embstab.render.table import text_table

NAMES = ("a", "b", "c")
REPOSITORY = Path(__file__).resolve().parent.parent


def default_folder() -> Path:
    """The folder of the data, of which ``gmf`` is a part."""
    return Path(os.environ.get("EMBSTAB_DATA") or REPOSITORY.parent / "shared" / "data")


def create(source: Path, out: Path) -> es.Run:
    """Write one training's embeddings as a run, the weight folded into the items."""
    with np.load(source) as stored:
        items, users = stored["items"] * stored["weight"], stored["users"]
    # All three number their users and movies alike, from 0.
    return es.create_run(
        out, items, users, item_ids=np.arange(len(items)), user_ids=np.arange(len(users))
    )


def stabilize_all(folder: Path, out: Path) -> dict[str, Any]:
    """Stabilize the first run alone and the others onto it; print how comparable they are before
    and after.
    """
    raw = [create(folder / f"gmf_{name}.npz", out / f"{name}.zarr") for name in NAMES]
    first = es.stabilize(raw[0], out / "a-stabilized.zarr")
    later = [
        es.stabilize(run, out / f"{run.name}-stabilized.zarr", reference=first) for run in raw[1:]
    ]
    stabilized = [first, *later]
    rows = table1(raw, stabilized)
    change = max(map(score_change, raw, stabilized))
    print(text_table(("run", *HEADER), [row.cells() for row in rows]), *LEGEND, sep="\n")
    print(text_table(("run", *ROWS_HEADER), [row.counts() for row in rows]), ROWS_LEGEND, sep="\n")
    print(
        f"Scores are kept: the largest change of a sampled score is {change:.1e} of the largest"
        " score."
    )
    return {"table": {row.name: row.to_dict() for row in rows}, "score_change": change}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description="Stabilize three real training runs of one recommender."
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, help="the data, with a folder gmf (default: $EMBSTAB_DATA)"
    )
    parser.add_argument("--out", type=Path, help="where the runs are kept (default: nowhere)")
    options = parser.parse_args(argv)
    folder = (options.folder or default_folder()) / "gmf"
    if not (folder / "gmf_a.npz").exists():
        sys.exit(
            f"error: there is no gmf_a.npz in {folder}; give the folder that holds gmf, or set"
            " EMBSTAB_DATA"
        )
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        try:
            return stabilize_all(folder, out)
        except es.EmbstabError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
