"""The blocks of a pass, one behind another: what the next one reads first is on its way before its
task begins.

Else the link would wait between two tasks: for the products of the last part, for Dask, and for the
first answer.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from dask_embstab.tables.read.stored.chunk_files import ChunkFiles
from dask_embstab.tables.read.stored.objects import ReadAhead

_LATE = 64
"""Blocks by which another thread may be late to open its own."""


class BlockQueue:
    """Rows ``ranges`` of objects, opened by tasks of this process in about their order, or in that
    which is expected.

    What is on its way for the next one is taken from what the readers before it may have on
    theirs. Another process gets None for it: who opens what is not known there.
    """

    def __init__(self, files: ChunkFiles, ranges: Sequence[tuple[int, int]]) -> None:
        self._files, self._ranges = files, ranges
        self._places = {start: place for place, (start, _) in enumerate(ranges)}
        self._next = 0
        self._begun: dict[int, ReadAhead] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def expect(self, order: Sequence[int]) -> None:
        """The numbers of the blocks, as they will be opened."""
        self._ranges = [self._ranges[number] for number in order]
        self._places = {start: place for place, (start, _) in enumerate(self._ranges)}

    def ahead(self, start: int, stop: int) -> ReadAhead | None:
        """What fetches the objects of a block that is opened."""
        place = self._places[start]
        with self._lock:
            fetched = self._begun.pop(place, None)
            self._next = max(self._next, place + 1)
            for late in [one for one in self._begun if one < place - _LATE]:
                self._begun.pop(late).close()
        fetched = fetched or self._files.ahead(start, stop)
        if fetched is not None:
            fetched.then = self._begin
        return fetched

    def _begin(self, most: int) -> None:
        """Have at most so many bytes of the next block on their way."""
        with self._lock:
            if self._next >= len(self._ranges):
                return
            if self._next not in self._begun:
                ahead = self._files.ahead(*self._ranges[self._next])
                if ahead is None:
                    return
                self._begun[self._next] = ahead
            self._begun[self._next].top_up(most)
