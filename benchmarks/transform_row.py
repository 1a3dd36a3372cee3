"""What does one row cost in a service? `Transform.transform_users` and `transform_items` of a
single row, above the product of the row with the matrix.

    python benchmarks/transform_row.py [--rounds 200]
"""

from __future__ import annotations

import argparse
import timeit
from typing import Any

import numpy as np

from dask_embstab.tables.transform import Transform

CALLS = 1_000
WIDTHS, DTYPES = (32, 64, 256), ("float32", "float64")


def microseconds(call: str, names: dict[str, Any], rounds: int) -> float:
    """Of the quickest round, for one call: others waited for the machine."""
    return min(timeit.repeat(call, globals=names, number=CALLS, repeat=rounds)) / CALLS * 1e6


def main() -> None:
    """A line for each width and dtype: the product alone, and how much more either verb takes."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    print("| d | rows | product | users, above it | items, above it |  (microseconds)")
    for d in WIDTHS:
        M = rng.normal(size=(d, d))
        made = Transform(M, M, np.ones(d))
        for dtype in DTYPES:
            row = rng.normal(size=d).astype(dtype)
            names = {"row": row.astype(np.float64), "M": M}
            product = microseconds("row @ M", names, rounds)
            more = [
                microseconds(f"made.{verb}(row)", {"made": made, "row": row}, rounds) - product
                for verb in ("transform_users", "transform_items")
            ]
            print(f"| {d} | {dtype} | {product:.2f} | {more[0]:.2f} | {more[1]:.2f} |")


if __name__ == "__main__":
    main()
