"""An exported index, opened to be searched or to be read whole: its record says of which space its
vectors are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dask_embstab.core.types import Matrix, RowNumbers, Rows
from dask_embstab.errors import DamageError, InputError
from dask_embstab.exchange.indexes.faiss_file import (
    IDS_SUFFIX,
    before,
    layers,
    open_file,
    require_faiss,
    stored,
)
from dask_embstab.exchange.indexes.graphs import hnswlib_index, native_path
from dask_embstab.exchange.indexes.lance import TABLE
from dask_embstab.exchange.indexes.pgcopy import read_pgcopy
from dask_embstab.exchange.panels import FileSpec, Panel
from dask_embstab.exchange.parts import part_stem
from dask_embstab.exchange.place import RECORD
from dask_embstab.extras import require_extra
from dask_embstab.files.regular import read_regular
from dask_embstab.tables.ids.kinds import IdArray, listed_ids
from dask_embstab.tables.layout import ATTRIBUTE
from dask_embstab.tables.space import Space

SEARCHED = ("hnswlib", "usearch", "lancedb", "faiss")
"""Engines whose files are searched in place."""
MOVED = (*SEARCHED, "pgvector")
"""Engines whose stored vectors are moved into another space."""
_MOST_BYTES = 1 << 20
_AT_A_TIME = 1 << 14
_LOOKED_AT = 256
"""Candidates of a search in a graph: inner products need more than distances do."""


@dataclass(frozen=True)
class Index:
    """One table of an exported index: ``record`` is what the export says of itself; ``folder`` is
    that of the export, or the one file of an index of faiss.
    """

    folder: Path
    record: dict[str, Any]
    table: str

    @property
    def engine(self) -> str:
        """The library that reads it."""
        return str(self.record["as"])

    @property
    def metric(self) -> str:
        """``"dot"`` or ``"cosine"``; of faiss also ``"l2"``."""
        return str(self.record["metric"])

    @property
    def rows(self) -> int:
        """Vectors in it."""
        return int(self.record[self.table]["rows"])

    @property
    def d(self) -> int:
        """Components of a vector."""
        return int(self.record[self.table]["components"])

    @property
    def space(self) -> Space:
        """Of its vectors."""
        return Space.from_dict(self.record["space"])

    @property
    def spec(self) -> FileSpec:
        """To write its files again."""
        described = self.record[self.table]
        return FileSpec(
            self.engine,
            self.d,
            np.dtype(described["dtype"]),
            described["ids"],
            str(self.folder / self.table),
            metric=self.metric,
        )

    def search(self, queries: Matrix, k: int) -> tuple[Matrix, IdArray]:
        """Scores (q, k), descending, and ids (q, k): what the index finds, which may miss some."""
        if self.engine not in SEARCHED:
            raise InputError(
                f"files of {self.engine} are loaded into its server, which searches them; those of"
                f" {', '.join(SEARCHED)} are searched here"
            )
        rows = np.asarray(queries, np.float32)
        if self.engine in ("hnswlib", "usearch") and 2 * k > self.rows:
            return self.scanned(rows, k)  # a graph reaches a part of its nodes
        return _SEARCH[self.engine](self, rows, k)

    def scanned(self, queries: Rows, k: int) -> tuple[Matrix, IdArray]:
        """Exact: all stored vectors are multiplied."""
        stored = np.concatenate([panel.rows for _, part in self.parts() for panel in part])
        lengths = np.linalg.norm(stored, axis=1) if self.metric == "cosine" else 1.0
        own = np.linalg.norm(queries, axis=1)[:, None] if self.metric == "cosine" else 1.0
        with np.errstate(all="ignore"):  # rows of zeros have no direction
            scores = np.nan_to_num(queries.astype(np.float64) @ stored.T / lengths / own)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), self.named(best)

    def parts(self) -> Iterator[tuple[int, Iterator[Panel]]]:
        """The number of every file, and its vectors as the index holds them."""
        if self.engine != "pgvector":
            yield 0, _READ[self.engine](self)
            return
        for number in range(int(self.record[self.table]["files"])):
            stem = part_stem(self.folder / self.table, number)
            yield number, read_pgcopy(self.spec, stem)

    @cached_property
    def ids(self) -> IdArray | None:
        """By row number, mapped and not read; None where labels are all that there is."""
        if self.record.get("labels") is not None:
            return None
        stem = self.stem if self.folder.is_dir() else self.folder
        ids: IdArray = np.load(f"{stem}{IDS_SUFFIX}", mmap_mode="r", allow_pickle=False)
        return ids

    @cached_property
    def opened(self) -> Any:
        """The library's own object."""
        if self.engine == "hnswlib":
            index = hnswlib_index(self.metric, self.d)
            index.load_index(native_path(self.stem, self.engine), max_elements=self.rows)
            return index
        if self.engine == "usearch":
            library = require_extra("usearch.index", "usearch", what="an index of usearch")
            index = library.Index.restore(native_path(self.stem, self.engine), view=True)
            index.expansion_search = _LOOKED_AT
            return index
        if self.engine == "faiss":
            return require_faiss().read_index(native_path(self.stem, self.engine))
        library = require_extra("lancedb", "lancedb", what="a table of LanceDB")
        return library.connect(native_path(self.stem, "lance-db")).open_table(TABLE)

    @property
    def stem(self) -> Path:
        """Of its one part."""
        return part_stem(self.folder / self.table, 0)

    def named(self, numbers: RowNumbers) -> IdArray:
        """The ids of rows, in the form that tables have them in."""
        if self.ids is None:
            return numbers
        ids = self.ids[numbers]
        return listed_ids(ids.ravel().tolist()).reshape(ids.shape) if ids.dtype.kind == "U" else ids


