"""A process that dies at any file operation of an upgrade: what is there is the old index, the new
one, or refused; never an index of two spaces.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest

import dask_embstab as es

N, USERS, D, K = 120, 20, 4, 5
RNG = np.random.default_rng(0)
T, W, A = (RNG.normal(size=shape) for shape in ((N, D), (USERS, D), (D, D)))
ENGINES = ("usearch", "faiss")
WAYS = ("upgrade", "step", "roll back")


def world(folder: Path, engine: str) -> Path:
    """Two trainings, an index of the old one, a copy of it that is to be replaced, a backfill that
    is half done.
    """
    pytest.importorskip(engine, reason=f"{engine} is an extra")
    ids = {"item_ids": [f"i{n}" for n in range(N)], "user_ids": np.arange(USERS)}
    old = es.create_run(folder / "old", T, W, **ids)
    new = es.create_run(folder / "new", T @ A, W @ np.linalg.inv(A).T, **ids)
    for name in ("index", "live"):
        es.export(old, folder / name, format=engine, table="items")
    es.begin_backfill(folder / "moving", folder / "index", old, new, part_rows=50).step()
    plan = es.upgrade_plan(new, old, k=K)
    assert plan.transform is not None
    plan.transform.save(folder / "matrix.npz")
    return folder


def recall(result: Any, run: es.Run) -> float:
    _, exact = es.search(run, run, K)
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(exact, result, strict=True)]))


def call(work: Path, way: str) -> Callable[[], Any]:
    moving = es.Backfill(work / "moving")
    return {
        "upgrade": lambda: es.upgrade_index(
            work / "index", work / "live", work / "matrix.npz", overwrite=True
        ),
        "step": moving.step,
        "roll back": moving.roll_back,
    }[way]


def require_one_space(work: Path, way: str) -> None:
    old, new = (es.open_run(work / name) for name in ("old", "new"))
    if way != "upgrade":
        moving = es.Backfill(work / "moving")
        assert recall(moving.search(new, K)[1], new) > 0.9
        return
    answered = 0
    for run in (old, new):
        with contextlib.suppress(es.EmbstabError):
            assert recall(es.query_index(work / "live", run, k=K)[1], run) > 0.9
            answered += 1
    assert answered <= 1
    if (work / "live").is_dir():
        assert answered == 1  # a folder takes its place at once


def strike(disk: faults.Faults, start: Path, work: Path, way: str, mode: str, *, few: bool) -> int:
    """At every operation, or at a ``few``; how many were struck."""
    n, at = 0, faults.NEVER
    tried = [at]
    while tried:
        at = tried.pop()
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(start, work)
        moving = work / "moving/backfill.json"
        moving.write_text(moving.read_text().replace(str(start), str(work)))
        made = call(work, way)
        ends = (faults.Killed, OSError, es.EmbstabError)  # an error of the disk may be told as ours
        with disk.armed(work, at, mode), contextlib.suppress(*ends):
            made()
        if at == faults.NEVER:
            n_operations = disk.count
            tried = [n_operations // 2, n_operations - 1]
            tried = tried if few else list(range(n_operations, 0, -1))
        else:
            n += disk.struck
            require_one_space(work, way)
            with contextlib.suppress(es.OutputExistsError):
                call(work, way)()
        require_one_space(work, way)
    return n


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> faults.Faults:
    return faults.install(monkeypatch)


@pytest.mark.parametrize(("engine", "way"), [("faiss", "upgrade"), ("usearch", "step")])
def test_dead_at_some_operations(
    engine: str, way: str, disk: faults.Faults, tmp_path: Path
) -> None:
    (tmp_path / "start").mkdir()
    start = world(tmp_path / "start", engine)
    assert strike(disk, start, tmp_path / "work", way, "kill", few=True) > 0


@pytest.mark.long
@pytest.mark.parametrize("mode", ["kill", "fail"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("engine", ENGINES)
def test_dead_at_every_operation(
    engine: str, way: str, mode: str, disk: faults.Faults, tmp_path: Path
) -> None:
    (tmp_path / "start").mkdir()
    start = world(tmp_path / "start", engine)
    assert strike(disk, start, tmp_path / "work", way, mode, few=False) > 3
