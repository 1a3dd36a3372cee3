"""Which rows have these ids? A sorted index of a stored table's ids, built once and kept next to
its run.

Four plain files in a hidden folder named after the run, the table and a fingerprint of the stored
ids (metadata and chunk files, by size and time of writing): keys in ascending order, their rows,
and for hashed keys the texts. The folder appears whole; an index of ids that have been written anew
has another name, is built again, and the old one removed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_embstab.arguments import offers
from dask_embstab.arguments import shown as shown_value
from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import DamageError, IdError
from dask_embstab.files.atomic import sync_tree
from dask_embstab.files.owned import make_owned, reclaim, remove_folder
from dask_embstab.tables.ids.id_index import DamagedIndexError, IdIndex, record_checks
from dask_embstab.tables.ids.id_spill import (
    COLUMNS,
    RECORD_BYTES,
    parts_for,
    read_part,
    spread_rows,
)
from dask_embstab.tables.ids.ids import Ids, RowNumberIds, id_ranges
from dask_embstab.tables.ids.keys import Keyed, chosen, keyed, stable_order
from dask_embstab.tables.ids.kinds import UUID, IdArray, IdKind, listed_ids, shown
from dask_embstab.tables.ids.spelling import spellings
from dask_embstab.tables.ids.spill import Spill
from dask_embstab.tables.read.arrays import as_numpy
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES, stored_checksum

_MEMORY = 1 << 28
_ROWS = 1 << 19
_NAMED = 5
_WHOLE = re.compile(r"[+-]?[0-9]+")


def find_rows(ids: Ids | RowNumberIds, wanted: Sequence[Any] | IdArray, key: str) -> RowNumbers:
    """Row of every wanted id (the first that has it); ``key`` names the table.

    Raises `IdError`, naming the first few, where one is of another type or in no row.
    """
    asked = asked_ids(wanted, ids.kind)
    rows = _rows(ids, asked, key)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        named = ", ".join(shown(asked[missing[:_NAMED]]))
        others = "" if ids.kind != "string" else _other_spelling(ids, asked[missing[:_NAMED]], key)
        raise IdError(
            f"{len(missing)} of {len(rows)} ids are in no row of {ids.where}, for example"
            f" {named}{others}"
        )
    return rows


def known_rows(ids: Ids | RowNumberIds, wanted: Sequence[Any] | IdArray, key: str) -> RowNumbers:
    """The same, -1 where an id is in no row."""
    return _rows(ids, asked_ids(wanted, ids.kind), key)


def _rows(ids: Ids | RowNumberIds, asked: IdArray, key: str) -> RowNumbers:
    if isinstance(ids, RowNumberIds):
        return np.where((asked >= 0) & (asked < len(ids)), asked, -1)
    if (place := sidecar_path(ids, key, "ids")) is None:
        return _scanned(ids, asked)
    return _looked_up(ids, place, keyed(asked, 0))


def _other_spelling(ids: Ids | RowNumberIds, missing: IdArray, key: str) -> str:
    """What a message says of ids that are there in another normal form, or as a UUID in another
    case.
    """
    for text in missing.tolist():
        if forms := spellings(text):
            present = np.flatnonzero(_rows(ids, np.array(forms, object), key) >= 0)
            if len(present):
                return (
                    f"; {text!a} differs only by its spelling from {forms[present[0]]!a}, which is"
                    " there"
                )
    return ""


def _looked_up(ids: Ids, place: Path, asked: Keyed) -> RowNumbers:
    """The rows by the index, which is built where it is missing, and once more where it is not what
    was written.
    """
    source = place.name.rpartition("-")[2]
    for is_last in (False, True):
        try:
            return IdIndex(_built(ids, place), source).rows(asked)
        except DamagedIndexError:
            if is_last:
                raise DamageError(
                    f"the index {place} cannot be kept whole; check the disk, or copy the run"
                ) from None
            remove_folder(place)

    raise AssertionError("the second attempt returns or raises")


def sidecar_path(ids: Ids | RowNumberIds, key: str, what: str) -> Path | None:
    """The sidecar file of stored ids, next to their run; None where their run is in no folder of
    ours.
    """
    array = ids.array if isinstance(ids, Ids) else None
    if not isinstance(array, zarr.Array) or not isinstance(array.store, LocalStore):
        return None
    if not f"/{array.path}".endswith(f"/{key}/id"):
        return None
    folder = Path(array.store.root, array.path)
    run = folder.parent.parent
    return run.parent / f".{run.name}.{key}.{what}-{_fingerprint(folder, len(ids))}"


def _fingerprint(folder: Path, n: int) -> str:
    """Another text once the ids are written anew, or are hashed by another function: sizes, times
    and stored checksums.
    """
    paths = (
        (str(path.relative_to(folder)), path, path.stat())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    files = [
        [name, stat.st_size, stat.st_mtime_ns, stat.st_ino, _last(path, stat.st_size)]
        for name, path, stat in paths
    ]
    probe = (
        keyed(np.array(["embstab"], object), 0).key.tolist() + keyed(np.array([1]), 0).key.tolist()
    )
    return hashlib.sha256(json.dumps([n, probe, files]).encode()).hexdigest()[:16]


def _last(path: Path, size: int) -> int:
    """What ends a file: of a chunk, mostly the checksum of all the rest."""
    return stored_checksum(str(path)) if size >= CHECKSUM_BYTES else -1


def _built(ids: Ids, place: Path) -> Path:
    """The folder of the index, made where it is missing."""
    if place.is_dir():
        return place

    stem = place.name.rpartition("-")[0]
    try:
        reclaim(place.parent, stem.removeprefix("."))
        owned = make_owned(place.parent, stem.removeprefix("."))
    except OSError as error:
        raise IdError(
            f"a lookup keeps its index beside the run, and {place.parent} cannot be written"
            f" ({error.strerror}); copy the run to a folder that can"
        ) from error

    try:
        (made := owned.path / "index").mkdir()
        _write(ids, made)
        record_checks(made, place.name.rpartition("-")[2])
        sync_tree(made)
        try:
            made.rename(place)
        except OSError:  # another process was quicker
            if not place.is_dir():
                raise
    finally:
        owned.discard()

    for stale in stale_sidecars(place):
        shutil.rmtree(stale, ignore_errors=True)
    return place


def stale_sidecars(place: Path) -> list[Path]:
    """What else is known of the same ids, as they were before: names are compared as they are, not
    as patterns.
    """
    stem = re.compile(re.escape(place.name.rpartition("-")[0]) + "-[0-9a-f]{16}")
    return [path for path in place.parent.iterdir() if path != place and stem.fullmatch(path.name)]


def _write(ids: Ids, folder: Path) -> None:
    """Spread the ids over parts by the first bits of their keys, sort each, and append it: then all
    are sorted.
    """
    n, n_parts = len(ids), parts_for(len(ids), RECORD_BYTES[ids.kind], _MEMORY)
    starts = range(0, n, _ROWS)

    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
        spill = Spill(scratch, COLUMNS[ids.kind], n_parts, len(starts))
        for number, start in enumerate(starts):
            block = ids.block(start, min(start + _ROWS, n))
            spread_rows(block, start, spill, number, cells=False)
        names = "keys", "rows", "starts", "data"
        files = {name: stack.enter_context((folder / name).open("xb")) for name in names}
        files["starts"].write(np.zeros(1, np.int64).tobytes())
        end = 0
        for part in range(n_parts):
            records, _ = read_part(spill, part, 2 * _MEMORY // RECORD_BYTES[ids.kind])
            records = chosen(records, stable_order(records.key))
            files["keys"].write(records.key.tobytes())
            files["rows"].write(records.row.tobytes())
            if records.texts is not None:
                texts = records.texts.packed()
                ends = texts.begin + texts.length
                files["starts"].write((end + ends).tobytes())
                files["data"].write(texts.data[: ends[-1] if len(ends) else 0].tobytes())
                end += int(ends[-1]) if len(ends) else 0


def _scanned(ids: Ids, asked: IdArray) -> RowNumbers:
    """One pass over ids that are not stored on a local disk."""
    import pandas as pd

    known = pd.Index(asked.tolist()).drop_duplicates()
    rows = np.full(len(known), -1, np.int64)
    start = 0
    for part in id_ranges(ids):
        at = known.get_indexer(pd.Index(part.tolist()))
        hit = np.flatnonzero(at >= 0)[::-1]  # the first row of an id is written last
        hit = hit[rows[at[hit]] < 0]
        rows[at[hit]] = start + hit
        start += len(part)

    return np.asarray(rows[known.get_indexer(pd.Index(asked.tolist()))])


def asked_ids(wanted: Sequence[Any] | IdArray, kind: IdKind) -> IdArray:
    """The ids that somebody asks for in the form in which they are stored; texts of numbers and of
    UUIDs are read.

    Raises `IdError` where one cannot be of this kind.
    """
    is_one = isinstance(wanted, str | bytes | bytearray | memoryview | Mapping)
    if is_one or not offers(wanted, "__iter__") or offers(wanted, "to_dask_array"):
        raise IdError(
            f"ids must be a list or an array of ids; {shown_value(wanted)} came; give [id]"
        )

    listed = list(wanted) if isinstance(wanted, set | frozenset) else wanted
    array = as_numpy(
        listed_ids(listed) if isinstance(listed, list | tuple) else listed,
        what="the ids",
        error=IdError,
    )
    if array.ndim != 1:
        raise IdError(
            f"ids must be on one axis; they have the shape {array.shape}; give a list of ids"
        )

    values = array.tolist() if array.dtype != UUID else [value.tobytes() for value in array]
    made: list[Any] = []
    for value in values:
        try:
            made.append(_READ[kind](value))
        except (ValueError, TypeError, AttributeError) as error:
            raise IdError(f"ids of this table are {kind}; {shown_value(value)} is none") from error

    if kind == "uuid":
        return np.frombuffer(b"".join(made), UUID)
    return np.array(made, np.int64 if kind == "int64" else object)


def _int64(value: Any) -> int:
    if isinstance(value, bool | float) or (isinstance(value, str) and not _WHOLE.fullmatch(value)):
        raise ValueError(value)
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(value)
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    value.encode()  # half of a pair of surrogates is no text
    return value


def _uuid(value: Any) -> bytes:
    value = (
        value.item() if isinstance(value, np.void) else value
    )  # as a list of stored ids has them
    raw = (
        value
        if isinstance(value, bytes)
        else getattr(value, "bytes", None) or uuid.UUID(value).bytes
    )
    if not isinstance(raw, bytes) or len(raw) != UUID.itemsize:
        raise ValueError(value)
    return raw


_READ = {"int64": _int64, "string": _text, "uuid": _uuid}
