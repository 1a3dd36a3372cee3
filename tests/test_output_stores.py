"""A store that is no folder holds the whole run where it was asked for, or is refused before a
pass.
"""

from __future__ import annotations

import multiprocessing
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from oracle import snapshot, vectors_of, world

import dask_embstab as es
from dask_embstab.passes.engine.graph import progress

T, W = world(74)
MakeRun = Callable[..., es.Run]
Transform = es.Transform


class NotConsolidated(zarr.storage.MemoryStore):
    """As Icechunk: metadata is one snapshot already, and consolidating is a TypeError."""

    supports_consolidated_metadata = False


class Forgetful(zarr.storage.MemoryStore):
    """Says that it wrote a chunk, and did not."""

    lost = "c/1"

    async def set(self, key: str, value: Any, *arguments: Any) -> None:
        """All keys but the lost ones."""
        if self.lost not in key:
            await super().set(key, value, *arguments)


class NotPickled(zarr.storage.MemoryStore):
    """As a writable Icechunk session: it must be forked first."""

    def __reduce__(self) -> Any:
        raise ValueError("fork the session first")


def verbs(run: es.Run, transform: Transform, out: Any) -> dict[str, Callable[[], Any]]:
    return {
        "create_run": lambda: es.create_run(out, T, W, item_ids=np.arange(60), chunk_rows=16),
        "apply": lambda: es.apply(transform, run, out),
        "stabilize": lambda: es.stabilize(run, out),
    }


@pytest.fixture(scope="module")
def worker() -> Iterator[ProcessPoolExecutor]:
    """Dask's scheduler: one other process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as made:
        yield made


@pytest.fixture
def run(make_run: MakeRun) -> es.Run:
    return make_run("in", T, W, item_ids=np.arange(60))


PRIVATE: dict[str, Callable[[Path], Any]] = {
    "MemoryStore": lambda _: zarr.storage.MemoryStore(),
    "dict": lambda _: {},
    "memory URL": lambda folder: f"memory://{folder.name}/out.zarr",
    "not pickled": lambda _: NotPickled(),
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_a_store_that_is_private_to_a_worker_is_refused_before_a_pass(
    run: es.Run, tmp_path: Path, worker: ProcessPoolExecutor, kind: str
) -> None:
    out, transform, passes = PRIVATE[kind](tmp_path), es.fit(run), []
    for call in verbs(run, transform, out).values():
        with (
            dask.config.set(scheduler=worker),
            progress(lambda label, *_: passes.append(label)),
            pytest.raises(es.InputError, match=r"worker.*(path or a URL|threads)"),
        ):
            call()
    assert set(passes) == {"the output's store"}
    with pytest.raises(es.InputError):
        es.open_run(out)


@pytest.mark.parametrize("kind", ["MemoryStore", "dict", "memory URL"])
@pytest.mark.parametrize("verb", ["create_run", "apply", "stabilize"])
def test_in_one_process_such_a_store_holds_the_run(
    run: es.Run, tmp_path: Path, kind: str, verb: str
) -> None:
    out, transform = PRIVATE[kind](tmp_path), es.fit(run)
    made = verbs(run, transform, out)[verb]()
    expected = T if verb == "create_run" else transform.transform_items(T)
    np.testing.assert_allclose(vectors_of(es.open_run(out)), expected)
    assert made.items.ids.compute().tolist() == list(range(60))
    with pytest.raises(es.OutputExistsError):
        verbs(run, transform, out)[verb]()


def test_a_store_that_workers_share_is_written_by_them(
    tmp_path: Path, worker: ProcessPoolExecutor
) -> None:
    store = zarr.storage.LocalStore(tmp_path / "out.zarr")
    with dask.config.set(scheduler=worker):
        es.create_run(store, T, W, chunk_rows=16)
    np.testing.assert_array_equal(vectors_of(es.open_run(tmp_path / "out.zarr")), T)
    assert not [name for name in snapshot(tmp_path / "out.zarr") if "probe" in name]


@pytest.mark.parametrize("verb", ["create_run", "apply", "stabilize"])
@pytest.mark.parametrize("lost", ["items/vectors/c/1", "users/vectors/c/0", "items/id/c/3"])
def test_what_was_written_is_looked_for_where_it_was_asked_for(
    run: es.Run, lost: str, verb: str
) -> None:
    out, transform = Forgetful(), es.fit(run)
    out.lost = lost
    name = lost.partition("/c/")[0]
    with pytest.raises(es.DamageError, match=rf"chunks of {name} only .* nothing was published"):
        verbs(run, transform, out)[verb]()
    with pytest.raises(es.NotARunError, match="not finished"):
        es.open_run(out)


@pytest.mark.parametrize("verb", ["create_run", "apply", "stabilize"])
def test_a_store_without_consolidated_metadata_holds_the_run(run: es.Run, verb: str) -> None:
    out, transform = NotConsolidated(), es.fit(run)
    verbs(run, transform, out)[verb]()
    again = es.open_run(out)
    expected = T if verb == "create_run" else transform.transform_items(T)
    np.testing.assert_allclose(vectors_of(again), expected)
    assert "incomplete" not in again.attrs["embstab"]
    np.testing.assert_allclose(
        xr.open_zarr(out, group="items", consolidated=False)["vectors"], expected
    )


@pytest.mark.parametrize("verb", ["create_run", "apply", "stabilize"])
def test_stores_that_cannot_replace_or_write_are_refused_before_a_pass(
    run: es.Run, tmp_path: Path, verb: str
) -> None:
    transform, passes = es.fit(run), []
    zipped = zarr.storage.ZipStore(tmp_path / "out.zip", mode="w")
    for out, says in (
        (zipped, "replace what it holds"),
        (zarr.storage.MemoryStore(read_only=True), "read-only"),
    ):
        with (
            progress(lambda label, *_: passes.append(label)),
            pytest.raises(es.InputError, match=f"the output store must be .*{says}"),
        ):
            verbs(run, transform, out)[verb]()
    assert not passes
    assert not (tmp_path / "out.zip").exists()


def test_a_run_in_a_zip_file_is_an_input(
    run: es.Run, tmp_path: Path, worker: ProcessPoolExecutor
) -> None:
    """Written to a folder and put into a ZIP file, as the error says; also while the ZIP file is
    open for writing.
    """
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as zipped:
        for name, data in snapshot(Path(run.path)).items():
            if data is not None:
                zipped.writestr(name, data)
    writable = zarr.storage.ZipStore(tmp_path / "run.zip", mode="a")
    np.testing.assert_array_equal(vectors_of(es.open_run(writable)), T)
    writable.close()
    store = zarr.storage.ZipStore(tmp_path / "run.zip", mode="r")
    np.testing.assert_array_equal(es.fit(store).items, es.fit(run).items)
    with dask.config.set(scheduler=worker):
        np.testing.assert_array_equal(es.fit(store).items, es.fit(run).items)
    store.close()


def test_a_write_that_the_store_refuses_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, run: es.Run
) -> None:
    async def refuse(*_: Any) -> None:
        raise PermissionError(13, "Access denied")

    out = zarr.storage.MemoryStore()
    with monkeypatch.context() as patched:
        patched.setattr(zarr.storage.MemoryStore, "set", refuse)
        with pytest.raises(
            es.AccessError, match=r"cannot be written .*Access denied.*nothing was published"
        ):
            es.stabilize(run, out)
    for wrong in (5, {1, 2}, T, None, run, b"out.zarr", run.group):
        for call in verbs(run, es.fit(run), wrong).values():
            with pytest.raises(
                es.InputError, match=r"the output must be a path, a URL or a Zarr store"
            ):
                call()
