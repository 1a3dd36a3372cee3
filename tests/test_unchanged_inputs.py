"""An input that is written while a verb reads it ends in one error, and nothing is published."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr
from changes import (
    CHANGES,
    IDS,
    USER_IDS,
    A,
    B,
    T,
    W,
    refused,
    replaced,
    with_its_old_time,
    written_in_place,
)
from oracle import hidden, snapshot

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.verbs import report as reporting

pytestmark = pytest.mark.usefixtures("small_tasks")
MakeRun = Callable[..., es.Run]
Change = Callable[[], None]
When = Callable[[Change], contextlib.AbstractContextManager[None]]


@pytest.fixture
def runs(make_run: MakeRun) -> tuple[es.Run, es.Run]:
    options = {"item_ids": IDS, "user_ids": USER_IDS}
    return make_run("in", T, W, **options), make_run("reference", B, A, **options)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("label", ["fit: reading", "apply"])
def test_stabilize_publishes_nothing_of_a_run_that_changes_between_passes(
    runs: tuple[es.Run, es.Run], tmp_path: Path, between: Any, change: str, label: str
) -> None:
    write_anew, pattern = CHANGES[change]
    with (
        refused("(?:)" if change == "removed" else pattern),
        between(label)(lambda: write_anew(runs[0])),
    ):
        es.stabilize(runs[0], tmp_path / "out.zarr", reference=runs[1])
    assert not (tmp_path / "out.zarr").exists()
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "verb", ["fit", "apply", "moments", "evaluate", "create_run", "compress", "search", "export"]
)
def test_a_run_that_changes_within_a_pass_is_an_error(
    runs: tuple[es.Run, es.Run], tmp_path: Path, within: When, verb: str, change: str
) -> None:
    run, reference = runs
    transform = es.fit(T, W, reference=B)
    calls: dict[str, Callable[[], Any]] = {
        "fit": lambda: es.fit(run, reference=reference),
        "apply": lambda: es.apply(transform, run, tmp_path / "out.zarr"),
        "moments": lambda: es.moments(run.items, reference=reference),
        "evaluate": lambda: es.evaluate(reference, run),
        "create_run": lambda: es.create_run(
            tmp_path / "out.zarr", run.items, run.users, chunk_rows=16
        ),
        "compress": lambda: es.compress(run, tmp_path / "out.zarr"),
        "export": lambda: es.export(run, tmp_path / "out.zarr", format="npy", rows_per_file=16),
        "search": lambda: es.search(W, run, 3),
    }
    with refused("(?:)"), within(lambda: CHANGES[change][0](run)):
        calls[verb]()
    assert not (tmp_path / "out.zarr").exists()
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("label", "options"),
    [
        ("fit: reading", {"unit_rows": True}),
        ("fit: unit rows", {"unit_rows": True}),
        ("fit: reading", {}),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_fit_tells_a_change_of_the_run_and_of_the_reference(
    runs: tuple[es.Run, es.Run], between: Any, label: str, options: dict[str, Any], which: int
) -> None:
    with refused("(?:)"), between(label)(lambda: written_in_place(runs[which])):
        es.fit(runs[0], reference=runs[1], **options)


def test_a_second_read_of_an_ill_conditioned_table_is_of_the_first_ones_rows(
    make_run: MakeRun, between: Any
) -> None:
    run = make_run("in", T * [1, 1e-4, 1e-6, 1e-6] @ A[:4], W)
    with refused("chunk 3 had the digest"), between("fit: reading")(lambda: with_its_old_time(run)):
        es.fit(run)


def test_digests_tell_what_the_time_of_a_file_does_not(
    runs: tuple[es.Run, es.Run], tmp_path: Path, between: Any
) -> None:
    with (
        refused("chunk 3 had the digest"),
        between("fit: reading")(lambda: with_its_old_time(runs[0])),
    ):
        es.stabilize(runs[0], tmp_path / "out.zarr", reference=runs[1])
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_evaluate_tells_a_change_between_its_passes(
    runs: tuple[es.Run, es.Run], between: Any, which: int
) -> None:
    with refused("(?:)"), between("evaluate: matched rows")(lambda: replaced(runs[which])):
        es.evaluate(*runs)


@pytest.mark.parametrize("which", [0, 1])
def test_a_report_tells_a_change_after_what_evaluate_measured(
    runs: tuple[es.Run, es.Run], monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    measured = reporting.evaluate

    def then_replaced(*given: Any, **options: Any) -> Any:
        result = measured(*given, **options)
        replaced(runs[which])
        return result

    monkeypatch.setattr(reporting, "evaluate", then_replaced)
    with refused("(?:)"):
        es.report(*runs)


def test_the_command_line_ends_with_2(
    runs: tuple[es.Run, es.Run], tmp_path: Path, between: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with between("fit: reading")(lambda: replaced(runs[0])), pytest.raises(SystemExit) as ended:
        main(
            [
                "stabilize",
                str(runs[0].path),
                str(tmp_path / "out.zarr"),
                "--reference",
                str(runs[1].path),
            ]
        )
    assert ended.value.code == 2
    output = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in output if line.startswith("error: ")]) == 1
    assert f"{runs[0].path}/items changed: chunk file " in output[-1]
    assert not (tmp_path / "out.zarr").exists()


# --- A series


@pytest.mark.parametrize("change", ["replaced", "in place", "ids"])
@pytest.mark.parametrize("label", ["fit: reading", "apply", "verify"])
def test_a_series_publishes_nothing_and_then_the_run_as_it_is(
    runs: tuple[es.Run, es.Run], tmp_path: Path, between: Any, change: str, label: str
) -> None:
    series = es.Series.init(tmp_path / "series")
    series.add(runs[1])
    before = {
        name
        for name in snapshot(tmp_path / "series")
        if name.startswith(("runs", "versions", "candidates"))
    }
    with refused("(?:)"), between(label)(lambda: CHANGES[change][0](runs[0])):
        series.add(runs[0].path, accept="all changes are wanted here")
    after = {
        name
        for name in snapshot(tmp_path / "series")
        if name.startswith(("runs", "versions", "candidates"))
    }
    assert {name for name in after if "/." not in name} == before
    series.add(runs[0].path, accept="all changes are wanted here")
    series.verify()
    assert len(series.log().versions) == 2


# --- What is no change


def test_a_run_is_overwritten_by_what_is_made_of_it(runs: tuple[es.Run, es.Run]) -> None:
    es.stabilize(runs[0], runs[0].path, reference=runs[1], overwrite=True)
    es.stabilize(runs[0].path, runs[0].path, reference=runs[1], overwrite=True)


def test_attributes_of_the_run_and_files_next_to_it_are_no_input(
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
    es.create_run(
        runs[0].path, T[:40], W, item_ids=IDS[:40], user_ids=USER_IDS, chunk_rows=16, overwrite=True
    )
    with refused("another shape than when it was opened; open it again"):
        es.fit(runs[0], reference=runs[1])
    es.fit(runs[0].path, reference=runs[1])
