"""An index of faiss in one file: written whole, with its fingerprint in a file beside it, opened
again, and built anew of its own vectors.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from dask_embstab.core.moments import unit
from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.errors import DamageError, InputChangedError, InputError
from dask_embstab.exchange.npy_files import write_npy
from dask_embstab.exchange.panels import FileSpec, Panel, Panels, Room
from dask_embstab.exchange.space_file import read_sidecar, sidecar, write_sidecar
from dask_embstab.extras import require_extra
from dask_embstab.files.atomic import hidden_name, new_token, write_whole
from dask_embstab.files.regular import open_regular
from dask_embstab.tables.space import SPACE_SUFFIX, Space

IDS_SUFFIX = ".ids.npy"
_AT_A_TIME = 1 << 14
_ROWS_PER_LIST = 256
"""Vectors that a list's centre is fitted to at most, as faiss does."""


def require_faiss() -> Any:
    """The library."""
    return require_extra("faiss", "faiss", what="an index of faiss")


def publish_file(
    index: Any, place: Path, known: Mapping[str, Any], ids: Path | None, *, sync: bool
) -> None:
    """Write an index and what is ``known`` of it (its space, its table) at its place; the file
    ``ids`` of the ids of its labels, where these are row numbers, is moved beside it.
    """
    # An index that stood here is whole until the new one takes its place, whose fingerprint comes
    # last: the old one names other bytes (or goes first), so that it is refused meanwhile.
    space, names = sidecar(place, SPACE_SUFFIX), sidecar(place, IDS_SUFFIX)
    with suppress(InputError, DamageError):
        if not read_sidecar(place)[1].get("files"):
            space.unlink()
    write_whole(place, partial(_stream, index), sync=sync)
    if ids is None:
        names.unlink(missing_ok=True)
    else:
        ids.rename(names)
    write_sidecar(place, known, ("",) if ids is None else ("", IDS_SUFFIX), sync=sync)


@contextmanager
def hidden_ids(
    place: Path, write: Callable[[Path], None] | None
) -> Iterator[Callable[[], Path | None]]:
    """A file of ids on its way to a place: ``write`` writes it for a stem (None: there is none);
    the block is given what tells its path, once it is written.
    """
    stem = place.with_name(hidden_name(place.name, new_token()))
    made = sidecar(stem, IDS_SUFFIX)

    def written() -> Path | None:
        if write is None:
            return None
        write(stem)
        return made

    try:
        yield written
    finally:
        made.unlink(missing_ok=True)


def open_file(place: Path) -> tuple[Any, Space, dict[str, Any]]:
    """The index in a file, its space, and what else is known; one that is replaced meanwhile is
    refused.
    """
    faiss, (space, known) = require_faiss(), read_sidecar(place)
    try:
        os.close(open_regular(place))
        index = faiss.read_index(os.fspath(place))
    except (RuntimeError, UnicodeEncodeError) as error:
        why = str(error).splitlines()[-1]
        raise DamageError(
            f"{place} cannot be read as an index of float vectors ({why}); export it anew, and"
            " search sign codes with search"
        ) from error
    if read_sidecar(place) != (space, known):
        raise InputChangedError(f"{place} was replaced while it was opened; call again")
    return index, space, known


