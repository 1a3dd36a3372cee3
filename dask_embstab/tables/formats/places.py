"""Which files is a source made of, and in which format are they? A file, a folder, a pattern or a
list of these.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.files.npz import npz_kind
from dask_embstab.files.place import local_path
from dask_embstab.files.regular import open_regular
from dask_embstab.tables.identity import StoredFile
from dask_embstab.tables.store_errors import reading

_SUFFIXES = {
    **dict.fromkeys((".parquet", ".pq", ".parq"), "parquet"),
    **dict.fromkeys((".arrow", ".feather", ".ipc", ".arrows"), "arrow"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    ".npy": "npy",
    ".npz": "npz",
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), "hdf5"),
    ".safetensors": "safetensors",
    **dict.fromkeys((".txt", ".vec", ".bin"), "words"),
}
_MAGIC = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"FEA1": "feather of version 1",
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
    b"\x89HDF\r\n\x1a\n": "hdf5",
}
_ZARR = ("zarr.json", ".zgroup", ".zarray")
_PATTERN = "*?["
_GZIP = b"\x1f\x8b"
_IN_FOLDERS = ("parquet", "arrow", "npy", "csv")
"""What a folder of data is made of; other files are given by their names."""


_NAMES = {
    "parquet": "Parquet", "arrow": "Arrow", "csv": "CSV", "npy": "NumPy (npy)",
    "npz": "NumPy (npz)", "hdf5": "HDF5", "safetensors": "safetensors",
    "words": "word2vec or GloVe",
}  # fmt: skip
"""What messages call a format."""


@dataclass(frozen=True, slots=True)
class Place:
    """Files of one ``format``, in the order of their names; ``root`` is the folder that was given,
    if one was.
    """

    format: str
    files: tuple[StoredFile, ...]
    root: str
    name: str


def is_in_files(source: Any) -> bool:
    """Whether a source names files of these formats."""
    return files_at(source) is not None


def files_at(source: Any) -> Place | None:
    """The files that a path, a pattern or a list of these stands for; None where a Zarr store or
    nothing of these formats is meant.

    Raises `InputError` where there are none, or their formats differ.
    """
    if isinstance(source, str | os.PathLike):
        given: Sequence[Any] = [source]
    elif (
        isinstance(source, list | tuple)
        and source
        and all(isinstance(one, str | os.PathLike) for one in source)
    ):
        given = source
    else:
        return None
    paths, root = [], ""
    for one in given:
        expanded, root = _expanded(one)
        if expanded is None:
            return None
        paths += expanded
    name = (
        os.fspath(given[0])
        if len(given) == 1
        else f"{os.fspath(given[0])} and {len(given) - 1} more"
    )
    if not paths:
        raise InputError(f"{name} holds no files of vectors; give a file, a folder or a pattern")
    formats = {path: format_of(path) for path in paths}
    kinds = set(formats.values())
    if kinds == {None}:
        return None
    if len(kinds) > 1:
        raise InputError(
            f"files of one table must be of one format; {name} has"
            f" {', '.join(sorted(str(kind) for kind in kinds))}; give a pattern, such as *.parquet"
        )
    kind = kinds.pop()
    files = tuple(StoredFile.of(path) for path in paths)
    return Place(str(kind), files, root if len(given) == 1 else "", str(name))


def _expanded(one: Any) -> tuple[list[str] | None, str]:
    """Files, and the folder that was given; None for a Zarr store, a URL, and what is not there."""
    local = local_path(one)
    if local is None:
        return None, ""
    if any(sign in str(local) for sign in _PATTERN) and not local.exists():
        paths = sorted(
            path
            for path in glob.glob(str(local), recursive=True)  # noqa: PTH207 (any pattern)
            if Path(path).is_file()
        )
        if not paths:
            raise InputError(f"no file matches {one}; give a pattern of files that are there")
        fixed = str(local)[: min(str(local).index(sign) for sign in _PATTERN if sign in str(local))]
        return paths, fixed.rpartition("/")[0]
    if local.is_dir():
        if any((local / name).is_file() for name in _ZARR):
            return None, ""
        return _in_folder(local), str(local)
    return ([str(local)] if local.is_file() else None), ""


def _in_folder(folder: Path) -> list[str] | None:
    """Files of a folder and of hive's folders below it (``day=2026-01-02``), without what tools
    hide (_SUCCESS, .crc); None where it is no folder of data files.
    """
    paths: list[str] = []
    for below, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if "=" in name)
        paths += [f"{below}/{name}" for name in names if not name.startswith((".", "_"))]
    known = sorted(
        path for path in paths if _SUFFIXES.get(Path(path).suffix.lower()) in _IN_FOLDERS
    )
    return known or None


def format_of(path: str) -> str | None:
    """By its first bytes where they tell, else by its suffix; None where neither does, and for what
    is no table: saved moments and transforms.
    """
    with reading(path), os.fdopen(open_regular(path), "rb") as file:
        head = file.read(16)
    format_ = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if format_ == "npz" and npz_kind(path) in ("moments", "transform"):
        return None
    plain = path.lower().removesuffix(".gz") if head.startswith(_GZIP) else path.lower()
    return format_ or _SUFFIXES.get(Path(plain).suffix)


def what_it_must_be(path: str) -> str:
    """What messages say of a file that could not be read as what it seems to be."""
    with contextlib.suppress(Exception):  # it may be gone by now, or be a folder
        return f"a whole file in the format {_NAMES[str(format_of(path))]}"
    return "whole files of one format"
