"""The fingerprint of a file that has no room for it, in a file beside it.

It names the files that it is of by their lengths and a checksum of their ends, so that it is never
taken for that of a file that was put in their place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crc32c import crc32c

from dask_embstab.errors import DamageError, InputChangedError, InputError
from dask_embstab.files.atomic import write_whole
from dask_embstab.files.regular import open_regular, read_regular
from dask_embstab.tables.space import SPACE_SUFFIX, Space

_ENDS, _MOST_BYTES = 1 << 16, 1 << 20


def sidecar(place: Path, suffix: str) -> Path:
    """A file that belongs to another."""
    return place.with_name(place.name + suffix)


def write_sidecar(
    place: Path, known: Mapping[str, Any], suffixes: Iterable[str] = ("",), *, sync: bool
) -> None:
    """Write a space (`Space.to_dict`), and what else is ``known``, of the files at a place and with
    these ``suffixes`` beside it, which are whole by now.
    """
    values = {**known, "files": {suffix: _stamp(sidecar(place, suffix)) for suffix in suffixes}}
    text = json.dumps(values).encode()
    write_whole(sidecar(place, SPACE_SUFFIX), lambda file: file.write(text), sync=sync)


def read_sidecar(place: Path) -> tuple[Space, dict[str, Any]]:
    """The space of an index or a transform in a file, and what else is known of it.

    `InputChangedError` where the files are others than those that were written with it.
    """
    path = sidecar(place, SPACE_SUFFIX)
    try:
        values = json.loads(read_regular(path, _MOST_BYTES))
        if not isinstance(values, dict):
            raise ValueError("it is no object")
        known = {name: values.pop(name) for name in ("table", "files") if name in values}
        files = dict(known.get("files") or {})
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"vectors of {place} do not say of which space they are: an index has its fingerprint"
            f" in {path.name} beside it; write there what space_of(RUN).to_dict() gives of the run"
            " that was indexed"
        ) from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds no fingerprint of a space: {error}") from error
    for suffix, stamp in files.items():
        try:
            stamped = _stamp(sidecar(place, suffix))
        except (FileNotFoundError, NotADirectoryError):
            stamped = None
        except OSError as error:
            raise DamageError(f"{sidecar(place, suffix)} cannot be read ({error})") from error
        if stamped != stamp:
            raise InputChangedError(
                f"{path.name} is the fingerprint of another file than {sidecar(place, suffix)} is"
                " now; export the index anew, or write the fingerprint of what is there"
            )
    return Space.from_dict(values), known


def _stamp(path: Path) -> dict[str, int]:
    """The length of a file, and the checksum of its beginning and its end."""
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        crc = crc32c(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        return {"bytes": size, "ends": crc32c(file.read(_ENDS), crc)}
