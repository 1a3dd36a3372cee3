"""One BLAS thread per Dask thread: the scheduler has the cores already (default BLAS threads made it 3 to 10 times slower).

In the process that computes, the limit is scoped: the user's own settings come back. A worker process of a cluster gets
it once, for good, if its nanny has not set it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import threadpoolctl

AVX512 = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
"""OpenBLAS's AVX-512 kernels: they work on small products in place."""
_lock = threading.Lock()
_depth = 0
_forever: Any = None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS to one thread in this process for the duration (nested and concurrent uses count as one)."""
    global _depth
    with _lock:
        _depth += 1
    try:
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            yield
    finally:
        with _lock:
            _depth -= 1


def ensure_one_thread() -> None:
    """In a task: nothing where `one_thread` holds, else limit this (worker) process once and for all."""
    global _forever
    if _depth or _forever is not None:
        return
    with _lock:
        if _forever is None:
            _forever = threadpoolctl.threadpool_limits(1, user_api="blas")


def kernel_family() -> str:
    """BLAS library and the kernels it chose: bits are comparable within one family only."""
    loaded = {
        f"{info['internal_api']} {info.get('version')} {info.get('architecture', '')}".strip()
        for info in threadpoolctl.threadpool_info()
        if info["user_api"] == "blas"
    }
    return ", ".join(sorted(loaded)) or "unknown"


@functools.cache
def works_in_place() -> bool:
    """Whether all BLAS libraries of this process chose kernels that work on small products without packing them."""
    chosen = [info.get("architecture") for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]
    return bool(chosen) and all(name in AVX512 for name in chosen)