def write_part(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """``.faiss``, a flat index whose labels are row numbers, and ``.ids.npy``."""
    faiss = require_faiss()
    inner = faiss.IndexIDMap(faiss.IndexFlatIP(spec.d))

    def added() -> Panels:
        for panel in panels:
            rows = unit(panel.rows.astype(np.float64)) if spec.metric == "cosine" else panel.rows
            inner.add_with_ids(rows.astype(np.float32), panel.numbers.astype(np.int64))
            yield Panel(panel.numbers, panel.ids, panel.rows[:, :0])

    write_npy(replace(spec, d=0), stem, added(), room)
    made = of_cosines(inner) if spec.metric == "cosine" else inner
    write_whole(f"{stem}.faiss", partial(_stream, made), sync=False)


def of_cosines(index: Any) -> Any:
    """The index, whose queries are brought to length 1 first."""
    faiss = require_faiss()
    before = faiss.NormalizationTransform(index.d, 2.0)
    chain = faiss.IndexPreTransform(before, index)
    chain.referenced_objects = [before, index]
    return chain


def before(index: Any) -> list[Any]:
    """What queries pass through first."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    return [faiss.downcast_VectorTransform(index.chain.at(n)) for n in range(index.chain.size())]


def layers(index: Any, place: Path) -> tuple[bool, Any, RowNumbers | None]:
    """Whether queries are brought to length 1, the innermost index, and the labels of its vectors.

    `InputError` where its vectors are codes, or it is of a kind that is not taken apart here.
    """
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    first = before(index)
    cosine = len(first) == 1 and isinstance(first[0], faiss.NormalizationTransform)
    if cosine:
        index = faiss.downcast_index(index.index)
    labels = None
    if isinstance(index, faiss.IndexIDMap):
        labels = faiss.vector_to_array(index.id_map)
        index = faiss.downcast_index(index.index)
    if type(index) not in (
        *(faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexFlatL2),
        *(faiss.IndexIVFFlat, faiss.IndexHNSWFlat),
    ):
        raise InputError(
            "vectors are moved out of faiss's flat, IVFFlat and HNSWFlat indexes;"
            f" {place} is of {type(index).__name__}, which holds codes or passes queries through a"
            " matrix: to be coded twice loses more; bridge the queries, or build it anew"
        )
    return cosine, index, labels


def stored(index: Any, labels: RowNumbers | None) -> Iterator[tuple[RowNumbers, Rows]]:
    """Labels and vectors of an innermost index, some at a time."""
    faiss = require_faiss()
    if isinstance(index, faiss.IndexIVFFlat):
        for number in range(index.nlist):
            if n := index.invlists.list_size(number):
                ids = faiss.rev_swig_ptr(index.invlists.get_ids(number), n).copy()
                codes = faiss.rev_swig_ptr(index.invlists.get_codes(number), n * index.code_size)
                yield ids, codes.copy().view(np.float32).reshape(n, index.d)
        return
    for start in range(0, index.ntotal, _AT_A_TIME):
        n = min(_AT_A_TIME, index.ntotal - start)
        numbers = np.arange(start, start + n)
        yield numbers if labels is None else labels[numbers], index.reconstruct_n(start, n)


def built_anew(
    index: Any, labels: RowNumbers | None, moved: Callable[[], Iterator[tuple[RowNumbers, Rows]]]
) -> Any:
    """An index of the kind of an innermost one, of other vectors: lists have other centres and
    graphs other links. ``moved`` is called for every read of them.
    """
    faiss = require_faiss()
    width = next((rows.shape[1] for _, rows in moved()), index.d)
    metric = index.metric_type
    if isinstance(index, faiss.IndexIVFFlat):
        centres = faiss.IndexFlat(width, metric)
        made = faiss.IndexIVFFlat(centres, width, index.nlist, metric)
        made.referenced_objects = [centres]
        made.cp.min_points_per_centroid = 1
        every = max(1, index.ntotal // (_ROWS_PER_LIST * index.nlist))
        sample = [rows[::every] for _, rows in moved()]
        made.train(np.concatenate(sample) if sample else np.ones((index.nlist, width), np.float32))
        made.nprobe = index.nprobe
    elif isinstance(index, faiss.IndexHNSWFlat):
        made = faiss.IndexHNSWFlat(width, index.hnsw.nb_neighbors(1), metric)
        made.hnsw.efConstruction = index.hnsw.efConstruction
        made.hnsw.efSearch = index.hnsw.efSearch
    else:
        made = faiss.IndexFlat(width, metric)
    whole = made
    if labels is not None:
        whole = faiss.IndexIDMap(made)
        whole.referenced_objects = [made]
    own_ids = labels is not None or isinstance(index, faiss.IndexIVFFlat)
    for names, rows in moved():
        whole.add_with_ids(rows, names) if own_ids else whole.add(rows)
    return whole


def copy_ids(ids: Path, stem: Path) -> None:
    """The file of ids of one index for another's stem."""
    with ids.open("rb") as file:
        write_whole(
            sidecar(stem, IDS_SUFFIX), lambda out: shutil.copyfileobj(file, out), sync=False
        )


def _stream(index: Any, file: IO[bytes]) -> None:
    faiss = require_faiss()
    is_binary = isinstance(index, faiss.IndexBinary)
    write = faiss.write_index_binary if is_binary else faiss.write_index
    # faiss counts what was written; its buffer is used again.
    write(index, faiss.PyCallbackIOWriter(lambda data: file.write(bytes(data)), 1 << 20))