def open_index(folder: Path, table: str) -> Index:
    """The index in the folder of an export, or in a file of faiss; `InputError` where there is
    none.
    """
    if folder.is_file():
        return _open_faiss(folder, table)
    try:
        values = json.loads(read_regular(folder / RECORD, _MOST_BYTES))
        record = values[ATTRIBUTE]
        index = Index(folder, record, table)
        known = index.engine in MOVED and table in record
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"there is no index at {folder}; build one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError(f"{folder / RECORD} cannot be read ({error}); build it anew") from error
    if not known:
        raise InputError(
            f"an index is one of {', '.join(MOVED)}, with a table {table}; {folder} is an export"
            f" as {index.engine}"
        )
    return index


def _open_faiss(place: Path, table: str) -> Index:
    """An index of faiss that is one file; ids are labels where it has no file of ids."""
    engine, space, known = open_file(place)
    if known.get("table", table) != table:
        raise InputError(f"{place} is an index of {known['table']}, not of {table}; say so")
    faiss = require_faiss()
    metric = "l2" if engine.metric_type == faiss.METRIC_L2 else "dot"
    if any(isinstance(one, faiss.NormalizationTransform) for one in before(engine)):
        metric = "cosine"
    has_ids = IDS_SUFFIX in (known.get("files") or {})
    described = {"rows": int(engine.ntotal), "components": int(engine.d), "dtype": "float32"}
    record = {
        "as": "faiss",
        "metric": metric,
        "labels": None if has_ids else "labels",
        "space": space.to_dict(),
        table: described,
    }
    index = Index(place, record, table)
    index.__dict__["opened"] = engine
    return index


def _faiss(index: Index, queries: Rows, k: int) -> tuple[Matrix, IdArray]:
    faiss, opened = require_faiss(), index.opened
    queries = np.ascontiguousarray(queries)
    scores, labels = opened.search(queries, k)
    if _is_short(scores) and (lists := faiss.try_extract_index_ivf(opened)) is not None:
        probed, lists.nprobe = lists.nprobe, lists.nlist
        scores, labels = opened.search(queries, k)
        lists.nprobe = probed
    if _is_short(scores):
        raise InputError(
            f"{index.folder} finds fewer than {k} neighbours of some query; ask for fewer"
        )
    sign = -1.0 if opened.metric_type == faiss.METRIC_L2 else 1.0
    return sign * scores.astype(np.float64), index.named(labels)


