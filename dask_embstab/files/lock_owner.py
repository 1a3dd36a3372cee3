"""Whose is a lock? What its file says of its owner, and whether that process still runs."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from dask_embstab.files.stored_json import parsed_json

RECORD_BYTES = 512
"""Length of every record."""


@functools.cache
def machine() -> str:
    """Where this process runs: kernel locks and process numbers mean the same to all that give one
    answer.
    """
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):
        known += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8],
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return " ".join(known)


@dataclass(frozen=True, slots=True)
class Owner:
    """What a lock's file says."""

    token: str
    machine: str
    process: int
    started: str
    since: str
    beat: str

    @property
    def is_this_process(self) -> bool:
        """Whether it is the one that asks; a child that was forked is another."""
        own = os.getpid()
        return (self.machine, self.process, self.started) == (machine(), own, started(own))

    @property
    def is_running(self) -> bool:
        """Whether its process runs still, where it is one of this machine."""
        return started(self.process) == self.started != ""

    def __str__(self) -> str:
        where = self.machine.split()[0]
        return f"process {self.process} on {where}, since {self.since}, last seen {self.beat}"

    def encoded(self) -> bytes:
        """A record of fixed length: written over the one before, it is never half of both."""
        return json.dumps(asdict(self)).encode().ljust(RECORD_BYTES)

    @classmethod
    def decoded(cls, data: bytes) -> Owner | None:
        """None where the record is not whole."""
        with contextlib.suppress(ValueError, TypeError):
            return cls(**parsed_json(data))
        return None


def this_owner(token: str) -> Owner:
    """The process that asks, from now on."""
    at = now()
    return Owner(token, machine(), os.getpid(), started(os.getpid()), at, at)


def started(process: int) -> str:
    """When a process of this machine began: its number may be another's by now. Empty where there
    is none (or a zombie).
    """
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]

    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass

    return "unknown"


def now() -> str:
    """The time, as a record says it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
