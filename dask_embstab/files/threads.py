"""Threads of this process that wait for the answers of stores: requests go out side by side."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

_THREADS = 64


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="embstab-fetch")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has no thread of its parent's


def submit(function: Any, *arguments: Any) -> Future[Any]:
    """Have a thread call it; it may not wait for another one that does."""
    return _threads().submit(function, *arguments)
