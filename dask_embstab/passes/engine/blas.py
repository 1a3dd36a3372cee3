"""One BLAS thread per Dask thread: the scheduler has the cores already (default BLAS threads made
it 3 to 10 times slower).

In the process that computes, the limit is scoped: the user's own settings come back. A worker
process of a cluster gets it once, for good, if its nanny has not set it.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Iterator
from typing import Any

import threadpoolctl

from dask_embstab.core.products import COMPILED, PACKED, Family
from dask_embstab.core.tile_kernel import is_installed, vector_width
from dask_embstab.kernels import processor

AVX512 = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
"""OpenBLAS's AVX-512 kernels: they work on small products in place."""
_IN_WHEELS = re.compile(r"[/\\](numpy|scipy)(\.libs|[/\\]\.dylibs|[/\\]\.libs)[/\\]")
_lock = threading.Lock()
_depth = 0
_limit: Any = None
_forever: Any = None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS to one thread in this process for the duration.

    Nested and concurrent uses count as one: the first one in sets the limit, the last one out
    restores what was before it. Each restoring what it found itself would leave a limit behind
    where uses overlap.
    """
    global _depth, _limit
    with _lock:
        if not _depth:
            with _in_control():
                _limit = threadpoolctl.threadpool_limits(1, user_api="blas")
        _depth += 1

    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if not _depth:
                with _in_control():
                    _limit.restore_original_limits()


def ensure_one_thread() -> None:
    """In a task: nothing where `one_thread` holds, else limit this (worker) process once and for
    all.
    """
    global _forever
    if _depth or _forever is not None:
        return
    with _lock:
        if _forever is None:
            with _in_control():
                _forever = threadpoolctl.threadpool_limits(1, user_api="blas")


@contextlib.contextmanager
def _in_control() -> Iterator[None]:
    """Threadpoolctl (3.8) ignores all threads but the first that set a limit; here the last one out
    restores it.
    """
    release = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if release is None:
        yield
        return
    release(force=True)
    try:
        yield
    finally:
        release(force=True)


def own_blas() -> list[dict[str, Any]]:
    """The BLAS libraries that NumPy and SciPy compute with, as threadpoolctl tells of them: those
    in their wheels, and where wheels hold none (a distribution, conda) all that are loaded. What
    another package brings along (faiss has an OpenBLAS of its own) has no say in our bits.
    """
    loaded = [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]
    own = [info for info in loaded if _IN_WHEELS.search(info["filepath"])]
    return own or loaded


def kernel_family() -> str:
    """BLAS library and the kernels it chose: bits are comparable within one family only."""
    loaded = {
        f"{info['internal_api']} {info.get('version')} {info.get('architecture', '')}".strip()
        for info in own_blas()
    }
    of_blas = ", ".join(sorted(loaded)) + (" (AMD)" if product_family() == "avx512-amd" else "")
    return (of_blas or "unknown") + (", compiled Gramians" if is_installed() else "")


@functools.cache
def product_family(*, is_large: bool = False) -> Family:
    """How products are computed here (`core/products.py`): of large tables by a compiled kernel,
    where there is one; else in strips, where NumPy's and SciPy's BLAS libraries work on small
    products without packing them, by the maker of the processor.
    """
    if is_large and vector_width():
        return COMPILED
    chosen = [info.get("architecture") for info in own_blas()]
    if not chosen or not all(name in AVX512 for name in chosen):
        return PACKED
    return "avx512-amd" if (processor() or "").startswith("AuthenticAMD") else "avx512"
