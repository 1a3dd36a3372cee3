"""Fixtures and the hypothesis profile that every test module shares."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import faults
import numpy as np
import pytest
from campaigns import (  # noqa: F401 (pytest calls them)
    pytest_collection_modifyitems,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
)
from hypothesis import HealthCheck, settings
from oracle import draws, snapshot, world
from s3_server import bucket, s3_server  # noqa: F401 (fixtures of whoever asks for them)

import dask_embstab as es
from dask_embstab.core import tree
from dask_embstab.exchange import parts
from dask_embstab.passes.engine import graph, reduce, write
from dask_embstab.tables.write.sink import Sink

Change = Callable[[], None]
Changing = Callable[[Change], contextlib.AbstractContextManager[None]]

settings.register_profile(
    "disk",
    deadline=None,
    max_examples=draws(10),
    derandomize="CI" in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("disk")


@pytest.fixture(scope="session", autouse=True)
def _frozen_modules() -> None:
    """What was imported before the first test is not looked through by every collection of garbage
    that a test asks for: of a whole session's modules, half a second each.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the real power: what must be durable is counted (`faults`), the disk is not
    waited for.
    """
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(autouse=True)
def _configuration_is_left_as_it_was() -> Iterator[None]:
    """What one test configures is not what another one is told."""
    before = copy.deepcopy(dask.config.get("embstab", None))
    yield
    assert dask.config.get("embstab", None) == before


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> faults.Faults:
    """Where file operations are counted and struck."""
    return faults.install(monkeypatch)


@pytest.fixture
def plainly(tmp_path: Path) -> Iterator[None]:
    """One task after another, and scratch of its own: that of killed processes, which every join
    looks for, would be counted too.
    """
    with dask.config.set({"scheduler": "synchronous", "embstab.scratch": str(tmp_path)}):
        yield
    gc.collect()  # Zarr's coroutines that nobody will await: here their warnings are expected


@contextlib.contextmanager
def small_panels() -> Iterator[None]:
    """Panels of 16 rows in every module, also in those that are first imported meanwhile: these
    get the real size in the end, too.
    """

    def small(_: int) -> int:
        return 16

    def exchange(old: Any, new: Any) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("dask_embstab.") and vars(module).get("micro_block_rows") is old:
                module.micro_block_rows = new  # type: ignore[attr-defined]

    real = tree.micro_block_rows
    exchange(real, small)
    try:
        yield
    finally:
        exchange(small, real)


@pytest.fixture
def small_tasks() -> Iterator[None]:
    """One task per chunk however small it is, and panels of 16 rows: small tables run through the
    whole tree.
    """
    with small_panels(), dask.config.set({"embstab.task-bytes": 1}):
        yield


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., es.Run]:
    """``make_run("a", T, W, ...)`` writes a run in chunks of 16 rows in the test's own folder."""

    def make(
        name: str, items: Any = None, users: Any = None, *, dtype: Any = "float64", **options: Any
    ) -> es.Run:
        tables = [
            None if table is None else np.asarray(table).astype(dtype) for table in (items, users)
        ]
        return es.create_run(tmp_path / f"{name}.zarr", *tables, **{"chunk_rows": 16, **options})

    return make


@pytest.fixture
def two_runs(make_run: Callable[..., es.Run]) -> tuple[es.Run, es.Run]:
    """A float32 reference and a later run over the same rows, both in chunks of 16 rows."""
    T, W = world(0)
    U, V = world(1)
    first = make_run("first", T, W, dtype="float32")
    return first, make_run("second", T + 0.1 * U, W + 0.1 * V, dtype="float32")


@pytest.fixture
def writing(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., contextlib.AbstractContextManager[None]]:
    """``with writing(hook):`` calls ``hook(n)`` before the n-th chunk is written (from 1), one task
    after another.
    """

    @contextlib.contextmanager
    def hooked(hook: Callable[[int], None]) -> Iterator[None]:
        original, count = Sink.writer, 0

        def writer(self: Sink, start: int, stop: int) -> Any:
            nonlocal count
            count += 1
            hook(count)
            return original(self, start, stop)

        with monkeypatch.context() as patched, dask.config.set(scheduler="synchronous"):
            patched.setattr(Sink, "writer", writer)
            yield

    return hooked


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[None]]:
    """``with refused(Error, *patterns):`` - the error says all of it in one line, and no file has
    changed.

    A series records what it refuses.
    """

    def files() -> dict[str, Any]:
        kept = re.compile(r"/(attempts/|locks$)")  # who was at work on a series, and on what
        return {name: data for name, data in snapshot(tmp_path).items() if not kept.search(name)}

    @contextlib.contextmanager
    def check(error: type[Exception], *patterns: str) -> Iterator[None]:
        before = files()
        with pytest.raises(error) as caught:
            yield
        text = str(caught.value)
        assert "\n" not in text
        for pattern in patterns:
            assert re.search(pattern, text), f"{pattern!r} is not in {text!r}"
        assert files() == before

    return check


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Changing]:
    """``with between("fit: reading")(change):`` changes an input when the pass of this label has
    ended.
    """

    def after(label: str) -> Changing:
        @contextlib.contextmanager
        def hooked(change: Change) -> Iterator[None]:
            original, done = graph.compute, []

            def computed(nodes: Any, **options: Any) -> Any:
                values = original(nodes, **options)
                if options["label"] == label and not done:
                    done.append(change())
                return values

            with monkeypatch.context() as patched:
                patched.setattr(graph, "compute", computed)
                yield
            assert done, "the pass was there"

        return hooked

    return after


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> Changing:
    """``with within(change):`` changes an input when the first task of the first pass has read its
    rows.
    """

    @contextlib.contextmanager
    def hooked(change: Change) -> Iterator[None]:
        done: list[None] = []

        def then(function: Any) -> Any:
            def task(*arguments: Any) -> Any:
                value = function(*arguments)
                if not done:
                    done.append(None)
                    change()
                return value

            return task

        with monkeypatch.context() as patched, dask.config.set(scheduler="synchronous"):
            for module, name in (
                (reduce, "reduce_block"),
                (write, "write_block"),
                (parts, "write_part"),
            ):
                patched.setattr(module, name, then(getattr(module, name)))
            yield
        assert done, "a task has run"

    return hooked
