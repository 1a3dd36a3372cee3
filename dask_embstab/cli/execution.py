"""Where and within what the passes of a command run: its scheduler, its memory, its clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dask_embstab.cli.clusters import ClusterFile


@contextlib.contextmanager
def clock() -> Iterator[Callable[[], float]]:
    """Seconds since the block began; imports and connecting lie before it."""
    began = time.perf_counter()
    yield lambda: time.perf_counter() - began


@contextlib.contextmanager
def cluster(address: str | ClusterFile | None) -> Iterator[None]:
    """Passes run on the scheduler at ``address``, on a cluster that a file describes and that ends
    with the block, or on threads.
    """
    if address is None:
        yield
        return
    if not isinstance(address, str):
        from dask_embstab.cli.clusters import started

        names = ("distributed", "distributed.client", "distributed.nanny")
        with _quiet_loggers(*names), started(address):
            yield
        return
    from distributed import Client

    from dask_embstab.errors import InputError

    try:
        _require_address(address)
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}); start one or leave --scheduler out"
        ) from error
    with _quiet_loggers("distributed", "distributed.client"), client, client.as_current():
        yield


def _require_address(address: str) -> None:
    """Raise where a client could not even try the address: it would hang when it is dropped."""
    from distributed.comm import get_address_host_port, resolve_address
    from distributed.security import Security

    resolve_address(address)
    _, port = get_address_host_port(address)
    if not 0 < port < 1 << 16:
        raise ValueError(f"a port lies between 1 and 65535; {port} was given")
    if address.startswith("tls://") and not Security().get_connection_args("client").get(
        "ssl_context"
    ):
        raise ValueError(
            "no TLS certificates are configured; set distributed.comm.tls in Dask's configuration"
        )


@contextlib.contextmanager
def _quiet_loggers(*names: str) -> Iterator[None]:
    """Distributed logs a lost scheduler with tracebacks; the contract is one line, and that comes
    from the error.
    """
    import logging

    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def joins_within(scratch: str | None, join_memory: str | None) -> Iterator[None]:
    """Joins of the block use this folder and memory, where they are given."""
    import dask

    named = {"embstab.scratch": scratch, "embstab.join-memory": join_memory}
    with dask.config.set({name: value for name, value in named.items() if value is not None}):
        yield


@contextlib.contextmanager
def passes_within(memory_limit: str | None) -> Iterator[None]:
    """Passes of the block need at most this memory, where it is given."""
    if memory_limit is None:
        yield
        return
    import dask

    with dask.config.set({"embstab.memory-limit": memory_limit}):
        yield
