"""The same rows for every rival: a Zarr run, ``.npy`` files for memory maps, uncompressed Parquet
with lists for Spark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import new_ids, new_vectors

import dask_embstab as es
from dask_embstab.tables.coerce import as_table
from dask_embstab.tables.read.source import default_chunk_rows

Rows = np.ndarray[Any, Any]
Writer = Callable[[int, Rows], None]


@dataclass(frozen=True, slots=True)
class Data:
    """Tables of one width in every format, in one folder.

    ``rows`` by name of the table; ``table`` is the user's own run or Zarr array, which then takes
    the place of the items' Zarr copy.
    """

    folder: str
    rows: Mapping[str, int]
    d: int
    dtype: str
    table: str | None = None

    def n_bytes(self, *names: str) -> int:
        """Bytes of the vectors of these tables."""
        return sum(self.rows[name] for name in names) * self.d * np.dtype(self.dtype).itemsize

    def run(self, name: str = "items") -> Path:
        """The run that a table is in."""
        return Path(self.folder) / ("reference.zarr" if name == "reference" else "run.zarr")

    def as_table(self, name: str) -> es.Table:
        """A table as the library opens it."""
        if self.table:
            return as_table(self.table)
        return as_table(str(self.run(name)), key="items" if name == "reference" else name)

    def array(self, name: str) -> zarr.Array[Any]:
        """A table as zarr-python opens it."""
        array: zarr.Array[Any] = self.as_table(name).source.array
        return array

    def path(self, name: str, kind: str) -> Path:
        """A table as ``.npy`` or ``.parquet``."""
        return Path(self.folder) / f"{name}.{kind}"

    @property
    def matrix(self) -> Rows:
        """The matrix that is applied, in the tables' dtype."""
        return es.Transform.load(self.transform).items.astype(self.dtype)

    @property
    def transform(self) -> Path:
        """The transform with that matrix."""
        return Path(self.folder) / "transform.npz"

    def save(self) -> Path:
        """Its description, for another process."""
        file = Path(self.folder) / "data.json"
        file.write_text(json.dumps(asdict(self)))
        return file


def load(file: str) -> Data:
    """What `Data.save` wrote."""
    return Data(**json.loads(Path(file).read_text()))


def make(folder: Path, data: Data, kinds: set[str], rows: Callable[[str, int, int], Rows]) -> Data:
    """Write all tables of ``data`` in these formats; ``rows(name, start, stop)`` gives them, a
    chunk at a time.
    """
    folder.mkdir()
    size = chunk_rows(max(data.rows.values()), data.d, data.dtype)
    for name, n in data.rows.items():
        with ExitStack() as files:
            writers = [
                files.enter_context(WRITERS[kind](data, name, n, size))
                for kind in sorted(kinds)
                if not (kind == "zarr" and data.table)
            ]
            for start in range(0, n, size):
                block = np.ascontiguousarray(
                    rows(name, start, min(start + size, n)), dtype=data.dtype
                )
                for write in writers:
                    write(start, block)
    _write_transform(data, rows("items", 0, min(size, data.rows["items"]))[:20_000])
    data.save()
    return data


def chunk_rows(n: int, d: int, dtype: str) -> int:
    """64 MiB, or a quarter of a small table."""
    return min(default_chunk_rows(d, np.dtype(dtype).itemsize), -(-n // 4))


def random_rows(d: int) -> Callable[[str, int, int], Rows]:
    """Seeded rows; the reference's are the items' in other axes, as an earlier training leaves
    them.
    """
    scales = np.linspace(2, 0.5, d)
    axes = np.linalg.qr(np.random.default_rng(d).standard_normal((d, d)))[0]
    mixed = np.diag(scales) @ (axes * np.linspace(1.2, 0.8, d))

    def rows(name: str, start: int, stop: int) -> Rows:
        rng = np.random.default_rng([name == "users", start])
        made = rng.standard_normal((stop - start, d), np.float32)
        return np.asarray(
            made @ mixed.astype("f4") if name == "reference" else made * scales.astype("f4")
        )

    return rows


def _write_transform(data: Data, sample: Rows) -> None:
    """A rotation, fitted as users do: a sample of the rows onto the same rows in other axes."""
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((data.d, data.d)))[0]
    es.fit(sample, reference=np.asarray(sample, np.float64) @ Q, min_matched=1).save(data.transform)


@contextmanager
def _zarr_writer(data: Data, name: str, n: int, size: int) -> Iterator[Writer]:
    key = "items" if name == "reference" else name
    group = zarr.open_group(data.run(name), mode="a", zarr_format=3).create_group(key)
    vectors, ids = new_vectors(group, n, data.d, size, dtype=data.dtype), new_ids(group, n, size)

    def write(start: int, rows: Rows) -> None:
        vectors[start : start + len(rows)] = rows
        ids[start : start + len(rows)] = np.arange(start, start + len(rows))

    yield write


@contextmanager
def _npy_writer(data: Data, name: str, n: int, size: int) -> Iterator[Writer]:  # noqa: ARG001
    out = np.lib.format.open_memmap(data.path(name, "npy"), "w+", data.dtype, (n, data.d))
    yield lambda start, rows: out.__setitem__(slice(start, start + len(rows)), rows)
    out.flush()


@contextmanager
def _parquet_writer(data: Data, name: str, n: int, size: int) -> Iterator[Writer]:  # noqa: ARG001
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = data.path(name, "parquet")
    folder.mkdir()

    def write(start: int, rows: Rows) -> None:
        offsets = pa.array(np.arange(0, rows.size + 1, data.d, dtype="i4"))
        wide = rows if rows.dtype.itemsize > 2 else rows.astype("f4")  # Spark knows no float16
        table = pa.table(
            {
                "id": pa.array(np.arange(start, start + len(rows))),
                "v": pa.ListArray.from_arrays(offsets, pa.array(wide.ravel())),
            }
        )
        pq.write_table(
            table, folder / f"{start:012}.parquet", compression="none", use_dictionary=False
        )

    yield write


WRITERS: dict[str, Any] = {"zarr": _zarr_writer, "npy": _npy_writer, "parquet": _parquet_writer}
