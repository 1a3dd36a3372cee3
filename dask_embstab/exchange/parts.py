"""One read of a table into files: a task reads the rows of one file and writes it.

Files are cut by numbers of rows and written by groups of rows that hang neither on chunks nor on
the scheduler, so their bytes do not either. A chunk that two files share is read for both.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from dask_embstab.errors import DamageError
from dask_embstab.exchange.arrow_files import write_arrow, write_parquet
from dask_embstab.exchange.changes import Changes
from dask_embstab.exchange.indexes.faiss_file import write_part as write_faiss
from dask_embstab.exchange.indexes.graphs import write_hnswlib, write_usearch
from dask_embstab.exchange.indexes.lance import write_lance
from dask_embstab.exchange.indexes.milvus import write_milvus
from dask_embstab.exchange.indexes.pgcopy import write_pgcopy
from dask_embstab.exchange.indexes.qdrant import write_qdrant
from dask_embstab.exchange.npy_files import write_npy
from dask_embstab.exchange.panels import FileSpec, Panel, Panels, Room, WriteFile
from dask_embstab.exchange.text_files import write_csv, write_word2vec, write_word2vec_binary
from dask_embstab.passes.engine.blas import ensure_one_thread
from dask_embstab.passes.engine.graph import Graph, Pass
from dask_embstab.passes.engine.memory import write_load
from dask_embstab.passes.engine.paired import PairedRows, PartnerReader, Partners
from dask_embstab.passes.engine.plan import Grid, RowRange, RowRanges
from dask_embstab.passes.engine.write import raise_not_finite
from dask_embstab.tables.ids.ids import ID_RANGE, IdBlock, IdReader
from dask_embstab.tables.ids.kinds import digest_of_ids
from dask_embstab.tables.inputs import ALL_IDS, ID_DIGESTS, needs_digests
from dask_embstab.tables.read.limits import require_task_count
from dask_embstab.tables.read.source import Digests, Openable
from dask_embstab.tables.read.stored.files import require_visible_dir
from dask_embstab.tables.table import Table

WRITERS: dict[str, WriteFile] = {
    "parquet": write_parquet,
    "arrow": write_arrow,
    "npy": write_npy,
    "csv": write_csv,
    "word2vec": write_word2vec,
    "word2vec-binary": write_word2vec_binary,
    "hnswlib": write_hnswlib,
    "usearch": write_usearch,
    "faiss": write_faiss,
    "lancedb": write_lance,
    "pgvector": write_pgcopy,
    "qdrant": write_qdrant,
    "milvus": write_milvus,
}
"""How a part is written, by the name of its format."""
_IDS_IN_NPY = ("npy", "hnswlib", "usearch", "faiss")
"""Formats whose ids are an npy file, which must know how long texts are before it is written."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows ``start`` to ``stop`` were read, ``rows`` of them written, in so many ``files`` of each
    number; how many of them there are of each kind of change, and what was read.
    """

    start: int
    stop: int
    rows: int = 0
    files: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    read: Digests = field(default_factory=dict)
    ids: int = 0
    partners: Digests = field(default_factory=dict)

    def read_digests(self) -> tuple[Digests, Digests, Digests]:
        """Of the table's chunks, of its ids, and of the chunks of the earlier version."""
        return self.read, {ALL_IDS: self.ids % ID_DIGESTS}, self.partners


def write_parts(
    table: Table,
    spec: FileSpec,
    folder: Path,
    *,
    rows_per_file: int,
    label: str,
    changes: Changes | None = None,
    earlier: PairedRows | None = None,
) -> Pass[Parts]:
    """The pass that writes a table into a folder that is there, as ``part-00000`` and so on.

    With ``changes`` only rows that differ from their row in the ``earlier`` version (all, where it
    is None), and no file where there is none.
    """
    ranges = RowRanges(table.n_rows, rows_per_file)
    require_task_count(len(ranges), "an export")
    graph = Graph(label)
    shared, selection = graph.shared(spec), graph.shared(changes)
    keys = [
        graph.read(
            write_part,
            table.source.block(rows.start, rows.stop),
            table.row_ids.block(rows.start, rows.stop),
            rows,
            shared,
            str(folder),
            selection,
            None if earlier is None else earlier.of(rows),
        )
        for rows in ranges
    ]
    grid = Grid(spec.group_rows, anchored=True)
    load = write_load(table, ranges, grid, width=spec.d, itemsize=spec.dtype.itemsize)
    reads = (
        table.source,
        table.stored_ids if needs_digests(table.stored_ids) else None,
        None if earlier is None else earlier.reference,
    )
    finalize = partial(_whole, n_rows=table.n_rows)
    return graph.tree(keys, _join, finalize=finalize, load=load, reads=reads)


