"""Spark writes Parquet, Spark reads Parquet: python parquet_batch.py OLD NEW OUT

OLD and NEW are folders with ``items`` and ``users`` (columns ``id`` and ``vector``); OUT gets the
new tables in the old coordinate system, and a page that says how alike they are.
"""

import sys
from pathlib import Path

import dask_embstab as es


def main(old: str, new: str, out: str) -> None:
    runs = [es.ingest(Path(at, "items"), Path(out, f"{name}.zarr"), users=Path(at, "users"))
            for name, at in (("old", old), ("new", new))]  # fmt: skip
    stable = es.stabilize(runs[1], Path(out, "stable.zarr"), reference=runs[0])
    es.export(stable, Path(out, "parquet"))
    report = es.report(runs[0], stable, out=Path(out, "report.html"))
    print(report.verdict)


if __name__ == "__main__":
    main(*sys.argv[1:])
