"""Rows straight from a panel into the objects of a store.

An object is sent while it is made: parts of it go out side by side, and it is there when the last
one is. What fails, or is given up, leaves no object.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from typing import Any

import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.errors import EmbstabError
from dask_embstab.files.objects import submit, submit_alone
from dask_embstab.tables.read.stored.chunk_files import ChunkFiles
from dask_embstab.tables.read.stored.objects import PART_BYTES, part_bytes
from dask_embstab.tables.store_errors import write_error
from dask_embstab.tables.write.chunk_writer import DirectWriter

_WAITING, _SENT = 2, 4
"""Parts that wait to be sent, and that are sent side by side."""
_SECONDS = 0.1
"""Between two looks at whether the other side is still there."""
SENDING_BYTES = (2 * (_WAITING + _SENT) + 2) * PART_BYTES
"""Most bytes that a writer holds: the last parts of an object are sent while the next one is
made.
"""


class _GivenUpError(Exception):
    """Ends an upload that nobody goes on with."""


class Upload:
    """One object on its way: parts are handed to a thread of its own, which sends them."""

    def __init__(self, files: ChunkFiles, chunk: int) -> None:
        self._parts: queue.Queue[memoryview | None] = queue.Queue(_WAITING)
        self._given_up, self._files = False, files
        self._name = files.name(chunk)
        self._sent: Future[None] = submit_alone(self._send, files, chunk)

    def add(self, part: memoryview | None) -> None:
        """Hand over the next part (None: that was all)."""
        while not self._sent.done():
            try:
                self._parts.put(part, timeout=_SECONDS)
            except queue.Full:
                continue
            return
        self._result()

    def finish(self) -> Future[None]:
        """That was all: done when the object is there."""
        self.add(None)
        return self._sent

    def give_up(self) -> Future[None]:
        """The object is not to be: done when none is sent any more."""
        self._given_up = True
        return self._sent

    def _result(self) -> None:
        try:
            self._sent.result()
        except EmbstabError:
            raise
        except Exception as error:
            raise write_error(error, self._name) from error

    def _send(self, files: ChunkFiles, chunk: int) -> None:
        size = part_bytes(files.written_bytes)
        files.put(chunk, self._taken(), chunk_size=size, max_concurrency=_SENT)

    def _taken(self) -> Iterator[memoryview]:
        while True:
            try:
                part = self._parts.get(timeout=_SECONDS)
            except queue.Empty:
                if self._given_up:
                    raise _GivenUpError from None
                self._files.require_open()
                continue
            self._files.require_open()
            if part is None:
                return
            yield part


class ObjectWriter(DirectWriter):
    """Appends panels to objects, each sent while it is made; small ones are put as a whole, several
    side by side.
    """

    _upload: Upload | None = None

    def __init__(self, files: ChunkFiles, start: int, stop: int, *, sync: bool = False) -> None:
        super().__init__(files, start, stop, sync=sync)
        self._puts: deque[Future[None]] = deque()

    def put(self, rows: Rows) -> None:
        """Append rows; where that fails, nothing is on its way any more."""
        try:
            super().put(rows)
        except Exception:
            self._settle()
            raise

    def _begin(self, number: int) -> None:
        self._left = self._files.written_bytes
        if self._left > PART_BYTES:
            self._upload = Upload(self._files, number)
        self._next_part()

    def _next_part(self) -> None:
        # A new buffer each time: the one before is on its way, or is what a store in memory keeps.
        size = part_bytes(self._files.written_bytes)
        fresh: Any = np.empty(min(size, self._left), np.uint8)
        self._part, self._filled = memoryview(fresh), 0
        self._left -= len(self._part)

    def _store(self, data: memoryview) -> None:
        while len(data):
            if self._filled == len(self._part):
                assert self._upload is not None
                self._upload.add(self._part)
                self._next_part()
            taken = data[: len(self._part) - self._filled]
            self._part[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            data = data[len(taken) :]

    def _publish(self, number: int) -> None:
        assert not self._left
        assert self._filled == len(self._part)
        self._files.require_ours()
        if self._upload is None:
            self._puts.append(submit(self._files.put, number, self._part))
            self._wait(most=_WAITING + _SENT)
            return
        self._upload.add(self._part)
        self._wait(most=0)
        self._puts.append(self._upload.finish())
        self._upload = None

    def finish(self) -> None:
        """Raise unless every row was put, and every object is there."""
        try:
            super().finish()
            self._wait(most=0)
        except Exception:
            self._settle()
            raise

    def _wait(self, *, most: int) -> None:
        while len(self._puts) > most:
            self._puts.popleft().result()

    def _settle(self) -> None:
        """Wait for what is being sent: it may not come over what is written to the same place
        next.
        """
        if self._upload is not None:
            self._puts.append(self._upload.give_up())
        for one in self._puts:
            one.cancel()
        wait(self._puts)

    def __del__(self) -> None:
        """Leave no half-sent object behind an error."""
        if self._upload is not None:
            self._upload.give_up()


def chunk_writer(files: ChunkFiles, start: int, stop: int, *, sync: bool = False) -> DirectWriter:
    """What writes these rows where the chunks lie."""
    kind = DirectWriter if files.store is None else ObjectWriter
    return kind(files, start, stop, sync=sync)
