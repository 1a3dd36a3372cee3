"""An old run stays whole until the new one takes its place, whatever the system can do and whenever
it stops.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_visibility
from oracle import Stop, data_of, hidden, snapshot, stop_at, vectors_of
from test_visibility import MakeRun, T, W, Writing

import dask_embstab as es
from dask_embstab.files import swap as swapping
from dask_embstab.files.owned import OwnedFolder

pytestmark = pytest.mark.usefixtures("small_tasks")
run, transform = test_visibility.run, test_visibility.transform


def test_overwrite_keeps_the_old_run_whole_until_the_new_one_is(
    run: es.Run, transform: es.Transform, tmp_path: Path, writing: Writing
) -> None:
    out = tmp_path / "out.zarr"
    es.create_run(out, 2 * T, 3 * W, chunk_rows=16)
    old = snapshot(out)
    with pytest.raises(es.OutputExistsError, match=r"exists already.*overwrite=True"):
        es.apply(transform, run, out)
    with writing(stop_at(7)), pytest.raises(Stop):
        es.apply(transform, run, out, overwrite=True)
    assert snapshot(out) == old
    assert not hidden(tmp_path)
    with writing(lambda _: es.open_run(out).table("users")):
        es.apply(transform, run, out, overwrite=True)
    assert es.open_run(out).transform is not None
    assert vectors_of(es.open_run(out)).dtype == np.float32
    assert not hidden(tmp_path)


def test_overwrite_without_an_old_run_and_over_the_input_itself(
    run: es.Run, tmp_path: Path
) -> None:
    transformed = es.stabilize(run, tmp_path / "out.zarr", overwrite=True)
    wanted = data_of(transformed.path)
    assert data_of(es.stabilize(run, run.path, overwrite=True).path) == wanted
    assert not hidden(tmp_path)


@pytest.mark.parametrize("what", ["file", "folder", "link to a folder"])
def test_overwrite_replaces_runs_and_nothing_else(run: es.Run, tmp_path: Path, what: str) -> None:
    out, precious = tmp_path / "out.zarr", tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    if what == "file":
        out.write_text("years of work")
    elif what == "folder":
        precious.rename(out)
    else:
        out.symlink_to(precious)
    before = snapshot(tmp_path)
    with pytest.raises(es.OutputExistsError, match="no Zarr store"):
        es.stabilize(run, out, overwrite=True)
    assert snapshot(tmp_path) == before


def test_overwrite_of_a_link_leaves_what_it_links_to(
    run: es.Run, make_run: MakeRun, tmp_path: Path
) -> None:
    (tmp_path / "out.zarr").symlink_to(make_run("old", T).path)
    es.stabilize(run, tmp_path / "out.zarr", overwrite=True)
    assert es.open_run(tmp_path / "out.zarr").transform is not None
    assert es.open_run(tmp_path / "old.zarr").transform is None
    assert not hidden(tmp_path)


@pytest.fixture
def no_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swapping, "_renameat2", lambda *_: False)


@pytest.mark.usefixtures("no_renameat2")
def test_without_renameat2_a_swap_is_two_renames(
    run: es.Run, transform: es.Transform, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    es.apply(transform, run, out)
    with pytest.raises(es.OutputExistsError):
        es.apply(transform, run, out)
    es.apply(transform, run, out, dtype="float64", overwrite=True)
    assert es.open_run(out).items.dtype == np.float64
    assert not hidden(tmp_path)


@pytest.mark.usefixtures("no_renameat2")
@pytest.mark.parametrize("then", ["open", "write", "overwrite"])
def test_a_swap_that_stopped_between_its_renames_is_finished(
    run: es.Run, transform: es.Transform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    out = tmp_path / "out.zarr"
    es.apply(transform, run, out)
    original = Path.rename

    def rename(self: Path, target: Any) -> Path:
        if Path(target) == out:
            raise Stop  # here the machine stops
        return original(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(Stop):
            es.apply(transform, run, out, dtype="float64", overwrite=True)
    assert not out.exists()
    if then == "open":
        assert es.open_run(out).items.n_rows == 60
    elif then == "write":
        with pytest.raises(es.OutputExistsError):
            es.apply(transform, run, out)
    else:
        es.apply(transform, run, out, dtype="float16", overwrite=True)
        assert es.open_run(out).items.dtype == np.float16
    assert es.open_run(out).transform is not None
    es.apply(transform, run, out, overwrite=True)
    assert not hidden(tmp_path)


@pytest.mark.usefixtures("no_renameat2")
def test_what_a_writer_that_was_killed_after_its_renames_left_is_removed_by_the_next(
    run: es.Run, transform: es.Transform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"
    es.apply(transform, run, out)
    with monkeypatch.context() as patched:
        patched.setattr(OwnedFolder, "discard", OwnedFolder.release)
        es.apply(transform, run, out, overwrite=True, dtype="float64")
    assert len(hidden(tmp_path)) == 1
    assert es.open_run(out).items.dtype == np.float64
    with pytest.raises(es.OutputExistsError):
        es.apply(transform, run, out)
    es.apply(transform, run, out, overwrite=True)
    assert es.open_run(out).items.dtype == np.float32
    assert not hidden(tmp_path)


def test_a_folder_that_appears_meanwhile_is_not_replaced(
    run: es.Run, tmp_path: Path, writing: Writing
) -> None:
    out = tmp_path / "out.zarr"
    with (
        writing(lambda n: out.mkdir() if n == 3 else None),
        pytest.raises(es.OutputExistsError, match="exists already"),
    ):
        es.stabilize(run, out)
    assert not list(out.iterdir())
    assert not hidden(tmp_path)
