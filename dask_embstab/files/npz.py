"""NumPy's npz files, read with no more memory than the file's own size speaks for."""

from __future__ import annotations

import math
import os
import zipfile
from typing import IO, Any, Literal, TypeAlias

import numpy as np

from dask_embstab.errors import EmbstabError
from dask_embstab.files.atomic import open_file
from dask_embstab.files.remote import is_url, read_remote

Kind: TypeAlias = Literal["moments", "transform", "arrays", "damaged"]
_TRANSFORM = {"diagnostics.npy", "items.npy", "singular_values.npy"}
_SUMS = {f"{name}.npy" for name in ("total", "rest", "partnered", "pairs_joint", "pairs_total")}
"""Members by which a file that this library saved is known."""
_ZIP = b"PK\x03\x04"
_RATIO, _LEAST_BYTES = 32, 1 << 20
"""Arrays may take so many times the bytes of their file: this library compresses none, others may.
"""


def npz_kind(path: Any) -> Kind | None:
    """What a file is by the names of its members: what `TableMoments.save` or `Transform.save`
    wrote, other arrays, or an archive that cannot be listed; None for anything else.
    """
    try:
        if is_url(path) and read_remote(path, 4) != _ZIP:
            return None
        with open_file(path) as file:
            if file.read(4) != _ZIP:
                return None
            with zipfile.ZipFile(file) as archive:
                members = set(archive.namelist())
    except (OSError, EmbstabError):
        return None
    except Exception:  # noqa: BLE001 (whatever zipfile raises over damaged bytes)
        return "damaged"
    if members >= _TRANSFORM:
        return "transform"
    return "moments" if "header.npy" in members and members <= {"header.npy"} | _SUMS else "arrays"


def read_npz(file: IO[bytes]) -> dict[str, Any]:
    """All arrays of a file, by name.

    Raises ValueError where it is no such file, or claims what it does not hold.
    """
    try:
        return _arrays(file)
    except (EmbstabError, ValueError, OSError, MemoryError):
        raise
    except Exception as error:  # zipfile's and zlib's own: it is encrypted, it ends, ...
        raise ValueError(f"it cannot be unpacked ({error})") from error


def _arrays(file: IO[bytes]) -> dict[str, Any]:
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
        if claimed > _LEAST_BYTES + _RATIO * size:
            raise ValueError(f"its arrays claim {claimed} bytes")
        for entry in archive.infolist():
            _require_header(archive, entry)

    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _require_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Raise unless the header of an array speaks of as many bytes as follow it: NumPy takes memory
    for what it says.
    """
    with archive.open(entry) as file:
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        version = np.lib.format.read_magic(file)
        if version not in read:
            raise ValueError(f"{entry.filename} is of version {version} of NumPy's format")
        try:
            shape, _, dtype = read[version](file)
        except (RecursionError, MemoryError):  # the latter from Python's parser: a header is short
            raise ValueError(f"the header of {entry.filename} is nested too deeply") from None
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
            raise ValueError(
                f"{entry.filename} claims the shape {shape} of {dtype} and holds {entry.file_size}"
                " bytes"
            )
