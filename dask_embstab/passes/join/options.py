"""Join options: memory budget, spill folder, duplicate policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import dask

from dask_embstab.errors import InputError
from dask_embstab.options import FIT
from dask_embstab.passes.engine.cluster import threads_of_a_process
from dask_embstab.passes.engine.memory import bytes_of, memory_limit
from dask_embstab.tables.ids.scratch import Scratch, scratch_space

KeepDuplicates = Literal["error", "first"]
_LEAST = 1 << 20


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """``memory`` bytes for a join and for what moves vectors, over all threads of a process (half
    of a limit at most).

    Files go to ``scratch``; of ``duplicates`` the first row counts where they are no error.
    """

    memory: int
    duplicates: KeepDuplicates = "error"
    scratch: Scratch = field(default_factory=lambda: Scratch(None))

    @property
    def per_thread(self) -> int:
        """Bytes that one task may hold."""
        return self.memory // threads_of_a_process()


@contextmanager
def join_options(
    *, join_memory: Any = None, scratch: Any = None, duplicates: KeepDuplicates = "error"
) -> Iterator[JoinOptions]:
    """Options checked, defaults from Dask's configuration, and the scratch folder for the length of
    the block.
    """
    FIT["duplicates"].require(duplicates)
    asked = (
        join_memory if join_memory is not None else dask.config.get("embstab.join-memory", "1GiB")
    )
    n_bytes = bytes_of(asked, "join_memory")
    if n_bytes < _LEAST:
        raise InputError(f"join_memory must be at least {_LEAST} bytes; it is {n_bytes}")

    limit = memory_limit()
    n_bytes = n_bytes if limit is None else max(_LEAST, min(n_bytes, limit // 2))
    parent = scratch if scratch is not None else dask.config.get("embstab.scratch", None)
    parent = parent or dask.config.get("temporary-directory", None)
    parent = parent if parent is None or isinstance(parent, str) else str(parent)
    with scratch_space(parent) as space:
        yield JoinOptions(n_bytes, duplicates, space)
