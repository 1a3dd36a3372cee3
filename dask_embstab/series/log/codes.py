"""In which codes are the rows of a version stored beside its vectors?

Every run holds the code of its own rows (its matrix, steps or codebook), so what is old stays
readable. Two versions are of one code where the codes have one checksum, in the space in which the
versions are read: only then do their bytes mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import zarr

from dask_embstab.core.codes.row_code import RowCode, turned
from dask_embstab.errors import InputError
from dask_embstab.series.log.basis import matrix_of, read_run
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.published import published_run
from dask_embstab.series.log.versions import Version
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import ATTRIBUTE, CODES, TABLES
from dask_embstab.tables.read.coded import CodedSource, code_attributes, code_of
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table


def stored_codes(run: Run) -> dict[str, RowCode]:
    """The codes of a run's tables, as they are stored; none of a run of vectors alone."""
    groups = {key: run.group.get(key) for key in TABLES if getattr(run, key) is not None}
    return {
        key: code_of(group, f"{run.where}/{key}")
        for key, group in groups.items()
        if isinstance(group, zarr.Group) and CODES in group
    }


def codes_in(store: Store, version: Version) -> dict[str, RowCode]:
    """The same of a version (as `Log.located` gives it), in the space in which it is read."""
    M = matrix_of(store, version)
    codes = stored_codes(published_run(store, version))
    return codes if M is None else {key: turned(code, M) for key, code in codes.items()}


def stamps(codes: Mapping[str, RowCode]) -> dict[str, int]:
    """Checksums of all that decoding needs."""
    return {key: code_attributes(code)[ATTRIBUTE]["code"]["crc32c"] for key, code in codes.items()}


def read_codes(store: Store, version: Version) -> Run:
    """The run of a version with the rows that its codes give back, in the space in which it is
    read.

    Raises `InputError` where it has none.
    """
    run = read_run(store, version)
    coded = published_run(store, version).codes
    codes = codes_in(store, version)
    tables = {key: _of_code(coded.table(key), code) for key, code in codes.items()}
    return replace(run, items=tables.get("items"), users=tables.get("users"))


def require_one_code(store: Store, a: Version, b: Version) -> None:
    """Raise `InputError` unless the bytes of both versions' codes mean the same."""
    ours, theirs = (stamps(codes_in(store, version)) for version in (a, b))
    if ours != theirs:
        raise InputError(
            f"versions {a.version} and {b.version} hold codes of two codes, whose bytes are not to"
            " be compared or mixed; decode both, or take versions of one code (the `stamp` of each"
            " is in its figures)"
        )


def last_coded(log: Log) -> Version | None:
    """The head, where its run has codes, else the last live version whose run has; shadows have no
    say.
    """
    live = () if log.head is None else (log.head, *reversed(log.live_runs.values()))
    return next((version for version in live if version.figures.get("codes")), None)


def _of_code(table: Table, code: RowCode) -> Table:
    source: Any = table.source
    assert isinstance(source, CodedSource)
    return replace(table, source=replace(source, code=code))
