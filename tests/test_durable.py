"""A run is on the disk before it is seen, and the name that it got after; scratch work waits for no
disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracle import world

import dask_embstab as es
from dask_embstab.files import atomic
from dask_embstab.tables.write import chunk_writer, workplace

pytestmark = pytest.mark.usefixtures("small_tasks")
T, W = world(6)
Verb = Callable[[Path, bool], Any]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is begun to be written, what is synced, and ``seen`` when a run takes its place; by path
    below the folder.
    """
    synced: list[str] = []

    def path_of(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path))

    def noted(module: Any, name: str, note: Callable[..., str]) -> None:
        original = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            synced.append(note(*arguments))
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    noted(os, "fsync", lambda descriptor: f"synced {path_of(descriptor)}")
    noted(chunk_writer, "begin_sync", lambda descriptor: f"begun {path_of(descriptor)}")
    noted(workplace, "put", lambda *_: "seen")
    noted(workplace, "swap", lambda *_: "seen")
    return synced


VERBS: dict[str, Verb] = {
    "create_run": lambda out, sync: es.create_run(out, T, W, chunk_rows=16, sync=sync),
    "apply": lambda out, sync: es.apply(es.fit(T, W), {"items": T, "users": W}, out, sync=sync),
    "stabilize": lambda out, sync: es.stabilize({"items": T, "users": W}, out, sync=sync),
    "overwrite": lambda out, sync: es.stabilize(
        {"items": T, "users": W}, out, overwrite=True, sync=sync
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_file_is_on_the_disk_before_the_run_is_seen(
    tmp_path: Path, steps: list[str], verb: str
) -> None:
    if verb == "overwrite":
        VERBS["create_run"](tmp_path / "out.zarr", False)
    steps.clear()
    VERBS[verb](tmp_path / "out.zarr", True)
    seen = steps.index("seen")
    synced = {
        step.partition("/run")[2] for step in steps[:seen] if step.startswith("synced .out.zarr.")
    }
    out = tmp_path / "out.zarr"
    assert synced == {
        f"/{path.relative_to(out)}".removesuffix("/.") for path in [out, *out.rglob("*")]
    }
    assert "synced ." in steps[seen:], "the name"
    chunks = [path for path in out.rglob("vectors/c/*/*") if path.is_file()]
    assert sum(step.startswith("begun") for step in steps[:seen]) == len(chunks)


@pytest.mark.parametrize("verb", VERBS)
def test_scratch_work_waits_for_no_disk(tmp_path: Path, steps: list[str], verb: str) -> None:
    if verb == "overwrite":
        VERBS["create_run"](tmp_path / "out.zarr", False)
    steps.clear()
    VERBS[verb](tmp_path / "out.zarr", False)
    assert [step for step in steps if not step.endswith("lock")] == ["seen"]


def test_what_cannot_be_begun_is_synced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "call", lambda *_: None)
    assert VERBS["create_run"](tmp_path / "out.zarr", True).items.n_rows == 60
