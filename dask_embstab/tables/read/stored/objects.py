"""Objects of a store, read by ranges that threads of this process fetch before they are needed.

A reader goes through the objects of its block in order. `ReadAhead` has a bounded number of bytes
on their way for it: parts of large objects side by side, small objects one behind another, of a
shard its index first (which tells how long it is). So a reader waits for the network's rate and not
for its latency.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from dask_embstab.errors import DamageError, EmbstabError, InputChangedError
from dask_embstab.files.objects import submit
from dask_embstab.files.remote import again
from dask_embstab.tables.store_errors import read_error
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES
from dask_embstab.tables.stores.url_store import no_ranges

PART_BYTES = 8 << 20
AHEAD_BYTES = 32 << 20
"""On their way for one reader; what it works on comes to it."""
_MOST_PARTS = 16
_COALESCED_BYTES = 1 << 16
"""Fetched between two ranges, rather than asking twice."""
_BEYOND = ("416", "Range Not Satisfiable", "Invalid range")
"""In what a store says where a range begins behind the end of an object."""

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of an object from ``start`` on, of ``size`` in all, and its entity tag."""

    start: int
    data: memoryview
    size: int
    version: str | None


def fetch(store: Any, path: str, start: int, stop: int | None) -> Part:
    """A range of an object (``stop`` None: all of it; ``start`` negative: its last bytes).

    Raises FileNotFoundError where there is none.
    """
    import obstore
    from obstore.exceptions import GenericError, NotSupportedError

    wanted: Any = {"suffix": -start} if start < 0 else (start, stop)
    options: Any = {} if stop is None and start >= 0 else {"range": wanted}

    def ask() -> Part:
        try:
            answer = obstore.get(store, path, options=options)
            size, version = answer.meta["size"], answer.meta["e_tag"]
            first = answer.range[0]
            return Part(first, memoryview(answer.bytes()), size, version)
        except NotSupportedError:  # Azure knows no last bytes, and some web servers no ranges
            size = obstore.head(store, path)["size"]
            if start < 0:
                return fetch(store, path, max(0, size + start), size)
            if (start, stop) != (0, size):
                raise no_ranges(path) from None
            return fetch(store, path, 0, None)
        except GenericError as error:
            if any(word in str(error) for word in _BEYOND):
                meta = obstore.head(store, path)
                if meta["size"] <= max(0, start):
                    return Part(start, memoryview(b""), meta["size"], meta["e_tag"])
            raise

    return again(ask, after=_is_cut)


def fetch_ranges(
    store: Any, path: str, starts: Sequence[int], n_bytes: int, *, coalesce: int = 1 << 20
) -> list[Any]:
    """So many bytes from each of these places of an object on; what lies between two is fetched too
    where it is less than ``coalesce``.
    """
    import obstore

    lengths = [n_bytes] * len(starts)
    return again(
        lambda: list(
            obstore.get_ranges(store, path, starts=starts, lengths=lengths, coalesce=coalesce)
        ),
        after=_is_cut,
    )


def _is_cut(error: BaseException) -> bool:
    """Whether the connection was, however the client calls it."""
    from obstore.exceptions import GenericError

    return isinstance(error, GenericError)


