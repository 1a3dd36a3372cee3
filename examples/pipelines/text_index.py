"""Documents of a new text model in an index: python text_index.py OLD NEW QUERIES.npy OUT

OLD and NEW are Parquet; queries of the new model meet int8 codes of the old documents.
"""

import sys
from pathlib import Path
from typing import Any

import dask
import numpy as np

import dask_embstab as es


def main(old: str, new: str, asked: str, out: str) -> Any:
    before, after = (es.ingest(at, Path(out, f"{Path(at).stem}.zarr")) for at in (old, new))
    to_old = es.fit(after, reference=before, unit_rows=True)
    stable = es.apply(to_old, after, Path(out, "stable.zarr"))
    index = es.compress(before, Path(out, "index.zarr"), code="int8")
    queries = to_old.transform_items(np.load(asked))
    _, ids = es.search(queries, index, 10, metric="cosine")
    with dask.config.set({"embstab.items-as": "documents", "embstab.users-as": "queries"}):
        print(es.report(before, stable, out=Path(out, "report.html")).verdict)
    return ids


if __name__ == "__main__":
    print(main(*sys.argv[1:])[:3])
