"""Who is at work on a name, where there are no locks but objects? Whoever holds the lease of it.

A lease is an object that names its owner and is written anew every few seconds, each time over the
very content that its owner wrote last. Whoever finds one that was not renewed for a minute, by the
store's own clock, or whose process is dead on this very machine, writes it over in the same way: of
an owner that wakes and one that takes over, the store lets one pass.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dask_embstab.errors import RetryError
from dask_embstab.files.atomic import new_token
from dask_embstab.files.lock_owner import (
    RECORD_BYTES,
    Owner,
    machine,
    now,
    this_owner,
)
from dask_embstab.files.locks import BEAT_SECONDS, LEASE_SECONDS
from dask_embstab.series.objects.requests import (
    ConflictError,
    Tag,
    asking,
    delete,
    put_new,
    put_over,
    stored,
)

_SLACK_SECONDS = 2.0
"""Stores date objects to the second."""
_MOST_TRIES = 8
_held: set[str] = set()
"""Tokens of the leases that this process has or tries to take."""


class Lease:
    """A lease that this process holds, until `release`; `take_lease` makes one."""

    def __init__(self, store: Any, key: str, owner: Owner, tag: Tag, renewed: float) -> None:
        self._store, self._key, self._owner, self._tag = store, key, owner, tag
        self._renewed, self._lost = renewed, False
        self._guard, self._ended = threading.Lock(), threading.Event()
        threading.Thread(target=self._keep_beating, name="embstab-lease", daemon=True).start()

    def is_held(self) -> bool:
        """Whether the store lets this owner renew it, as it does only where nobody took it over."""
        with contextlib.suppress(OSError):
            return self.beat()
        return False

    def beat(self) -> bool:
        """Renew it; False where it is another's."""
        with self._guard:
            if self._lost or not self._owner.is_this_process:
                return False
            began, self._owner = time.monotonic(), replace(self._owner, beat=now())
            try:
                with asking(self._key, "written"):
                    data = self._owner.encoded()
                    self._tag = put_over(self._store, self._key, data, self._tag)
            except ConflictError:
                self._lost = not self._is_ours_after_all()
                return not self._lost
            self._renewed = began
            return True

    def _is_ours_after_all(self) -> bool:
        """Whether a renewal whose answer was lost is what stands there."""
        with contextlib.suppress(OSError):
            data, tag, _ = stored(self._store, self._key, RECORD_BYTES)
            owner = Owner.decoded(data)
            if owner is not None and owner.token == self._owner.token:
                self._tag = tag
                return True
        return False

    def release(self) -> None:
        """Let go of it. It is removed only while nobody can have taken it over: a lease that is
        left is nobody's in a minute.
        """
        self._ended.set()
        with contextlib.suppress(OSError):
            is_fresh = time.monotonic() - self._renewed < LEASE_SECONDS / 2
            if not self._lost and self._owner.is_this_process and (is_fresh or self.beat()):
                with asking(self._key, "written"):
                    delete(self._store, [self._key])
        _held.discard(self._owner.token)

    def _keep_beating(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                if not self.beat():
                    return


def take_lease(store: Any, key: str, name: str, store_time: Callable[[], float]) -> Lease:
    """The lease ``key`` of the work on ``name``; `RetryError` where its owner is alive.

    ``store_time`` tells the time by the clock that dates objects.
    """
    owner = this_owner(new_token())
    _held.add(owner.token)  # before another thread can see it in the store
    try:
        return _taken(store, key, name, owner, store_time)
    except BaseException:
        _held.discard(owner.token)
        raise


def _taken(store: Any, key: str, name: str, owner: Owner, store_time: Callable[[], float]) -> Lease:
    with asking(key, "written"):
        for _ in range(_MOST_TRIES):
            began = time.monotonic()
            with contextlib.suppress(ConflictError):
                return Lease(store, key, owner, put_new(store, key, owner.encoded()), began)
            try:
                data, tag, changed = stored(store, key, RECORD_BYTES)
            except FileNotFoundError:  # its owner has just removed it
                continue
            other = Owner.decoded(data)
            whose = other or "one that has not written its name"
            if _is_alive(other, lambda: store_time() - changed.timestamp()):  # noqa: B023 (called at once)
                raise RetryError(
                    f"another process is at work on {name} ({whose}); call again when it is done"
                )
            began = time.monotonic()
            with contextlib.suppress(ConflictError):  # another one was quicker to take it over
                return Lease(store, key, owner, put_over(store, key, owner.encoded(), tag), began)
    raise RetryError(f"other processes are at work on {name}; call again when they are done")


def _is_alive(owner: Owner | None, age: Callable[[], float]) -> bool:
    """Whether the owner of a lease may be at work still."""
    if owner is not None and owner.machine == machine():
        if owner.is_this_process:
            return owner.token in _held
        return owner.is_running
    return age() < LEASE_SECONDS + _SLACK_SECONDS