def part_bytes(size: int) -> int:
    """Bytes of a part of an object of this size: none is much shorter than the others."""
    return -(-size // max(1, round(size / PART_BYTES)))


class ReadAhead:
    """The objects at ``paths``, in the order in which they will be read.

    ``size``: of each, where it is known. Else the answer to a request for the range of an ``index``
    tells it, or it is fetched as a whole.
    """

    def __init__(
        self,
        store: Any,
        paths: Sequence[str],
        *,
        size: int | None,
        index: tuple[int, int | None] | None,
        guess: int,
    ) -> None:
        self._store, self._paths = store, paths
        self._size, self._index, self._guess = size, index, guess
        self._next = 0
        self._heads: dict[str, Future[Part]] = {}
        self._planned: deque[tuple[str, int, int | None]] = deque()
        self._parts: dict[tuple[str, int], tuple[Future[Part], int]] = {}
        self._bytes = 0
        self.then: Callable[[int], None] | None = None
        """Called when all was asked for, with the bytes that may be on their way besides."""

    def head(self, path: str) -> Part:
        """The first answer about an object: its index, or its first part."""
        if self._index:
            self._ask(path)
            part = self._heads[path].result()
            self.top_up()
            return part
        first = self.take(path, 0)
        return fetch(self._store, path, 0, self._size) if first is None else first

    def take(self, path: str, start: int) -> Part | None:
        """A part, once it is there; None where it was not asked for. Parts before it are
        forgotten.
        """
        self.top_up()
        if (path, start) not in self._parts:
            return None
        for key in list(self._parts):
            future, n_bytes = self._parts.pop(key)
            self._bytes -= n_bytes
            if key == (path, start):
                self.top_up()
                return future.result()
            future.cancel()
        return None

    def forget(self, path: str) -> None:
        """The object was read."""
        self._heads.pop(path, None)

    def close(self) -> None:
        """Nothing more is read."""
        self._next, self._heads = len(self._paths), {}
        self._planned.clear()
        for future, _ in self._parts.values():
            future.cancel()
        self._parts.clear()

    def top_up(self, most: int | None = None) -> None:
        """Ask for parts until so many bytes are on their way (None: as many as may be)."""
        most = AHEAD_BYTES if most is None else most
        while self._bytes < most and len(self._parts) < _MOST_PARTS:
            if not self._planned and not self._plan():
                if self.then is not None and self._next >= len(self._paths):
                    self.then(most - self._bytes)
                return
            if not self._planned:
                continue
            path, start, stop = self._planned.popleft()
            n_bytes = self._guess if stop is None else stop - start
            future = submit(fetch, self._store, path, start, stop)
            self._parts[path, start] = future, n_bytes
            self._bytes += n_bytes

    def _plan(self) -> bool:
        """Cut the next object into parts; False where it is not known yet how long it is."""
        if self._next >= len(self._paths):
            return False
        path, size = self._paths[self._next], self._size
        if self._index:
            for ahead in self._paths[self._next : self._next + 2]:
                self._ask(ahead)
            head = self._heads[path]
            if not head.done():
                return False
            size = 0 if head.exception() else head.result().size
        self._next += 1
        if size is None:
            self._planned.append((path, 0, None))
        elif size:
            step = part_bytes(size)
            self._planned += [(path, at, min(at + step, size)) for at in range(0, size, step)]
        return True

    def _ask(self, path: str) -> None:
        if path not in self._heads:
            assert self._index is not None
            self._heads[path] = submit(fetch, self._store, path, *self._index)


class OpenObject:
    """One object, open for reading: its parts as they come ``ahead``, or each when it is needed."""

    def __init__(
        self,
        store: Any,
        path: str,
        name: str,
        ahead: ReadAhead | None = None,
        *,
        index: tuple[int, int | None] | None = None,
    ) -> None:
        self.path, self.name = path, name
        self._store, self._ahead, self._index = store, ahead, index
        self._head = self._reading(self._first)
        self._held = self._head
        self.size, self.version = self._head.size, (name, self._head.size, self._head.version)
        self._step = part_bytes(self.size) if self.size else 1
        if len(self._head.data) == self.size:
            self._step = max(1, self.size)

    def _first(self) -> Part:
        if self._ahead is not None:
            return self._ahead.head(self.path)
        if self._index is not None:
            return fetch(self._store, self.path, *self._index)
        import obstore

        meta = obstore.head(self._store, self.path)
        return Part(0, memoryview(b""), meta["size"], meta["e_tag"])

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` from ``offset`` on."""
        done = 0
        while done < len(target):
            part = self._part(offset + done)
            data = part.data[offset + done - part.start :][: len(target) - done]
            target[done : done + len(data)] = data
            done += len(data)

    def scatter(self, targets: Sequence[memoryview], offset: int) -> None:
        """Fill one target after another from ``offset`` on."""
        for target in targets:
            self.read_into(target, offset)
            offset += len(target)

    def checksums(self, offsets: Sequence[int]) -> list[int]:
        """Those that are stored there; what lies between them is not fetched, unless it is
        little.
        """
        ranges = self._reading(
            lambda: fetch_ranges(
                self._store, self.path, offsets, CHECKSUM_BYTES, coalesce=_COALESCED_BYTES
            )
        )
        return [int.from_bytes(one, "little") for one in ranges]

    def stored_checksum(self) -> int:
        """The last four bytes, asked for alone: the parts before them are not read twice."""
        start, first = self.size - CHECKSUM_BYTES, self._head
        if start < 0:
            raise self._truncated()
        if first.start + len(first.data) == self.size:
            data = first.data[start - first.start :]
        else:
            data = self._reading(lambda: fetch(self._store, self.path, start, self.size)).data
        return int.from_bytes(data, "little")

    def _part(self, offset: int) -> Part:
        """The part that holds a byte."""
        for part in (self._held, self._head):
            if part.start <= offset < part.start + len(part.data):
                return part
        if offset >= self.size:
            raise self._truncated()

        start = offset - offset % self._step
        stop = min(start + self._step, self.size)
        self._held = self._head  # let go of the last part before the next one is there
        fetched = self._reading(
            lambda: (
                (None if self._ahead is None else self._ahead.take(self.path, start))
                or fetch(self._store, self.path, start, stop)
            )
        )
        if (fetched.size, fetched.version) != (self.size, self.version[2]):
            raise InputChangedError(
                f"{self.name} was written anew while it was read; read it again"
            )
        if len(fetched.data) != stop - start or fetched.start != start:
            raise DamageError(
                f"{self.name} must be read as it is asked for; of {stop - start} bytes"
                f" {len(fetched.data)} came; read it again"
            )
        self._held = fetched
        return fetched

    def _truncated(self) -> DamageError:
        return DamageError(f"{self.name} is truncated; restore it from its source")

    def _reading(self, read: Callable[[], V]) -> V:
        try:
            value = read()
        except (EmbstabError, FileNotFoundError):
            raise
        except Exception as error:
            raise read_error(error, self.name) from error
        return value

    def close(self, *, drop: bool = False) -> None:
        """No more is read."""
        del drop
        if self._ahead is not None:
            self._ahead.forget(self.path)
        self._held = self._head = Part(0, memoryview(b""), self.size, None)
