"""At the end of every task and every table: each row was written, once, by every kind of writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from oracle import hidden, world

import dask_embstab as es
from dask_embstab.passes.engine import plan
from dask_embstab.passes.running_mean import Aging, Mean, advance, seen_once, view_of
from dask_embstab.tables.ids.ids import SlicedIds
from dask_embstab.tables.read.source import ArrayReader
from dask_embstab.tables.write.run_writer import begin_run

pytestmark = pytest.mark.usefixtures("small_tasks")
T, W = world(72)
IDS: dict[str, Any] = {"int64": np.arange(60), "string": np.arange(60).astype(str).astype(object)}
MakeRun = Callable[..., es.Run]
PLACES: dict[str, Callable[[Path], Any]] = {
    "folder": lambda folder: folder / "out.zarr",
    "store": lambda _: zarr.storage.MemoryStore(),
}
AMOUNTS: dict[str, Callable[[Any], Any]] = {
    "a row too few": lambda rows: rows[:-1],
    "a row too many": lambda rows: np.concatenate([rows, rows[:1]]),
    "no row": lambda rows: rows[:0],
}


def changed(
    monkeypatch: pytest.MonkeyPatch, reader: Any, change: Callable[[Any], Any], at: int
) -> None:
    """What the reader takes from row ``at`` on is another number of rows."""
    original = reader.take

    def take(self: Any, start: int, stop: int) -> Any:
        rows = original(self, start, stop)
        return change(rows) if start == at else rows

    monkeypatch.setattr(reader, "take", take)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("at", [0, 32, 48])
def test_a_task_writes_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, amount: str, at: int
) -> None:
    out = PLACES[place](tmp_path)
    changed(monkeypatch, ArrayReader, AMOUNTS[amount], at)
    with pytest.raises(es.DamageError, match=r"were to be written .* nothing was published"):
        es.create_run(out, T, chunk_rows=16)
    with pytest.raises(es.NotARunError):
        es.open_run(out)
    assert not hidden(tmp_path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("amount", AMOUNTS)
def test_a_task_writes_its_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, amount: str, kind: str
) -> None:
    out = PLACES[place](tmp_path)
    changed(monkeypatch, SlicedIds, AMOUNTS[amount], 0)
    with pytest.raises(es.DamageError, match=r"were to be written"):
        es.create_run(out, T, item_ids=IDS[kind], chunk_rows=16)


PLANS: dict[str, Callable[[Any], Any]] = {
    "the last task is missing": lambda ranges: ranges[:-1],
    "the first task is missing": lambda ranges: ranges[1:],
    "a task in the middle is missing": lambda ranges: (*ranges[:1], *ranges[2:]),
    "a task runs twice": lambda ranges: (*ranges[:2], *ranges[1:]),
    "two tasks overlap": lambda ranges: (ranges[0], replace(ranges[1], start=0), *ranges[2:]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", PLANS)
@pytest.mark.parametrize("verb", ["create_run", "apply", "running mean"])
def test_a_table_is_written_whole_and_once(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    fault: str,
    verb: str,
) -> None:
    run, out, original = make_run("in", T), PLACES[place](tmp_path), plan.plan_rows
    transform = es.fit(run)

    def plan_rows(*arguments: Any) -> Any:
        ranges, grid = original(*arguments)
        return PLANS[fault](ranges), grid

    def running_mean() -> None:
        old = Mean(view_of(run.items, seen_once, 5), None)
        with begin_run(out, name=None, fingerprint="") as writer:
            advance(writer, {"items": (run.items, old)}, Aging(1.0))

    verbs: dict[str, Callable[[], Any]] = {
        "create_run": lambda: es.create_run(out, T, chunk_rows=16),
        "apply": lambda: es.apply(transform, run, out),
        "running mean": running_mean,
    }
    monkeypatch.setattr("dask_embstab.passes.engine.plan.plan_rows", plan_rows)
    monkeypatch.setattr("dask_embstab.passes.running_mean.plan_rows", plan_rows)
    with pytest.raises(
        es.DamageError, match=r"every row of a table must be written once; .* nothing was published"
    ):
        verbs[verb]()
    with pytest.raises(es.NotARunError):
        es.open_run(out)
    assert not hidden(tmp_path)
