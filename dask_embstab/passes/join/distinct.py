"""Can two rows of a table have one id? Asked where rows meet in equal order, so that no join has
looked at their ids.

Keys are compared, not ids: distinct keys are distinct ids, and where two keys are equal a join
decides. What was found of a large table of unsorted ids is remembered in an empty file beside its
run, named after the stored ids' files (sizes and times) as an index of ids is, because the same ids
come back with every run.
"""

from __future__ import annotations

import contextlib

import numpy as np

from dask_embstab.core.sums import total
from dask_embstab.passes.engine.graph import Graph
from dask_embstab.passes.join.merge import may_ascend, sortable
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.tables.ids.id_spill import (
    COLUMNS,
    RECORD_BYTES,
    parts_for,
    read_part,
    spread_keys,
    spread_rows,
)
from dask_embstab.tables.ids.ids import ID_RANGE, Ids, RowNumberIds, id_ranges
from dask_embstab.tables.ids.keys import read_keys
from dask_embstab.tables.ids.lookup import sidecar_path, stale_sidecars
from dask_embstab.tables.ids.match import Duplicates, match
from dask_embstab.tables.ids.spill import Spill
from dask_embstab.tables.ids.texts import Keys

_KEY = np.dtype(np.uint64)
_SORTED_BYTES = 2 * _KEY.itemsize
"""What a key takes while it is sorted."""
_REMEMBERED_ROWS = 1 << 20
_BLOCK_ROWS = 1 << 20


def may_repeat(ids: Ids | RowNumberIds, key: str, join: JoinOptions) -> bool:
    """Whether an id may stand in two rows: certain where False, for a join to decide where True.
    ``key`` names the table.
    """
    if not ids.are_stored:
        return False

    known = sidecar_path(ids, key, "distinct") if len(ids) >= _REMEMBERED_ROWS else None
    if (known is not None and known.exists()) or _ascend(ids):
        return False

    fits = len(ids) * _SORTED_BYTES <= join.memory
    reader, n = ids.open(), len(ids)
    repeats = (
        _repeat(
            np.concatenate(
                [read_keys(reader, at, min(at + ID_RANGE, n)) for at in range(0, n, ID_RANGE)]
            )
        )
        if fits
        else _repeat_on_disk(ids, join)
    )
    if known is not None and not repeats:
        with contextlib.suppress(
            OSError
        ):  # a run that cannot be written beside is looked at every time
            known.touch()
            for stale in stale_sidecars(known):
                stale.unlink()

    return repeats


def repeated(ids: Ids | RowNumberIds, join: JoinOptions) -> Duplicates:
    """Rows whose id an earlier row has: asked where `may_repeat`. Ids are spread to scratch files
    and compared there, a part at a time.
    """
    assert isinstance(ids, Ids)
    starts = range(0, len(ids), _BLOCK_ROWS)
    n_parts = parts_for(len(ids), RECORD_BYTES[ids.kind], join.memory)
    needs = len(ids) * RECORD_BYTES[ids.kind]
    spill = Spill(join.scratch.folder(needs=needs), COLUMNS[ids.kind], n_parts, len(starts))
    for number, start in enumerate(starts):
        spread_rows(ids.block(start, min(start + _BLOCK_ROWS, len(ids))), start, spill, number)
    duplicates = Duplicates()
    for part in range(n_parts):
        records, doubled = read_part(spill, part, join.memory // RECORD_BYTES[ids.kind])
        duplicates += doubled + match(records, records).our_duplicates
    spill.clear()
    return duplicates


def _ascend(ids: Ids | RowNumberIds) -> bool:
    """Whether every id is greater than the one before; the first range that is not ends it."""
    if not may_ascend(ids):
        return False
    last = None
    for part in map(sortable, id_ranges(ids)):
        if not bool((part[1:] > part[:-1]).all()) or (
            last is not None and len(part) and not part[0] > last
        ):
            return False
        last = part[-1] if len(part) else last
    return True


def _repeat(keys: Keys) -> bool:
    keys.sort()
    return bool((keys[1:] == keys[:-1]).any())


def _repeat_on_disk(ids: Ids | RowNumberIds, join: JoinOptions) -> bool:
    """The same of keys that do not fit in memory, part by part; computes two graphs."""
    starts = range(0, len(ids), _BLOCK_ROWS)
    n_parts = parts_for(len(ids), 2 * _SORTED_BYTES, join.per_thread)
    spill = Spill(
        join.scratch.folder(needs=len(ids) * _KEY.itemsize), (_KEY,), n_parts, len(starts)
    )
    graph = Graph("ids: spreading")
    spread = [
        graph.read(spread_keys, ids.block(start, min(start + _BLOCK_ROWS, len(ids))), spill, number)
        for number, start in enumerate(starts)
    ]
    graph.tree(spread, total).run()
    graph = Graph("ids: are any repeated?")
    parts = [graph.read(_repeats_in_part, spill, part) for part in range(n_parts)]
    n_repeated: int = graph.tree(parts, total).run()
    spill.clear()
    return bool(n_repeated)


def _repeats_in_part(spill: Spill, part: int) -> int:
    pieces = spill.each(lambda number: spill.read(number, part)[0])
    return int(_repeat(np.concatenate(list(pieces))))
