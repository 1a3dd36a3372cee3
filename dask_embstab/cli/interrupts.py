"""Signals that end a command: as one line, with the exit code that a shell expects (128 and the
signal's number).

Each becomes an exception in the main thread, so that every block cleans up after itself: scratch,
half-written outputs, records. A second signal does not disturb that. A signal that was ignored
before (``nohup``, a background job) stays so.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from dask_embstab.files.published import interrupt

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal came; whatever handles Ctrl-C handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Signals that would end the process raise `Interrupted` in the block; other handlers are left
    alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if not came:
            came.append(number)
            interrupt(lambda: _raise(number))

    before = {number: signal.getsignal(number) for number in _ENDING}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    taken = [number for number in _ENDING if before[number] in usual]
    for number in taken:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _raise(number: int) -> None:
    raise Interrupted(number)
