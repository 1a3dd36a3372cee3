"""A two-tower model: python two_tower_daily.py SERIES DAY ITEMS.npy USERS.npy TOWER.onnx OUT

The item rows go to the store as Parquet. The user tower gets the transform as its last layer, so
that what it answers online meets the stored items, of today and of every day before.
"""

import sys
from pathlib import Path

import numpy as np

import dask_embstab as es


def main(place: str, day: str, items: str, users: str, tower: str, out: str) -> None:
    series = es.Series(place) if Path(place).exists() else es.Series.init(place)
    rows = (np.load(at, mmap_mode="r") for at in (items, users))
    added = series.add(es.create_run(Path(out, f"{day}.zarr"), *rows), name=day)
    es.export(series, Path(out, "items"), table="items", overwrite=True)
    es.export(series, Path(out, "tower.onnx"), format="onnx", table="users", append_to=tower,
              overwrite=True)  # fmt: skip
    print(f"{day} is version {added.version.version}")


if __name__ == "__main__":
    main(*sys.argv[1:])
