"""Other processes and other hosts at one place: workers that do one thing when they are told to.

``python hosts.py MACHINE PLACE VERB ...`` says ``ready`` when it holds what it was asked for, waits
for a line on stdin, then lets go. MACHINE is what the process takes itself to run on; empty for the
machine it is on.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OTHER_HOST = (
    "unshare",
    "--mount",
    "--net",
    "--uts",
    "--",
    "sh",
    "-c",
    'hostname other && exec "$@"',
    "-",
)
"""In front of a command: name spaces of its own for mounts, network and host name."""


@contextlib.contextmanager
def elsewhere(
    machine: str, *command: Any, within: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
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


def _between(place: str) -> None:
    """Overwrite a run with one of 61 rows on a system without renameat2, and stop between the two
    renames.
    """
    import numpy as np

    import dask_embstab as es
    from dask_embstab.files import swap

    original = swap.put

    def put(new: Path, at: Path) -> None:
        _wait()
        original(new, at)

    swap._renameat2, swap.put = lambda *_: False, put
    es.create_run(place, np.ones((61, 4)), overwrite=True)


def _open(place: str) -> None:
    """Say how many items there are, having begun to look before the place is filled."""
    import dask_embstab as es
    from dask_embstab.files import swap

    original = swap.leftovers

    def leftovers(*where: Any) -> Any:
        swap.leftovers = original
        result = original(*where)
        _wait()
        return result

    swap.leftovers = leftovers
    _say(es.open_run(place).items.n_rows)


def _publish(place: str, run: str) -> None:
    """Publish a run, and stop right before its version is created."""
    import dask

    import dask_embstab as es
    from dask_embstab.series.publish import publish as publishing

    original = publishing.create_version

    def publish(*arguments: Any) -> None:
        _wait()
        original(*arguments)

    publishing.create_version = publish
    with dask.config.set(scheduler="synchronous"):
        try:
            es.Series(place).add(run)
        except es.EmbstabError as error:
            _say(f"{type(error).__name__}: {error}")
        else:
            _say("published")


def _write(run: str, out: str) -> None:
    """Apply a fit of a run over what stands at a place, and stop when one chunk is written."""
    import dask

    import dask_embstab as es
    from dask_embstab.tables.write.sink import Sink

    original, calls = Sink.writer, []

    def writer(self: Sink, start: int, stop: int) -> Any:
        calls.append(start)
        if len(calls) == 2:
            _wait()
        return original(self, start, stop)

    Sink.writer = writer  # type: ignore[method-assign]
    with dask.config.set({"embstab.task-bytes": 1}, scheduler="synchronous"):
        es.apply(es.fit(run), run, out, overwrite=True)
    _say("published")


_VERBS = {
    "lock": _lock,
    "try": _try,
    "scratch": _scratch,
    "between": _between,
    "open": _open,
    "publish": _publish,
    "write": _write,
}

if __name__ == "__main__":
    _machine, _verb, *_arguments = sys.argv[1:]
    if _machine:
        from dask_embstab.files import lock_owner, locks

        lock_owner.machine = locks.machine = lambda: _machine
    _VERBS[_verb](*_arguments)
