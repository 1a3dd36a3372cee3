"""How do all that write files find memory pages alike? By a supply that is freed little by little,
as it is used.

A virtual machine gives pages back to its host about two seconds after they are freed, and the first
write to such a page waits for the host: writes ran at a fifth to a third of the speed (Firecracker,
Linux 6.18, free page reporting). Jobs of seconds would be timed on the host's pages and jobs of
less than one on pages just freed.
"""

from __future__ import annotations

import contextlib
import mmap
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dask_embstab.diagnose.rates import Job, Step

_STEP_BYTES = 32 << 20
_AHEAD_BYTES = 256 << 20
"""Free pages beyond those that there were."""
_POLL_SECONDS = 0.01


def timed_job(n_bytes: int, run: Step, leaves: Path | None = None) -> Job:
    """Bytes per second of one call; what it leaves behind is removed off the clock."""

    def timed() -> float:
        with contextlib.nullcontext() if leaves is None else warm_pages(n_bytes):
            began = time.perf_counter()
            run()
            rate = n_bytes / (time.perf_counter() - began)
        if leaves is not None:
            shutil.rmtree(leaves)
        return rate

    return timed


@contextlib.contextmanager
def warm_pages(n_bytes: int) -> Iterator[None]:
    """While files of so many bytes are written there are always pages that were freed just before.

    Memory of that size, and as much ahead as fits `_AHEAD_BYTES`, is held at the start; Linux only,
    nothing elsewhere.
    """
    if not _free_bytes():
        yield
        return
    ahead = min(_AHEAD_BYTES, n_bytes)
    size = -(-(n_bytes + ahead) // _STEP_BYTES) * _STEP_BYTES
    stopped = threading.Event()
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as supply:
        supply.madvise(mmap.MADV_HUGEPAGE)  # freed at once, and not page by page
        for page in range(0, size, mmap.PAGESIZE):
            supply[page] = 1
        keeper = threading.Thread(target=_keep, args=(supply, _free_bytes() + ahead, stopped))
        keeper.start()
        try:
            time.sleep(2 * _POLL_SECONDS)
            yield
        finally:
            stopped.set()
            keeper.join()


def _keep(supply: mmap.mmap, wanted: int, stopped: threading.Event) -> None:
    """Free a piece of the supply whenever less is free than ``wanted``."""
    freed = 0
    while not stopped.wait(_POLL_SECONDS):
        while freed < len(supply) and _free_bytes() < wanted:
            supply.madvise(mmap.MADV_DONTNEED, freed, _STEP_BYTES)
            freed += _STEP_BYTES


def _free_bytes() -> int:
    """What the system has free; 0 where it does not say."""
    with contextlib.suppress(OSError), Path("/proc/meminfo").open() as lines:
        return next(
            (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemFree:")), 0
        )
    return 0