def _is_short(scores: Rows) -> bool:
    """Whether faiss found fewer than were asked for: -1, which it gives then, may be an id too."""
    return bool((np.abs(scores) >= np.finfo(np.float32).max).any())


def _faiss_panels(index: Index) -> Iterator[Panel]:
    _, inner, labels = layers(index.opened, index.folder)
    start = 0
    for names, rows in stored(inner, labels):
        yield Panel(np.arange(start, start + len(rows)), index.named(names), rows)
        start += len(rows)


def _hnswlib(index: Index, queries: Rows, k: int) -> tuple[Matrix, IdArray]:
    index.opened.set_ef(max(2 * k, _LOOKED_AT))
    try:
        numbers, distances = index.opened.knn_query(queries, k=k)
    except RuntimeError:  # the graph does not reach so many from some query
        return index.scanned(queries, k)
    return _scores(distances), index.named(numbers.astype(np.int64))


def _usearch(index: Index, queries: Rows, k: int) -> tuple[Matrix, IdArray]:
    matches = index.opened.search(queries, k)
    if (np.atleast_1d(getattr(matches, "counts", k)) < k).any():
        return index.scanned(queries, k)
    keys = np.atleast_2d(matches.keys).astype(np.int64)
    return _scores(np.atleast_2d(matches.distances)), index.named(keys)


def _lance(index: Index, queries: Rows, k: int) -> tuple[Matrix, IdArray]:
    scores, ids = np.empty((len(queries), k)), np.empty((len(queries), k), object)
    for row, query in enumerate(queries):
        asked = index.opened.search(query, vector_column_name="vector")
        answer = asked.distance_type(index.metric).limit(k).to_arrow()
        scores[row] = 1 - answer["_distance"].to_numpy()
        ids[row] = answer["id"].to_pylist()
    return scores, ids if index.record[index.table]["ids"] != "int64" else ids.astype(np.int64)


def _scores(distances: Rows) -> Matrix:
    """Dot products, or cosines: the libraries give one minus that."""
    return np.asarray(1 - distances.astype(np.float64))


def _graph_panels(index: Index) -> Iterator[Panel]:
    for start in range(0, index.rows, _AT_A_TIME):
        numbers = np.arange(start, min(start + _AT_A_TIME, index.rows))
        if index.engine == "hnswlib":
            rows = np.asarray(index.opened.get_items(numbers), np.float32)
        else:
            rows = np.asarray(index.opened.get(numbers.astype(np.uint64)), np.float32)
        yield Panel(numbers, index.named(numbers), rows)


def _lance_panels(index: Index) -> Iterator[Panel]:
    for start in range(0, index.rows, _AT_A_TIME):
        numbers = np.arange(start, min(start + _AT_A_TIME, index.rows))
        batch = index.opened.take_offsets(numbers.tolist()).to_arrow()
        rows = np.stack(batch["vector"].to_numpy())
        ids = batch["id"].to_pylist()
        yield Panel(numbers, np.asarray(ids) if isinstance(ids[0], int) else listed_ids(ids), rows)


_SEARCH: dict[str, Callable[[Index, Rows, int], tuple[Matrix, IdArray]]] = {
    "hnswlib": _hnswlib,
    "usearch": _usearch,
    "lancedb": _lance,
    "faiss": _faiss,
}
_READ: dict[str, Callable[[Index], Iterator[Panel]]] = {
    "hnswlib": _graph_panels,
    "usearch": _graph_panels,
    "lancedb": _lance_panels,
    "faiss": _faiss_panels,
}
