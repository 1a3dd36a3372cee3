"""Other processes and other hosts at one place: workers that do one thing when they are told to.

``python hosts.py MACHINE PLACE VERB ...`` says ``ready`` when it holds what it was asked for, waits for a line on stdin,
then lets go. MACHINE is what the process takes itself to run on; empty for the machine it is on.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def elsewhere(machine: str, *command: Any, within: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Such a process, once it is ready; killed at the end where it still runs."""
    call = [*within, sys.executable, str(Path(__file__)), machine, *map(str, command)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            yield running
        finally:
            running.kill()


def tell(running: subprocess.Popen[bytes]) -> bytes:
    """Let it go on, and what it says then."""
    out, _ = running.communicate(b"go on\n", timeout=120)
    return out


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _wait() -> None:
    _say("ready")
    sys.stdin.readline()


def _lock(path: str) -> None:
    from dask_embstab.files.locks import try_lock

    lock = try_lock(path)
    assert lock is not None
    _wait()
    _say(lock.is_held())
    lock.release(path)


def _try(path: str) -> None:
    from dask_embstab.files.locks import try_lock

    _wait()
    _say("free" if try_lock(path) else "taken")


def _scratch(folder: str, name: str) -> None:
    from dask_embstab.files.owned import owned_folder

    with owned_folder(Path(folder), name) as made:
        (made / "big").write_bytes(b"x" * 1000)
        _wait()


_VERBS = {"lock": _lock, "try": _try, "scratch": _scratch}

if __name__ == "__main__":
    _machine, _verb, *_arguments = sys.argv[1:]
    if _machine:
        from dask_embstab.files import locks

        locks.machine = lambda: _machine
    _VERBS[_verb](*_arguments)
