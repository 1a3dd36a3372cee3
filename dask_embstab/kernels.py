"""Which kernels will NumPy's OpenBLAS choose, and should it be told better? Asked before NumPy is
imported.

On AMD processors with AVX-512 that it does not know, OpenBLAS falls back to its AVX2 kernels
(Haswell, or Zen), which are 1.3 to 2 times slower there than its AVX-512 ones (SkylakeX). It reads
``OPENBLAS_CORETYPE`` once, when it is loaded.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

CORETYPE = "OPENBLAS_CORETYPE"
AVX512_KERNELS = "SkylakeX"
_MARK = "EMBSTAB_SET_CORETYPE"
_CPUINFO = Path("/proc/cpuinfo")
_NEEDED = {"avx512f", "avx512vl", "avx512bw", "avx512dq"}


def better_kernels() -> str | None:
    """What ``OPENBLAS_CORETYPE`` should be on this processor; None where OpenBLAS chooses well by
    itself, or may.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return None
    try:
        first, _, _ = _CPUINFO.read_text().partition("\n\n")
    except OSError:
        return None
    known = {
        key.strip(): value.split()
        for key, _, value in (line.partition(":") for line in first.splitlines())
    }
    has_avx512 = set(known.get("flags", ())) >= _NEEDED
    return AVX512_KERNELS if known.get("vendor_id") == ["AuthenticAMD"] and has_avx512 else None


def choose_kernels() -> str | None:
    """Set ``OPENBLAS_CORETYPE`` for this program where that helps and the user has not; what was
    set, else None.

    ``dask embstab`` finds NumPy loaded by the other commands of ``dask``: that program starts
    itself once more.
    """
    if os.environ.pop(_MARK, None):
        return os.environ.get(CORETYPE)
    if CORETYPE in os.environ or (found := better_kernels()) is None:
        return None
    if "numpy" not in sys.modules:
        os.environ[CORETYPE] = found
        return found
    if Path(sys.argv[0]).name == "dask":
        os.execve(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**os.environ, CORETYPE: found, _MARK: "1"},
        )
    return None
