"""Tables as faiss indexes that find the neighbours that `search` finds, built a panel at a time.

Codes that faiss has are moved as they are: ``float16``, ``int8-component``, product quantization
with its codebooks, sign bits. A rotation or truncation becomes a transform of the queries. Other
rows are decoded to float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.codes.code import Code
from dask_embstab.core.codes.product import ProductCode
from dask_embstab.core.codes.row_code import RowCode
from dask_embstab.core.moments import unit
from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.errors import InputError, NotFiniteError
from dask_embstab.exchange.formats import Export
from dask_embstab.exchange.indexes.faiss_file import hidden_ids, publish_file, require_faiss
from dask_embstab.exchange.npy_files import write_npy
from dask_embstab.exchange.panels import FileSpec, Panel, Room
from dask_embstab.exchange.place import require_free
from dask_embstab.passes.engine.graph import compute
from dask_embstab.passes.engine.plan import plan
from dask_embstab.passes.join.space import in_one_space, space_of_run
from dask_embstab.passes.sampled import sampled_rows
from dask_embstab.passes.search import SearchMetric
from dask_embstab.repairs import option
from dask_embstab.tables.ids.ids import ID_RANGE
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.read.coded import stored_rows
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

Kind = Literal["flat", "ivf"]
_KINDS = ("flat", "ivf")
_QUANTIZERS = {"float16": "QT_fp16", "int8-component": "QT_8bit"}
"""faiss multiplies by bfloat16 with queries that it rounds as well, so these are decoded."""
_ROWS_PER_LIST = 256
"""Rows that a list's centre is fitted to at most; a table has a list for every 39 rows at most, as
faiss asks for.
"""


def faiss_index(
    run: Run,
    table: Literal["items", "users"] = "items",
    *,
    kind: Kind = "flat",
    metric: SearchMetric | None = None,
    seed: int = 0,
) -> Any:
    """A faiss index of a table of ``run`` in memory, with the neighbours that `search` finds.

    Labels are int64 ids where the table has such, else row numbers; rows of zeros are left out.
    ``kind="ivf"`` cuts the rows into lists by centres fitted to a sample drawn by ids and
    ``seed``; all lists are probed, so that nothing is lost, until ``nprobe`` is lowered. ``metric``
    is as in `search`, but ``"hamming"`` for sign codes: a binary index, whose queries are bytes.

    Reads the table once, a panel at a time. Memory: the index. Raises `InputError` where faiss is
    not installed or the metric does not fit.
    """
    if kind not in _KINDS:
        raise InputError(f"kind must be one of {', '.join(_KINDS)}; it is {shown(kind)}")
    rows = run.table(table)
    code: RowCode | None = getattr(rows.source, "code", None)
    is_sign = isinstance(code, Code) and code.name == "sign"
    usual: SearchMetric = "cosine" if run.users is None else "dot"
    metric = metric or ("hamming" if is_sign else usual)
    if metric == "hamming" and not is_sign:
        raise InputError(
            f"{option(metric='hamming')} compares sign codes; {rows.where} holds none; compress it"
            f" with {option(code='sign')}"
        )
    faiss = require_faiss()
    build = _Build(faiss, rows, code, metric, kind, seed)
    with unchanged(rows):
        return build.binary() if metric == "hamming" else build.index()


def write_index(export: Export) -> Mapping[str, Any]:
    """Write the index of the items (or of the table that was asked for) of a run as one file, which
    ``faiss.read_index`` reads (``read_index_binary`` that of sign codes).
    """
    run, given = export.what, export.options
    assert isinstance(run, Run)
    key = given.get("table", "items")
    require_free(export)
    table = run.table(key)
    ids = table.stored_ids
    named = ids is not None and ids.kind != "int64"
    with hidden_ids(export.place, partial(_write_ids, table) if named else None) as written:
        space = space_of_run(run)
        with in_one_space(run, space.origin), unchanged(table):
            known = {**space.to_dict(), "table": key}
            index = faiss_index(
                run, key, kind=given.get("index", "flat"), metric=given.get("metric")
            )
            names = written()
        publish_file(index, export.place, known, names, sync=export.sync)
    labels = "ids" if ids is not None and not named else "row numbers"
    is_binary = isinstance(index, require_faiss().IndexBinary)
    return {key: {"rows": int(index.ntotal), "labels": labels, "binary": is_binary}}


def _write_ids(table: Table, stem: Path) -> None:
    """The ids of all rows, by row number."""
    ids, n = table.row_ids, table.n_rows
    reader = ids.open()
    numbers = [np.arange(start, min(start + ID_RANGE, n)) for start in range(0, n, ID_RANGE)]

    def panels() -> Iterator[Panel]:
        for own in numbers:
            yield Panel(own, reader.take(int(own[0]), int(own[-1]) + 1), np.empty((len(own), 0)))

    is_text = ids.kind == "string"
    longest = (
        max((len(one) for panel in panels() for one in panel.ids), default=0) if is_text else 0
    )
    spec = FileSpec("npy", 0, np.dtype(np.float32), ids.kind, table.where)
    write_npy(spec, stem, panels(), Room(n, longest))


@dataclass(frozen=True, slots=True)
class _Build:
    """One index: of the stored codes where faiss has such ones (``moved``), else of rows."""

    faiss: Any
    table: Table
    code: RowCode | None
    metric: SearchMetric
    kind: Kind
    seed: int

    @property
    def moved(self) -> RowCode | None:
        """The code of what is stored, without its matrix, where faiss ranks by it as we do."""
        code = self.code
        if code is None or self.metric != "dot":
            return None
        if isinstance(code, ProductCode):
            return ProductCode(code.width, code.codebooks)
        if not isinstance(code, Code) or code.name not in _QUANTIZERS:
            return None
        return Code(code.name, code.width, None, code.steps)

    def index(self) -> Any:
        """Of floats, by inner products; a matrix, or the length of a query, is a transform."""
        faiss, moved = self.faiss, self.moved
        width = self.table.d if moved is None else moved.width
        inverted = self._inverted(width) if self.kind == "ivf" else None
        stored = self._empty(width, moved, inverted)
        whole = stored if inverted is not None else faiss.IndexIDMap(stored)
        for labels, rows, codes in self._panels():
            if moved is None:
                assert rows is not None
                whole.add_with_ids(rows, labels)
                continue
            y = None if inverted is None else moved.decode(codes, None)
            whole.add_sa_codes(self._as_stored(codes, moved, y, inverted), labels)
        if inverted is not None:
            whole.nprobe = whole.nlist
        before = self._before(width)
        if before is None:
            return whole
        chain = faiss.IndexPreTransform(before, whole)
        _keep(chain, before, whole)
        return chain

    def binary(self) -> Any:
        """Of sign bits, by the bits that differ."""
        faiss, code = self.faiss, self.code
        assert code is not None
        bits = 8 * code.n_codes
        if self.kind == "flat":
            flat = faiss.IndexBinaryFlat(bits)
            index = faiss.IndexBinaryIDMap(flat)
            _keep(index, flat)
        else:
            n_lists, sample = self._sample()
            lists = faiss.IndexBinaryFlat(bits)
            index = faiss.IndexBinaryIVF(lists, bits, n_lists)
            _keep(index, lists)
            index.cp.seed = self.seed
            index.train(code.encode(sample)[0])
            index.nprobe = n_lists
        for labels, _, codes in self._panels():
            index.add_with_ids(codes, labels)
        return index

    def _empty(self, width: int, moved: RowCode | None, inverted: Any) -> Any:
        """The index without rows."""
        faiss = self.faiss
        inner = faiss.METRIC_INNER_PRODUCT
        lists = () if inverted is None else (inverted, width, inverted.ntotal)
        if isinstance(moved, ProductCode):
            parts = len(moved.codebooks)
            index = (
                faiss.IndexIVFPQ(*lists, parts, 8, inner)
                if lists
                else faiss.IndexPQ(width, parts, 8, inner)
            )
            faiss.copy_array_to_vector(
                moved.codebooks.astype(np.float32).ravel(), index.pq.centroids
            )
        elif moved is not None:
            kind = getattr(faiss.ScalarQuantizer, _QUANTIZERS[moved.name])
            index = (
                faiss.IndexIVFScalarQuantizer(*lists, kind, inner)
                if lists
                else faiss.IndexScalarQuantizer(width, kind, inner)
            )
            if isinstance(moved, Code) and moved.steps is not None:
                # faiss gives a byte back as least + (byte + 1/2) / 255 range.
                least, spread = -128.5 * moved.steps, 255 * moved.steps
                trained = np.concatenate([least, spread]).astype(np.float32)
                faiss.copy_array_to_vector(trained, index.sq.trained)
        else:
            index = faiss.IndexIVFFlat(*lists, inner) if lists else faiss.IndexFlatIP(width)
        if lists:
            index.by_residual = False
            _keep(index, inverted)
        index.is_trained = True
        return index

    def _as_stored(self, codes: Rows, moved: RowCode, y: Rows | None, inverted: Any) -> Rows:
        """Codes as faiss adds them: numbers from 0 on, behind the number of their list."""
        if isinstance(moved, Code) and moved.steps is not None:
            codes = codes ^ np.uint8(0x80)
        if y is None:
            return np.ascontiguousarray(codes)
        size = max(1, (int(inverted.ntotal - 1).bit_length() + 7) // 8)
        lists = inverted.assign(y, 1)[:, 0].astype("<i8")[:, None].view(np.uint8)[:, :size]
        return np.ascontiguousarray(np.concatenate([lists, codes], axis=1))

    def _before(self, width: int) -> Any:
        """What queries pass through first; None where nothing."""
        matrix = None if self.moved is None or self.code is None else self.code.matrix
        if matrix is not None:
            linear = self.faiss.LinearTransform(self.table.d, width, False)  # noqa: FBT003
            self.faiss.copy_array_to_vector(matrix.T.astype(np.float32).ravel(), linear.A)
            linear.is_trained = True
            return linear
        return self.faiss.NormalizationTransform(width, 2.0) if self.metric == "cosine" else None

    def _inverted(self, width: int) -> Any:
        """The centres of the lists, fitted to a sample."""
        n_lists, rows = self._sample()
        if self.moved is not None and self.code is not None and self.code.matrix is not None:
            rows = rows @ self.code.matrix.astype(np.float32)
        means = self.faiss.Kmeans(
            width, n_lists, niter=10, seed=self.seed, spherical=True, min_points_per_centroid=1
        )
        means.train(np.ascontiguousarray(rows, np.float32))
        centres = self.faiss.IndexFlatIP(width)
        centres.add(means.centroids)
        return centres

    def _sample(self) -> tuple[int, Rows]:
        """A number of lists, and rows to fit their centres to."""
        n = self.table.n_rows
        n_lists = int(max(1, min(4 * n**0.5, n // 39)))
        rows = sampled_rows(self.table, _ROWS_PER_LIST * n_lists, seed=self.seed).rows
        return min(n_lists, max(1, len(rows))), rows if len(rows) else np.ones((1, self.table.d))

    def _panels(self) -> Iterator[tuple[RowNumbers, Rows | None, Rows]]:
        """Labels, float32 rows (None where codes are moved) and codes, without rows of zeros."""
        moves = self.metric == "hamming" or self.moved is not None
        ids = self.table.stored_ids
        reader = self.table.row_ids.open()
        ranges, grid = plan(self.table)
        for rows in ranges:
            (block,) = compute(
                [self.table.source.block(rows.start, rows.stop)], label="", n_tasks=0
            )
            opened = block.open()
            for start in range(rows.start, rows.stop, grid.rows):
                stop = min(start + grid.rows, rows.stop)
                labels = np.arange(start, stop)
                if ids is not None and ids.kind == "int64":
                    labels = np.asarray(reader.take(start, stop), np.int64)
                if moves:
                    codes, *scales = stored_rows(opened, start, stop)
                    kept = self._not_zero(codes, scales)
                    yield labels[kept], None, np.ascontiguousarray(codes[kept])
                    continue
                vectors: Rows = opened.take(start, stop)
                kept = vectors.any(axis=1)
                if self.metric == "cosine":
                    vectors = unit(vectors.astype(np.float64))
                single = np.array(vectors[kept], np.float32, order="C")
                if not np.isfinite(single).all():
                    bad = np.flatnonzero(kept)[~np.isfinite(single).all(axis=1)][0]
                    raise NotFiniteError(
                        f"row {start + int(bad)} of {self.table.where} is not finite in float32"
                    )
                yield labels[kept], single, vectors

    def _not_zero(self, codes: Rows, scales: list[Rows]) -> Any:
        """Which rows are not zeros."""
        if scales:
            return scales[0][:, 0] > 0
        assert self.moved is not None
        return np.asarray(self.moved.decode(codes, None).any(axis=1))


def _keep(index: Any, *parts: Any) -> None:
    """Keep what an index points to alive as long as the index is."""
    index.referenced_objects = [*getattr(index, "referenced_objects", ()), *parts]
