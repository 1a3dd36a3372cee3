"""An input that is written while a verb reads it ends in one error, and nothing is published."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from oracle import foreign_run, hidden, snapshot, world
from zarr.storage import MemoryStore

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.passes.engine import graph, reduce, write
from dask_embstab.passes.join import pairing

pytestmark = pytest.mark.usefixtures("small_tasks")
T, W = world(31)
B, A = world(32)
IDS, USER_IDS = np.arange(60) * 2, np.arange(90) * 3
MakeRun = Callable[..., es.Run]
Change = Callable[[], None]
When = Callable[[Change], contextlib.AbstractContextManager[None]]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], When]:
    """``with between("fit: reading")(change):`` changes an input when the pass of this label has ended."""

    def after(label: str) -> When:
        @contextlib.contextmanager
        def hooked(change: Change) -> Iterator[None]:
            original, done = graph.compute, []

            def computed(nodes: Any, **how: Any) -> Any:
                values = original(nodes, **how)
                if how["label"] == label and not done:
                    done.append(change())
                return values

            with monkeypatch.context() as patched:
                patched.setattr(graph, "compute", computed)
                yield
            assert done, "the pass was there"

        return hooked

    return after


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> When:
    """``with within(change):`` changes an input when the first task of the first pass has read its rows."""

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
            for module, name in ((reduce, "reduce_block"), (write, "write_block")):
                patched.setattr(module, name, then(getattr(module, name)))
            yield
        assert done, "a task has run"

    return hooked


def replaced(run: es.Run) -> None:
    es.create_run(run.path, 2 * T + 1, W, item_ids=IDS, user_ids=USER_IDS, chunk_rows=16, overwrite=True)


def written_in_place(run: es.Run) -> None:
    zarr.open_group(run.path, mode="r+")["items/vectors"][48:] = 7 * T[48:]
    _later(run, "vectors/c/3/0")


def with_its_old_time(run: es.Run) -> None:
    file = Path(run.path, "items/vectors/c/3/0")
    before = file.stat().st_mtime_ns
    zarr.open_group(run.path, mode="r+")["items/vectors"][48:] = 7 * T[48:]
    os.utime(file, ns=(0, before))


def appended(run: es.Run) -> None:
    for name, rows in (("vectors", T[:16]), ("id", np.arange(1000, 1016))):
        zarr.open_group(run.path, mode="r+")[f"items/{name}"].append(rows)


def other_ids(run: es.Run) -> None:
    zarr.open_group(run.path, mode="r+")["items/id"][:] = IDS[::-1]
    _later(run, "id/c/*")


def removed(run: es.Run) -> None:
    __import__("shutil").rmtree(run.path)


def _later(run: es.Run, files: str) -> None:
    """The clock of some file systems ticks every few milliseconds: two writes may fall into one tick."""
    for file in Path(run.path).glob(f"items/{files}"):
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))


CHANGES = {
    "replaced": (replaced, r"(chunk 0 had the digest|chunk file .*c/0/0 was written anew|has another)"),
    "in place": (written_in_place, r"(chunk 3 had the digest|chunk file .*vectors/c/3/0 was written anew)"),
    "appended": (appended, "its metadata was written anew"),
    "ids": (other_ids, r"ids of .*chunk file .*id/c/0 was written anew"),
    "removed": (removed, "its metadata|is gone"),
}


@pytest.fixture
def runs(make_run: MakeRun) -> tuple[es.Run, es.Run]:
    options = {"item_ids": IDS, "user_ids": USER_IDS}
    return make_run("in", T, W, **options), make_run("reference", B, A, **options)


def refused(pattern: str) -> Any:
    return pytest.raises(es.InputChangedError, match=f"(?s)stay as it is.*{pattern}.*nothing was published")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("label", ["fit: reading", "apply"])
def test_stabilize_publishes_nothing_of_a_run_that_changes_between_passes(
    runs: tuple[es.Run, es.Run], tmp_path: Path, between: Any, change: str, label: str
) -> None:
    write_anew, pattern = CHANGES[change]
    with refused("(?:)" if change == "removed" else pattern), between(label)(lambda: write_anew(runs[0])):
        es.stabilize(runs[0], tmp_path / "out.zarr", reference=runs[1])
    assert not (tmp_path / "out.zarr").exists()
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("verb", ["fit", "apply", "moments", "evaluate", "create_run"])
def test_a_run_that_changes_within_a_pass_is_told(
    runs: tuple[es.Run, es.Run], tmp_path: Path, within: When, verb: str, change: str
) -> None:
    run, reference = runs
    transform = es.fit(T, W, reference=B)
    calls: dict[str, Callable[[], Any]] = {
        "fit": lambda: es.fit(run, reference=reference),
        "apply": lambda: es.apply(transform, run, tmp_path / "out.zarr"),
        "moments": lambda: es.moments(run.items, reference=reference),
        "evaluate": lambda: es.evaluate(reference, run),
        "create_run": lambda: es.create_run(tmp_path / "out.zarr", run.items, run.users, chunk_rows=16),
    }
    with refused("(?:)"), within(lambda: CHANGES[change][0](run)):
        calls[verb]()
    assert not (tmp_path / "out.zarr").exists()
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("label", "options"),
    [("fit: reading", {"unit_rows": True}), ("fit: unit rows", {"unit_rows": True}), ("fit: reading", {})],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_fit_tells_a_change_of_the_run_and_of_the_reference(
    runs: tuple[es.Run, es.Run], between: Any, label: str, options: dict[str, Any], which: int
) -> None:
    with refused("(?:)"), between(label)(lambda: written_in_place(runs[which])):
        es.fit(runs[0], reference=runs[1], **options)


def test_a_second_read_of_an_ill_conditioned_table_is_of_the_first_ones_rows(make_run: MakeRun, between: Any) -> None:
    run = make_run("in", T * [1, 1e-4, 1e-6, 1e-6] @ A[:4], W)
    with refused("chunk 3 had the digest"), between("fit: reading")(lambda: with_its_old_time(run)):
        es.fit(run)


def test_digests_tell_what_the_time_of_a_file_does_not(
    runs: tuple[es.Run, es.Run], tmp_path: Path, between: Any
) -> None:
    with refused("chunk 3 had the digest"), between("fit: reading")(lambda: with_its_old_time(runs[0])):
        es.stabilize(runs[0], tmp_path / "out.zarr", reference=runs[1])
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_evaluate_tells_a_change_between_its_passes(runs: tuple[es.Run, es.Run], between: Any, which: int) -> None:
    with refused("(?:)"), between("evaluate: cosines")(lambda: replaced(runs[which])):
        es.evaluate(*runs)


def test_the_command_line_ends_with_2(
    runs: tuple[es.Run, es.Run], tmp_path: Path, between: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with between("fit: reading")(lambda: replaced(runs[0])), pytest.raises(SystemExit) as ended:
        main(["stabilize", str(runs[0].path), str(tmp_path / "out.zarr"), "--reference", str(runs[1].path)])
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in told if line.startswith("error: ")]) == 1
    assert f"{runs[0].path}/items changed: chunk file " in told[-1]
    assert not (tmp_path / "out.zarr").exists()


# --- Inputs whose place tells nothing


def in_memory(texts: bool) -> tuple[Any, Change, Change]:
    rows, ids = T.copy(), _ids(texts)
    return es.table(rows, ids=ids), lambda: rows.__imul__(2), lambda: ids.__setitem__(slice(0, 2), ids[1::-1].copy())


def dask_arrays(texts: bool) -> tuple[Any, Change, Change]:
    rows, ids = T.copy(), _ids(texts)
    lazy = [da.map_blocks(lambda block, of=of: of[slice(*block[0])], _blocks(), dtype=of.dtype,
                          chunks=((16, 16, 16, 12), *((n,) for n in of.shape[1:])),
                          **({"drop_axis": 1} if of.ndim == 1 else {})) for of in (rows, ids)]  # fmt: skip
    return (
        es.table(lazy[0], ids=lazy[1]),
        lambda: rows.__imul__(2),
        lambda: ids.__setitem__(slice(0, 2), ids[1::-1].copy()),
    )


def _blocks() -> Any:
    """One row per block that says which rows are its."""
    cuts = np.array([[0, 16], [16, 32], [32, 48], [48, 60]])
    return da.from_array(cuts, chunks=(1, 2))


def _ids(texts: bool) -> Any:
    return np.array([f"item-{i}" for i in IDS], object) if texts else IDS.copy()


def in_an_object_store(texts: bool) -> tuple[Any, Change, Change]:
    run = es.create_run(store := MemoryStore(), T, item_ids=_ids(texts), chunk_rows=16)
    group = zarr.open_group(store, mode="r+")
    first = _ids(texts)[1::-1]
    return (
        run,
        lambda: group["items/vectors"].__setitem__(slice(50, 60), 2 * T[50:]),
        lambda: group["items/id"].__setitem__(slice(0, 2), first),
    )


MADE = {"memory": in_memory, "dask": dask_arrays, "object store": in_an_object_store}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("texts", [False, True], ids=["int64", "texts"])
@pytest.mark.parametrize("join", ["whole", "partitioned"])
def test_digests_tell_where_no_place_does(
    tmp_path: Path, make_run: MakeRun, between: Any, monkeypatch: pytest.MonkeyPatch, made: str, texts: bool, join: str
) -> None:
    order = np.random.default_rng(0).permutation(60)
    reference = make_run("reference", B[order], item_ids=_ids(texts)[order])
    options: dict[str, Any] = {"reference": reference}
    if join == "partitioned":
        monkeypatch.setattr(pairing, "_in_memory", lambda *_: None)
    given, other_rows, swap_ids = MADE[made](texts)
    es.stabilize(given, tmp_path / "whole.zarr", **options)
    with refused("they had the digest"), between("fit: reading")(swap_ids):
        es.stabilize(given, tmp_path / "out.zarr", **options)
    swap_ids()
    with refused(r"chunk \d had the digest"), between("fit: reading")(other_rows):
        es.stabilize(given, tmp_path / "out.zarr", **options)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("name", ["vectors", "id"])
def test_a_listing_tells_what_changes_within_a_pass_over_an_object_store(within: When, name: str) -> None:
    url = f"memory://{uuid.uuid4().hex}.zarr"
    es.create_run(url, T, item_ids=IDS, chunk_rows=16)
    es.fit(url, reference=B, keep="geometry")

    def change() -> None:
        array = zarr.open_group(url, mode="r+")[f"items/{name}"]
        array[:16] = array[:16]

    with refused(f"chunk c/0(/0)? of .*items/{name} was written anew"), within(change):
        es.fit(url, reference=es.table(B, ids=IDS))


def test_a_dataset_of_xarray_that_is_written_meanwhile(
    tmp_path: Path, runs: tuple[es.Run, es.Run], between: Any
) -> None:
    opened = xr.open_zarr(runs[0].path, group="items")
    es.stabilize(opened.vectors, tmp_path / "whole.zarr", reference=runs[1])
    for change, pattern in ((other_ids, "they had the digest"), (written_in_place, r"chunk \d had the digest")):
        with refused(pattern), between("fit: reading")(lambda change=change: change(runs[0])):
            es.stabilize(opened.vectors, tmp_path / "out.zarr", reference=runs[1])
    assert not (tmp_path / "out.zarr").exists()


def test_rows_that_are_computed_anew_must_be_equal_each_time(tmp_path: Path) -> None:
    calls = iter(range(1000))
    lazy = da.map_blocks(lambda block: block + next(calls), da.from_array(T, chunks=(16, 4)), dtype=float)
    with refused("computed anew at every read must be equal"):
        es.stabilize(lazy, tmp_path / "out.zarr", reference=B)


@pytest.mark.parametrize("kind", ["zarr 2", "sharded", "zstd"])
def test_arrays_by_strangers(tmp_path: Path, between: Any, kind: str) -> None:
    options: dict[str, Any] = {
        "zarr 2": {"zarr_format": 2, "compressors": None},
        "sharded": {"shards": (32, 4), "chunk_rows": 16},
        "zstd": {"compressors": zarr.codecs.ZstdCodec()},
    }[kind]
    path = foreign_run(tmp_path / "in.zarr", {"items": (T, IDS)}, **options)

    def in_place() -> None:
        zarr.open_group(path, mode="r+")["items/vectors"][50:] = 1.0

    with refused("chunk"), between("apply")(in_place):
        es.stabilize(path, tmp_path / "out.zarr", reference=B)
    assert not (tmp_path / "out.zarr").exists()


# --- A series


@pytest.mark.parametrize("change", ["replaced", "in place", "ids"])
@pytest.mark.parametrize("label", ["fit: reading", "apply", "verify"])
def test_a_series_publishes_nothing_and_then_the_run_as_it_is(
    runs: tuple[es.Run, es.Run], tmp_path: Path, between: Any, change: str, label: str
) -> None:
    series = es.Series.init(tmp_path / "series")
    series.add(runs[1])
    before = {name for name in snapshot(tmp_path / "series") if name.startswith(("runs", "versions", "candidates"))}
    with refused("(?:)"), between(label)(lambda: CHANGES[change][0](runs[0])):
        series.add(runs[0].path, accept="all changes are wanted here")
    after = {name for name in snapshot(tmp_path / "series") if name.startswith(("runs", "versions", "candidates"))}
    assert {name for name in after if "/." not in name} == before
    series.add(runs[0].path, accept="all changes are wanted here")
    series.verify()
    assert len(series.log().versions) == 2


# --- What is no change


def test_a_run_is_overwritten_by_what_is_made_of_it(runs: tuple[es.Run, es.Run]) -> None:
    es.stabilize(runs[0], runs[0].path, reference=runs[1], overwrite=True)
    es.stabilize(runs[0].path, runs[0].path, reference=runs[1], overwrite=True)


def test_attributes_of_the_run_and_files_beside_it_are_no_input(
    runs: tuple[es.Run, es.Run], tmp_path: Path, between: Any
) -> None:
    def annotate() -> None:
        zarr.open_group(runs[0].path, mode="r+").attrs["note"] = "seen"
        (Path(runs[0].path) / "items" / "README").write_text("mine")

    with between("fit: reading")(annotate):
        es.stabilize(runs[0], tmp_path / "out.zarr", reference=runs[1])


def test_what_changes_after_a_verb_is_no_error(runs: tuple[es.Run, es.Run], tmp_path: Path) -> None:
    transform = es.fit(runs[0], reference=runs[1])
    replaced(runs[0])
    es.apply(transform, runs[0].path, tmp_path / "out.zarr")


def test_a_run_that_was_written_anew_in_another_shape_since_it_was_opened(
    runs: tuple[es.Run, es.Run],
) -> None:
    es.create_run(runs[0].path, T[:40], W, item_ids=IDS[:40], user_ids=USER_IDS, chunk_rows=16, overwrite=True)
    with refused("another shape than when it was opened; open it again"):
        es.fit(runs[0], reference=runs[1])
    es.fit(runs[0].path, reference=runs[1])
