"""The head of a series in a process that lives long: one version at a time, never a mixture of two.

Whoever asks gets a `Snapshot`, which never changes; the next one may be of the next version. What a
snapshot reads is pinned against gc.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Self

from dask_embstab.display import Displayed
from dask_embstab.errors import EmbstabError, InputError, verb
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import options_of, require_each
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.series.log.published import transform_of
from dask_embstab.series.reader import SeriesReader
from dask_embstab.tables.run import Run
from dask_embstab.tables.space import Space
from dask_embstab.tables.transform import Transform

_KEPT = 4
"""Snapshots of other versions than the head that stay open: clients pin few."""
_RENEWED = 3600.0
"""Seconds after which a pin is made anew: gc takes old ones for those of dead readers."""


@dataclass(frozen=True, slots=True, repr=False)
class Snapshot(Displayed):
    """One version of a series, as it was opened: its number, run, transform and space.

    Examples
    --------
    >>> with es.Live(series) as live:
    ...     live.now().version
    2
    """

    version: int
    run: Run
    transform: Transform
    space: Space

    def _facts(self) -> dict[str, object]:
        return {"version": self.version, "run": self.run.name, "space": self.space.origin}


class Live(Displayed):
    """The current version of a series for a process that serves it; any number of threads may ask.

    Parameters
    ----------
    series
        A `Series`, its folder or its URL.
    every
        Seconds between two looks at the log; a new head is opened by the first who asks after
        that, while the others still get the version before it.
    storage_options
        What reaches a URL, as in `fit`.

    Notes
    -----
    Where the new head cannot be opened the last good one stays, and ``error`` says why. Use it as a
    context manager or call `close`: both remove the pins that keep gc away.

    Examples
    --------
    >>> with es.Live(series) as live:
    ...     row = live.now().transform.transform_users(np.ones(4))
    >>> row.shape
    (4,)
    """

    @verb()
    def __init__(
        self,
        series: SeriesReader | str | os.PathLike[str],
        *,
        every: float = 1.0,
        storage_options: StorageOptions | None = None,
    ) -> None:
        options_of("Live")["every"].require(every)
        (series,) = bound(storage_options, series)
        self.series = series if isinstance(series, SeriesReader) else SeriesReader(series)
        self.every = float(every)
        self.error: str | None = None
        self.reloads = 0
        self._lock = threading.Lock()
        self._reloading = threading.Lock()
        self._pins: dict[int, tuple[contextlib.ExitStack, float]] = {}
        self._others: OrderedDict[int, Snapshot] = OrderedDict()
        self._head: Snapshot | None = None
        self._looked = -float("inf")
        self._moves = 0
        self._closed = False
        self.now()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _facts(self) -> dict[str, object]:
        head = self._head
        return {"series": self.series.store.name(""), "version": head and head.version}

    def now(self) -> Snapshot:
        """The head, at most ``every`` seconds old.

        Examples
        --------
        >>> with es.Live(series) as live:
        ...     live.now().run.name
        'tuesday'
        """
        if self._closed:
            raise InputError("it was closed, and holds nothing back from gc any more; make another")
        if time.monotonic() - self._looked >= self.every and self._reloading.acquire(
            blocking=self._head is None
        ):
            try:
                self._look()
            finally:
                self._reloading.release()
        head = self._head
        assert head is not None
        return head

    @verb()
    def at(self, version: int | None) -> Snapshot:
        """One version; None for the head. `InputError` where it holds no run.

        Examples
        --------
        >>> with es.Live(series) as live:
        ...     live.at(1).run.name
        'monday'
        """
        if version is not None:
            require_each("export", {"version": version})
        head = self.now()
        if version is None or version == head.version:
            return head
        with self._lock:
            known = self._others.get(version)
            if known is not None:
                self._others.move_to_end(version)
                return known
        snapshot = self._opened(version)
        with self._lock:
            self._others[version] = snapshot
            self._drop()
        return snapshot

    def close(self) -> None:
        """Let gc have what this held.

        Examples
        --------
        >>> es.Live(series).close()
        """
        with self._lock:
            self._closed = True
            for stack, _ in self._pins.values():
                stack.close()
            self._pins.clear()
            self._others.clear()

    def _look(self) -> None:
        """Open the head if it is another; what fails leaves the last good one."""
        try:
            log = self.series.log()
            version = log.head
            if version is None:
                raise InputError(
                    f"{self.series.store.name('')} holds no live run yet; add one first"
                )
            head = self._head
            if head is None or head.version != version.version:
                opened, moves = self._opened(version.version), len(log.moves)
                with self._lock:
                    if head is not None:
                        self._others[head.version] = head
                    if moves != self._moves:  # a rebase or a forget changed what was opened before
                        self._drop(kept=0)
                    self._head, self._moves = opened, moves
                    self._drop()
                self.reloads += head is not None
            self._renew()
            self.error = None
        except (EmbstabError, OSError) as error:
            if self._head is None:
                raise
            self.error = str(error)
        finally:
            self._looked = time.monotonic()

    def _opened(self, version: int) -> Snapshot:
        """Pinned first, so that nothing is removed while it is opened."""
        with contextlib.ExitStack() as stack:
            run = stack.enter_context(self.series.pin(version))
            space = replace(space_of_run(run), version=version)
            snapshot = Snapshot(version, run, transform_of(run, self.series.show(version)), space)
            with self._lock:
                if version in self._pins:  # another thread was quicker
                    return snapshot
                self._pins[version] = stack.pop_all(), time.monotonic()
        return snapshot

    def _drop(self, kept: int = _KEPT) -> None:
        """Forget the versions that nobody asked for lately."""
        while len(self._others) > kept:
            version, _ = self._others.popitem(last=False)
            if version in self._pins:
                self._pins.pop(version)[0].close()

    def _renew(self) -> None:
        now = time.monotonic()
        with self._lock:
            old = [v for v, (_, since) in self._pins.items() if now - since > _RENEWED]
        for version in old:
            stack = contextlib.ExitStack()
            stack.enter_context(self.series.pin(version))
            with self._lock:
                before, _ = self._pins[version]
                self._pins[version] = stack, now
            before.close()
