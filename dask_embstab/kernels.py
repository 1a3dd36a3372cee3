"""Which kernels does NumPy's OpenBLAS run, and are there faster ones? Asked before NumPy is
imported.

On processors with AVX-512 that it does not know, OpenBLAS falls back to its AVX2 kernels, which may
be half as fast there as its AVX-512 ones (SkylakeX). It reads ``OPENBLAS_CORETYPE`` once, when it
is loaded, so a program cannot ask it first and set the variable then. ``embstab doctor`` asks: it
sees what the library runs by itself, measures the products of a fit and of an apply with both
kernels (`diagnose/kernel_gain.py`), and remembers the answer for this environment. Commands set the
variable where that answer holds still and says that every product gains. Kernels are never lowered.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

CORETYPE = "OPENBLAS_CORETYPE"
AVX512_KERNELS = "SkylakeX"
AVX2 = frozenset({"Haswell", "Zen"})
"""OpenBLAS's kernels for processors without AVX-512."""
LEAST_GAIN = 1.05
_MARK = "EMBSTAB_SET_CORETYPE"
_CPUINFO = Path("/proc/cpuinfo")
_NEEDED = {"avx512f", "avx512vl", "avx512bw", "avx512dq"}


def processor() -> str | None:
    """The model of a processor with AVX-512; None of any other, or where that is not known."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return None
    try:
        first, _, _ = _CPUINFO.read_text().partition("\n\n")
    except OSError:
        return None
    known = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in first.splitlines())
    }
    if not set(known.get("flags", "").split()) >= _NEEDED:
        return None
    return f"{known.get('vendor_id')} {known.get('cpu family')} {known.get('model')}"


def better_kernels() -> str | None:
    """What ``OPENBLAS_CORETYPE`` should be in this environment, by what was measured; None where
    OpenBLAS chooses well by itself, or nothing was measured since the processor or a library
    changed.
    """
    known = remembered().get(sys.prefix)
    try:
        holds = (
            known is not None
            and known["default"] in AVX2
            and known["gain"] >= LEAST_GAIN
            and known["processor"] == processor() is not None
            and all(stamp(path) == was for path, was in known["libraries"].items())
        )
    except (AttributeError, KeyError, TypeError, ValueError):  # not written by this program
        return None
    return AVX512_KERNELS if holds else None


def choose_kernels() -> str | None:
    """Set ``OPENBLAS_CORETYPE`` for this program where that helps and the user has not; what was
    set, else None.

    ``dask embstab`` finds NumPy loaded by the other commands of ``dask``: that program starts
    itself once more.
    """
    if os.environ.pop(_MARK, None):
        return os.environ.get(CORETYPE)
    if CORETYPE in os.environ or (better := better_kernels()) is None:
        return None
    if "numpy" not in sys.modules:
        os.environ[CORETYPE] = better
        return better
    if Path(sys.argv[0]).name == "dask":
        os.execve(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**os.environ, CORETYPE: better, _MARK: "1"},
        )
    return None


def record() -> Path:
    """The file that holds what was measured, by environment (`sys.prefix`)."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "embstab" / "kernels.json"


def remembered() -> dict[str, Any]:
    """What that file holds; nothing where it cannot be read (a pipe would be for ever)."""
    try:
        known = json.loads(record().read_text()) if record().is_file() else {}
    except (OSError, ValueError, RuntimeError):  # no home, no file, or no JSON
        return {}
    return known if isinstance(known, dict) else {}


def stamp(path: str) -> list[int] | None:
    """Size and time of a library's file, by which it is known again."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
