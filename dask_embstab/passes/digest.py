"""Are these bytes the ones that were written? Digests of whole tables, of ids and of files, in one
read each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from operator import add
from typing import Any

import crc32c

from dask_embstab.core.moments import Panel
from dask_embstab.errors import DamageError
from dask_embstab.passes.engine.graph import Graph, run_all
from dask_embstab.passes.engine.reduce import Reduction, reduce_table
from dask_embstab.tables.ids.ids import id_ranges
from dask_embstab.tables.ids.kinds import IdArray, IdKind
from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.read.stored.shard_file import FileDigest, file_digest
from dask_embstab.tables.table import Table

_BATCH = 64
_MOST_NAMED = 5


def nothing_reduction() -> Reduction[int]:
    """A read for its digests alone."""
    return Reduction(_nothing, add, float, n_squares=0)


def table_digests(tables: Sequence[Table]) -> list[list[int]]:
    """Digests of every chunk of these tables, in order; damage is an error."""
    passes = [reduce_table(table, nothing_reduction(), label="reading digests") for table in tables]
    return [in_order(read.digests) for read in run_all(dict(enumerate(passes))).values()]


def in_order(digests: Digests) -> list[int]:
    """Digests by chunk number."""
    return [digests[chunk] for chunk in sorted(digests)]


def ids_digest(table: Table) -> int | None:
    """crc32c of all ids in order; None where rows are known by their number."""
    if table.stored_ids is None:
        return None

    crc = 0
    plain: dict[IdKind, Callable[[IdArray], bytes]] = {
        "int64": lambda ids: ids.astype("<i8").tobytes(),
        "string": lambda ids: json.dumps(ids.tolist()).encode(),
        "uuid": lambda ids: ids.tobytes(),
    }
    for ids in id_ranges(table.stored_ids):
        crc = crc32c.crc32c(plain[table.stored_ids.kind](ids), crc)
    return int(crc)


def problem(digest: FileDigest | None, recorded: int, kind: str) -> str | None:
    """What is wrong with a file of which a digest was recorded, in words; None where nothing is.

    ``kind``: ``chunks`` end in their own checksum, which their digest leaves out; ``metadata`` does
    not.
    """
    if digest is None:
        return "is missing"
    if kind == "metadata":
        return None if digest.whole == recorded else "is not what was published"
    if not digest.checks:
        return "fails its checksum"
    return None if digest.body == recorded else "is not what was published"


def require_none(damage: Sequence[str], repair: str) -> None:
    """Raise `DamageError` naming the first damaged files, if there are any."""
    if damage:
        named = "; ".join(damage[:_MOST_NAMED])
        more = f"; and {len(damage) - _MOST_NAMED} more" if len(damage) > _MOST_NAMED else ""
        raise DamageError(f"{named}{more}. {repair}")


def file_digests(
    blocks: Callable[[str], Iterable[bytes]], keys: Sequence[str]
) -> list[FileDigest | None]:
    """One read of every file, a bounded number of bytes at a time; None for a file that is
    missing.
    """
    if not keys:
        return []

    graph = Graph("reading checksums")
    read = graph.shared(blocks)
    tasks = [
        graph.read(_digest_files, read, list(keys[at : at + _BATCH]))
        for at in range(0, len(keys), _BATCH)
    ]
    digests: list[FileDigest | None] = graph.tree(tasks, _chained).run()
    return digests


def _chained(parts: Iterable[list[FileDigest | None]]) -> list[FileDigest | None]:
    return [digest for part in parts for digest in part]


def _digest_files(
    blocks: Callable[[str], Iterable[bytes]], keys: Sequence[str]
) -> list[FileDigest | None]:
    digests: list[FileDigest | None] = []
    for key in keys:
        try:
            digests.append(file_digest(blocks(key)))
        except FileNotFoundError:
            digests.append(None)
    return digests


def _nothing(panel: Panel) -> Any:
    return 0 * len(panel.rows)
