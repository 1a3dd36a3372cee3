"""A disk that fails, a process that dies and a power cut, at the n-th file operation below a
folder.

Every file operation that Python's runtime audits (open, rename, link, remove, mkdir, rmdir,
listing) and every write and fsync by descriptor counts. ``fail``: that one operation raises
OSError. ``kill``: from it on nothing reaches the disk any more, cleaning up included. ``power``:
the same, and every file that was not synced is cut to nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from campaigns import EVERY
from oracle import world

import dask_embstab as es
from dask_embstab.files import locks, swap

MODES = ("fail", "kill", "power")
_EVENTS = {
    "open",
    "os.rename",
    "os.link",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "os.truncate",
}


Place = tuple[str, ...]
Places = Mapping[Place, int]
"""Where in the library an operation comes from, and the number of the first one."""
NEVER = 10**9
"""The operation at which nothing is struck: all are counted."""
FEW = 100


class Killed(BaseException):
    """The process is dead: nobody can catch this and go on."""


class Faults:
    """Counts operations below ``root`` while it is armed, and strikes at number ``at``."""

    def __init__(self) -> None:
        self.root, self.at, self.mode = "", 0, "fail"
        self.count = 0
        self.struck = False
        self.synced: set[int] = set()
        self.before: set[int] = set()
        self.places: dict[Place, int] = {}
        self._armed = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def armed(self, root: Path, at: int, mode: str) -> Iterator[None]:
        """Strike at the ``at``-th operation; after the block, a power cut takes what was not
        synced.
        """
        self.root, self.at, self.mode = str(root), at, mode
        self.count, self.struck, self.synced, self.places = 0, False, set(), {}
        self.before = set() if mode != "power" else set(_inodes(root))
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
            if mode == "power" and self.struck:
                self._cut()

    def step(self) -> None:
        """One operation."""
        if not self._armed:
            return
        with self._lock:
            self.count += 1
            if self.at == NEVER:
                self.places.setdefault(_place(), self.count)
            hit = self.count == self.at
            dead = self.count >= self.at and self.mode != "fail"
            self.struck = self.struck or hit
        if dead:
            raise Killed
        if hit:
            raise OSError(errno.EIO, "a fault that the test made")

    def every_place(
        self, but: Places = MappingProxyType({}), *, in_one_way: bool = False
    ) -> list[int]:
        """All operations that were counted; of more than ``FEW`` the first one of every place in
        the library, ``but`` for these. Processes die at every other place, and the power fails at
        those between; ``in_one_way``: each place fails, dies or loses power, in turn.
        """
        if self.count <= FEW:
            return list(range(1, self.count + 1))
        in_turn = {mode: (first, len(MODES)) for first, mode in enumerate(MODES)}
        each = {"fail": (0, 1), "kill": (0, 2), "power": (1, 2)}
        first, step = (in_turn if in_one_way else each)[self.mode]
        return [n for place, n in self.places.items() if place not in but][first::step]

    def concerns(self, path: Any) -> bool:
        """Whether a path lies below the root; a relative one (by a folder's descriptor) may."""
        if not self._armed or isinstance(path, int):
            return False
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return text.startswith(self.root) or (bool(text) and not text.startswith("/"))

    def _cut(self) -> None:
        """The machine comes back a minute later: a lock whose owner is not told is nobody's
        then.
        """
        durable = self.synced | self.before
        for number, path in _inodes(Path(self.root)).items():
            if number not in durable:
                os.truncate(path, 0)
                os.utime(path, ns=(0, os.stat(path).st_mtime_ns - 60 * 10**9))  # noqa: PTH116


def _inodes(root: Path) -> dict[int, str]:
    """The files below a folder by their inodes."""
    return {
        os.stat(path).st_ino: path  # noqa: PTH116 (of ten thousand files of a year)
        for folder, _, names in os.walk(root)
        for path in (f"{folder}/{name}" for name in names)
        if os.path.isfile(path)  # noqa: PTH113
    }


def _place() -> Place:
    """Where in the library an operation comes from: its two innermost calls."""
    frame, frames = sys._getframe(2), list[str]()
    while frame.f_back is not None and len(frames) < _CALLS:
        frame = frame.f_back
        if f"{os.sep}dask_embstab{os.sep}" in frame.f_code.co_filename:
            frames.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
    return tuple(frames)


_CALLS = 2
_faults = Faults()
_hooked = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _EVENTS and _faults.concerns(arguments[0]):
        _faults.step()


def install(patched: pytest.MonkeyPatch) -> Faults:
    """The one counter of this process: an audit hook cannot be taken away, only left
    without work.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    patched.setattr(os, "write", _counted(os.write))
    patched.setattr(
        os,
        "fsync",
        _counted(os.fsync, lambda descriptor: _faults.synced.add(os.fstat(descriptor).st_ino)),
    )
    patched.setattr(
        locks, "beat_all", lambda: None
    )  # signs of life come by the clock, and would be counted
    patched.setattr(swap, "_renameat2", _counted(swap._renameat2))
    return _faults


def _counted(
    original: Callable[..., Any], then: Callable[..., Any] = lambda *_: None
) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        # Descriptors of pipes and event loops are nobody's files.
        if not isinstance(arguments[0], int) or os.path.realpath(
            f"/proc/self/fd/{arguments[0]}"
        ).startswith(_faults.root):
            _faults.step()
        done = original(*arguments)
        then(*arguments)
        return done

    return call


def strike_every(
    disk: Faults,
    start: Path,
    work: Path,
    call: Callable[[es.Series], Any],
    ended: Callable[[es.Series], Any],
    mode: str,
    *,
    step: int,
    offset: int,
) -> int:
    """Strike ``call`` on a copy of the series ``start`` at one operation in ``step`` (not the first
    ``offset`` ones), or, where ``step`` is 0, at the first one of every place in the code (each in
    one of the ways, and in all with ``EMBSTAB_EVERY=1``); and at the last two, around the publish
    itself. How many faults were tried.

    What is there reads (by ``ended``) as before or as after; the same call then ends in what an
    undisturbed one ends in, also once gc was there, and nothing is damaged.
    """
    before, n_versions = ended(es.Series(start)), len(es.Series(start).log().versions)
    wanted: Any = None
    tried, struck = [NEVER], 0
    while tried:
        at, place = tried.pop(), work / "series"
        shutil.copytree(start, place)
        with (
            contextlib.suppress(Killed, OSError, es.EmbstabError),
            disk.armed(work, at, mode),
        ):
            call(es.Series(place))
        struck += disk.struck
        assert not es.Series(place).verify().damage
        if len(es.Series(place).log().versions) == n_versions:
            assert disk.struck
            assert ended(es.Series(place)) == before
            call(es.Series(place))
        if wanted is None:
            wanted = ended(es.Series(place))
            first, last = 1 + (offset if step > 1 else 0), disk.count
            places = disk.every_place(in_one_way=not EVERY)
            chosen = range(first, last + 1, step) if step else places
            tried = sorted({*chosen, *range(max(1, last - 1), last + 1)})
        assert ended(es.Series(place)) == wanted
        es.Series(place).gc(grace=0)
        assert ended(es.Series(place)) == wanted
        assert not es.Series(place).verify().damage
        shutil.rmtree(work)
    return struck


def recorded(series: es.Series) -> list[dict[str, Any]]:
    """All that is recorded of every version, but for what the clock says: when it was created, and
    how many seconds that took.
    """
    by_the_clock = {"created": None, "seconds": None}
    return [version.to_dict() | by_the_clock for version in series.log().versions]


class FaultyStore:
    """A series' store that fails at its ``at``-th operation: before it is done, or after (the reply
    was lost).
    """

    def __init__(self, inner: Any, at: int, *, after: bool) -> None:
        self._inner, self._at, self._after = inner, at, after
        self.count = 0
        self.places: dict[Place, int] = {}

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._inner, name)
        return (
            original
            if name in ("place", "lock", "blocks")
            else lambda *arguments: self._call(original, arguments)
        )

    def _call(self, original: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self.count += 1
        self.places.setdefault(_place(), self.count)
        if self.count != self._at:
            return original(*arguments)
        if self._after:
            original(*arguments)
        raise OSError(errno.EIO, "a fault that the test made")


def write_days(folder: Path, n_users: int) -> None:
    """Three days of a series, ``day-1.zarr`` and so on, with ids, in two chunks a table."""
    for day in (1, 2, 3):
        ids: dict[str, Any] = {
            "item_ids": np.arange(24) + day,
            "user_ids": [f"u{i}" for i in range(n_users)],
        }
        es.create_run(folder / f"day-{day}.zarr", *world(day, 24, n_users), chunk_rows=16, **ids)
