"""Files of hnswlib and usearch: graphs of nearest neighbours, whose keys are row numbers, and the
ids of the rows in an npy file beside them.

Neighbours are approximate, and a graph that several threads build is another each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.types import RowNumbers, Rows
from dask_embstab.errors import InputError
from dask_embstab.exchange.npy_files import write_npy
from dask_embstab.exchange.panels import FileSpec, Panel, Panels, Room
from dask_embstab.extras import require_extra

_LINKS, _EF = 16, 200
"""Neighbours of a node, and candidates while one is inserted: what both libraries recommend."""


def write_hnswlib(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """``.hnswlib`` (float32) and ``.ids.npy``."""
    index = hnswlib_index(spec.metric, spec.d)
    index.init_index(max_elements=max(1, room.rows), M=_LINKS, ef_construction=_EF, random_seed=0)
    _fill(spec, stem, panels, room, lambda rows, numbers: index.add_items(rows, numbers))
    index.save_index(native_path(stem, "hnswlib"))


def write_usearch(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """``.usearch`` (float32, or float16 where rows are) and ``.ids.npy``."""
    library = require_extra("usearch.index", "usearch", what="an index of usearch")
    half = spec.dtype == np.float16
    index = library.Index(
        ndim=spec.d,
        metric="cos" if spec.metric == "cosine" else "ip",
        dtype="f16" if half else "f32",
        connectivity=_LINKS,
        expansion_add=_EF,
    )
    _fill(spec, stem, panels, room, lambda rows, numbers: index.add(numbers, rows))
    index.save(native_path(stem, "usearch"))


def hnswlib_index(metric: str, d: int) -> Any:
    """An empty index of hnswlib."""
    library = require_extra("hnswlib", "hnswlib", what="an index of hnswlib")
    return library.Index(space="cosine" if metric == "cosine" else "ip", dim=d)


def _fill(
    spec: FileSpec,
    stem: Path,
    panels: Panels,
    room: Room,
    add: Callable[[Rows, RowNumbers], None],
) -> None:
    """One read for both files."""

    def added() -> Panels:
        for panel in panels:
            rows = np.ascontiguousarray(panel.rows, dtype=np.float32)
            add(rows, panel.numbers.astype(np.uint64))
            yield Panel(panel.numbers, panel.ids, panel.rows[:, :0])

    write_npy(replace(spec, d=0), stem, added(), room)


def native_path(stem: Path, ending: str) -> str:
    """The path of a file that a library of C++ opens itself: it must be UTF-8."""
    path = f"{stem}.{ending}"
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{ending} opens files whose paths are UTF-8; {shown(path)} is not; choose another"
            " place"
        ) from None
    return path