def write_part(
    block: Openable,
    ids: IdBlock,
    rows: RowRange,
    spec: FileSpec,
    folder: str,
    changes: Changes | None,
    partners: Partners | None,
) -> Parts:
    """One task: these rows read, those that changed written into one file."""
    ensure_one_thread()
    require_visible_dir(folder)
    reading = _Reading(block, ids, rows, spec, changes, partners)
    panels = iter(reading)
    first = next(panels, None)
    if first is not None:
        characters = reading.characters() if needs_characters(spec) else 0
        room = Room(rows.stop - rows.start, characters)
        whole: Panels = itertools.chain([first], panels)
        WRITERS[spec.format](spec, part_stem(folder, rows.number), whole, room)
    return reading.done()


def needs_characters(spec: FileSpec) -> bool:
    """Whether the length of the longest id must be known before a part is written."""
    return spec.format in _IDS_IN_NPY and spec.ids == "string"


def part_stem(folder: str | Path, number: int) -> Path:
    """The path of a part without its suffix."""
    return Path(folder) / f"part-{number:05d}"


class _Reading:
    """The rows of one task, a panel at a time, and what was read of them."""

    def __init__(
        self,
        block: Openable,
        ids: IdBlock,
        rows: RowRange,
        spec: FileSpec,
        changes: Changes | None,
        partners: Partners | None,
    ) -> None:
        self._block, self._ids, self._rows, self._spec = block, ids, rows, spec
        self._changes, self._partners = changes, partners
        self._written, self._digest = 0, 0
        self._counts: Counter[str] = Counter()
        self._read: Digests = {}
        self._earlier: Digests = {}

    def __iter__(self) -> Iterator[Panel]:
        rows, spec, compared = self._rows, self._spec, needs_digests(self._ids.ids)
        reader, ids, shift = self._block.open(), self._open_ids(), self._ids.start - rows.start
        partners: PartnerReader | None = (
            None if self._partners is None else self._partners.open(rows.start, rows.stop)
        )
        for start in range(rows.start, rows.stop, spec.group_rows):
            stop = min(start + spec.group_rows, rows.stop)
            stored, labels = reader.take(start, stop), ids.take(start + shift, stop + shift)
            self._digest += digest_of_ids(labels, start) if compared else 0
            with np.errstate(over="ignore"):
                cast = stored.astype(spec.dtype, copy=False)
            if not np.isfinite(cast).all():
                raise_not_finite(stored, stored, spec.dtype, start, spec.where)
            panel = Panel(np.arange(start, stop), labels, cast)
            if self._changes is not None:
                partner_rows = None if partners is None else partners.take(start, stop)
                kept, counts = self._changes.select(cast, partner_rows)
                self._counts.update(counts)
                panel = Panel(*(part[kept] for part in panel))
            self._written += len(panel.ids)
            if len(panel.ids):
                yield panel
        self._read = reader.digests()
        self._earlier = {} if partners is None else partners.digests()

    def characters(self) -> int:
        """Of the longest id: one more read of the ids."""
        reader, shift, most = self._open_ids(), self._ids.start - self._rows.start, 0
        for start in range(self._rows.start, self._rows.stop, ID_RANGE):
            stop = min(start + ID_RANGE, self._rows.stop)
            labels = reader.take(start + shift, stop + shift).tolist()
            most = max(most, max(map(len, labels)))
        return most

    def done(self) -> Parts:
        """What was read and written."""
        rows, n = self._rows, self._written
        return Parts(
            *(rows.start, rows.stop, n, int(n > 0)),
            changes=self._counts,
            read=self._read,
            ids=self._digest,
            partners=self._earlier,
        )

    def _open_ids(self) -> IdReader:
        return self._ids.ids.open()


def _join(parts: Sequence[Parts]) -> Parts:
    """What neighbouring tasks wrote."""
    changes: Counter[str] = Counter()
    read: Digests = {}
    partners: Digests = {}
    for before, part in itertools.pairwise(parts):
        if before.stop != part.start:
            raise DamageError(_not_whole(f"rows {part.start} on follow on row {before.stop}"))
    for part in parts:
        changes.update(part.changes)
        read.update(part.read)
        partners.update(part.partners)
    return Parts(
        parts[0].start,
        parts[-1].stop,
        sum(part.rows for part in parts),
        sum(part.files for part in parts),
        changes,
        read,
        sum(part.ids for part in parts),
        partners,
    )


def _whole(parts: Parts, *, n_rows: int) -> Parts:
    if (parts.start, parts.stop) != (0, n_rows):
        raise DamageError(_not_whole(f"rows {parts.start} to {parts.stop} of {n_rows} were"))
    return parts


def _not_whole(reason: str) -> str:
    return (
        f"every row of a table must be exported once; {reason}; nothing was published; call again,"
        " and report this"
    )
