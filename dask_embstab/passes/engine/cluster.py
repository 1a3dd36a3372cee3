"""Is a cluster fit to compute on: the same libraries, the same kernels? And what if its scheduler
goes away?
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import dask
from dask import threaded
from dask.base import get_scheduler, named_schedulers
from dask.system import CPU_COUNT
from dask.utils import parse_timedelta

from dask_embstab.errors import EmbstabWarning, InputError, RetryError
from dask_embstab.passes.engine.blas import kernel_family

LIBRARIES = ("dask_embstab", "numpy", "scipy", "zarr", "numcodecs", "crc32c", "dask", "distributed")
_WAIT_SECONDS, _TRIES = 300.0, 10
_checked: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def active_client() -> Any:
    """The client of the cluster that Dask computes on; None on a local scheduler."""
    return None if local_scheduler() else getattr(get_scheduler(), "__self__", None)


def local_scheduler() -> Callable[..., Any] | None:
    """What computes where no client can be active; None where Dask has to be asked.

    Dask imports ``distributed`` only to ask it for a client, longer than a small job takes.
    """
    if "distributed.client" in sys.modules or dask.config.get("scheduler-address", None):
        return None
    chosen = dask.config.get("scheduler", None)
    get: Callable[..., Any] | None = (
        threaded.get if chosen is None else named_schedulers.get(str(chosen).lower())
    )
    return get


@contextlib.contextmanager
def on_cluster(client: Any) -> Iterator[None]:
    """Wait for a worker where there is none, and check those that are new to this client; a
    scheduler that goes away is one clear error.
    """
    if client is None:
        yield
        return

    address = client.scheduler.address
    try:
        if not client.nthreads():
            _wait_for_worker(client)
        _check(client)
        yield
    except Exception as error:
        if client.status == "running":
            raise
        raise RetryError(
            f"the Dask scheduler at {address} went away ({type(error).__name__}); nothing was"
            " published; start it and call again"
        ) from error


def threads_of_a_process() -> int:
    """Threads that compute side by side: of the worker that has most, or of Dask's threaded
    scheduler, as configured.
    """
    client = active_client()
    with on_cluster(client):
        most = 0 if client is None else max(client.nthreads().values(), default=0)
    return int(most or dask.config.get("num_workers", None) or CPU_COUNT)


def threads_in_all() -> int:
    """Threads that compute side by side, those of all workers."""
    client = active_client()
    if client is None:
        return threads_of_a_process()
    with on_cluster(client):
        return max(1, int(sum(client.nthreads().values())))


@dataclass(frozen=True, slots=True)
class WorkerLimit:
    """The memory that a worker may use, what it holds now, and its threads."""

    address: str
    limit: int
    held: int
    threads: int


def worker_limits() -> list[WorkerLimit]:
    """Of the workers that have one, a worker for each limit and number of threads; none without a
    cluster.
    """
    client = active_client()
    if client is None:
        return []

    # Within a function: it is sent by value.
    def limits(dask_scheduler: Any) -> list[tuple[str, int, int, int]]:
        return [
            (address, int(one.memory_limit or 0), int(one.metrics.get("memory", 0)), one.nthreads)
            for address, one in dask_scheduler.workers.items()
        ]

    limited: list[WorkerLimit] = []
    for _ in range(_TRIES):
        with on_cluster(client):
            limited = [WorkerLimit(*one) for one in client.run_on_scheduler(limits)]
        if limited:  # else an adaptive cluster has ended the worker that was waited for
            break
    kinds = {(one.limit, one.threads): one for one in sorted(limited, key=lambda one: one.held)}
    return [one for one in kinds.values() if one.limit]


def worker_families(client: Any) -> dict[str, str]:
    """BLAS library and kernels of every worker by its address."""
    return _families(client, list(client.nthreads()))


def loaded_family() -> str:
    """`kernel_family` once everything that brings a BLAS library is loaded."""
    import numpy  # noqa: F401, ICN001
    import scipy.linalg  # noqa: F401

    return kernel_family()


def _wait_for_worker(client: Any) -> None:
    """Until there is one, whose limit and libraries can be asked for. An adaptive cluster starts
    it for a task alone, so a task waits.
    """
    seconds: Any = dask.config.get("embstab.worker-wait", _WAIT_SECONDS)
    waiting = client.submit(int, pure=False)
    try:
        waiting.result(timeout=parse_timedelta(seconds))
    except TimeoutError as error:
        raise InputError(
            f"a cluster must have a worker; the one at {client.scheduler.address} has none, and"
            f" after {seconds} s none has come; start some, or wait longer (embstab.worker-wait in"
            " Dask's configuration)"
        ) from error


def _check(client: Any) -> None:
    seen = _checked.setdefault(client, set())
    if not (new := sorted(set(client.nthreads()) - seen)):
        return

    _require_libraries(client, new)
    ours = loaded_family()
    others = {worker: family for worker, family in _families(client, new).items() if family != ours}
    seen.update(new)
    if others:
        worker, family = next(iter(others.items()))
        warnings.warn(
            f"{len(others)} of {len(new)} workers compute with another kernel family than this"
            f" process ({worker} with {family}, this process with {ours}): results agree to"
            " rounding, and their bits only within one family; start all with the same"
            " OPENBLAS_CORETYPE and the same wheels",
            EmbstabWarning,
            stacklevel=2,
        )


def _families(client: Any, workers: list[str]) -> dict[str, str]:
    return _answers(client, loaded_family, workers=workers)


def _answers(
    client: Any, function: Callable[..., Any], *given: Any, workers: list[str]
) -> dict[str, Any]:
    """What a function returns on these workers; those that left meanwhile are left out, as of an
    adaptive cluster.
    """
    returned = client.run(function, *given, workers=workers, on_error="return")
    answers = {worker: one for worker, one in returned.items() if not isinstance(one, OSError)}
    for one in answers.values():
        if isinstance(one, Exception):
            raise one
    return answers


def _require_libraries(client: Any, workers: list[str]) -> None:
    """Raise where a worker has another version of a library: tasks and bits are not comparable
    then.
    """

    # Within a function: it is sent by value, so a worker without this library can answer.
    def versions(names: tuple[str, ...]) -> dict[str, str | None]:
        from importlib import metadata

        versions_here: dict[str, str | None] = {}
        for name in names:
            try:
                versions_here[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions_here[name] = None
        return versions_here

    ours = versions(LIBRARIES)
    for worker, theirs in _answers(client, versions, LIBRARIES, workers=workers).items():
        other = [
            f"{name} {theirs[name] or 'not at all'} (here {ours[name]})"
            for name in ours
            if theirs[name] != ours[name]
        ]
        if other:
            raise InputError(
                f"workers must have the libraries of the client; the one at {worker} has"
                f" {', '.join(other)}; install the same versions there"
            )
