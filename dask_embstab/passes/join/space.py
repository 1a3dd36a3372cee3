"""The fingerprint of a run's space, also of one that is as training left it."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace

from dask_embstab.errors import EmbstabWarning, InputChangedError
from dask_embstab.passes.join.rows import identity
from dask_embstab.tables.layout import TABLES, recorded
from dask_embstab.tables.read.direct_source import few_checksums
from dask_embstab.tables.run import Run
from dask_embstab.tables.space import Space, require_one_space, space_of_transform
from dask_embstab.tables.table import Table
from dask_embstab.tables.transform import Transform


def space_of_run(run: Run) -> Space:
    """The space of a run's vectors; of one that no transform made, by the checksums of a few
    chunks, or the identity of its tables where none are stored: a retraining changes all rows, but
    perhaps those of one chunk. Codes of such a run give its rows back, if not every bit, and are of
    its space.
    """
    made = run.transform
    if made is not None:
        space = replace(space_of_transform(made), name=run.name)
        return space if run.origin is None else replace(space, origin=run.origin)
    if (known := _compressed(run)) is not None:
        return Space(known, None, run.name)
    return Space(_origin(run, [_checksum(t) or identity(t) for t in _tables(run)]), None, run.name)


def require_runs_meet(a: Run, b: Run, what: str) -> None:
    """Raise `SpaceError` where stored runs are of two spaces; ``what`` is what messages call ``a``.

    Warn where that cannot be told: one table as training left it is known by its rows alone, and
    may be more rows of the other's model. Tables (also of a dict) say nothing and are taken as they
    are.
    """
    if a.path is None or b.path is None or (a.path, a.origin) == (b.path, b.origin):
        return
    ours, theirs = space_of_run(a), space_of_run(b)
    if ours.origin == theirs.origin:
        return
    if not (_says_nothing(a) or _says_nothing(b)):
        require_one_space(ours, theirs, f"{what} ({a.where})", b.where)
    warnings.warn(
        EmbstabWarning(
            f"{what} ({a.where}) and {b.where} are not known to be of one space: a table as"
            " training left it does not say of which it is; where one model made both, give its"
            " array or table in place of the run"
        ),
        stacklevel=4,
    )


def _says_nothing(run: Run) -> bool:
    """Whether this is one table as training left it."""
    is_one = run.items is None or run.users is None
    return is_one and run.origin is None and run.transform is None and _compressed(run) is None


def known_origin(run: Run, made: Transform | None) -> str | None:
    """The origin of the space of a run that is fitted or aligned to, and that the transform
    ``made``: a fit reads both once and not twice. None where only reading more would tell.
    """
    if made is not None:
        return run.origin or space_of_transform(made).origin
    if run.path is None:
        return None
    if (stated := _compressed(run)) is not None:
        return stated
    known = [_checksum(table) for table in _tables(run)]
    return None if None in known else _origin(run, known)


@contextlib.contextmanager
def in_one_space(run: Run, origin: str) -> Iterator[None]:
    """Rows of a run are read in the block, whose space was found to be of this ``origin``:
    `InputChangedError` where it is another at the end, and what was read would get the fingerprint
    of what stood there before.
    """
    yield
    # Nobody puts another run in the place of arrays.
    if run.path is not None and space_of_run(run).origin != origin:
        raise InputChangedError(
            f"{run.where} must stay as it is while it is read; another run took its place; call"
            " again"
        )


def fitted_on(run: Run, before: str | None, transform: Transform) -> Transform:
    """The transform, which says of which space the vectors are that it takes; ``before`` is the
    run's `known_origin` before the fit.
    """
    # Of a run that was replaced meanwhile nobody knows which one was read.
    same = before == known_origin(run, run.transform)
    source = {"name": run.name, "space": before if same else None}
    return replace(transform, diagnostics={**transform.diagnostics, "source": source})


def _compressed(run: Run) -> str | None:
    """The origin of the run that was compressed, where that was as training left it."""
    code = recorded(run.attrs).get("compressed")
    origin = code.get("space") if isinstance(code, Mapping) else None
    return origin if isinstance(origin, str) else None


def _tables(run: Run) -> list[Table]:
    return [table for key in TABLES if (table := getattr(run, key)) is not None]


def _origin(run: Run, checksums: list[str | None]) -> str:
    shapes = [(table.key, table.n_rows, table.d, str(table.dtype)) for table in _tables(run)]
    return hashlib.sha256(f"{shapes} {checksums}".encode()).hexdigest()[:32]


def _checksum(table: Table) -> str | None:
    """Of chunks all over the table, as they are stored with them."""
    checksums = few_checksums(table.source)
    return None if checksums is None else f"crc32c {checksums}"
