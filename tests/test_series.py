"""What a series promises: versions that never change, a head that can go back, runs that are
aligned where the policy says.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import (
    Stop,
    assert_close,
    chunk_file,
    data_of,
    refactored,
    snapshot,
    stop_at,
    vectors_of,
    world,
)

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish import candidate
from dask_embstab.series.publish import publish as publishing

MakeRun = Callable[..., es.Run]
Refused = Callable[..., Any]
IDS: dict[str, Any] = {"item_ids": np.arange(60), "user_ids": [f"u{i}" for i in range(90)]}


def drifting(day: int, size: float = 0.1) -> tuple[Any, Any]:
    """Items and users of a world that changes a little every day, in other axes every day."""
    T, W = world(0)
    for past in range(1, day + 1):
        U, V = world(past)
        T, W = T + size * U, W + size * V
    return refactored(T, W, day) if day else (T, W)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five days, the first three of them in a series."""
    folder = tmp_path_factory.mktemp("template")
    series = es.Series.init(folder / "series", policy="previous")
    for day in range(5):
        path = folder / f"2026-01-0{day + 1}.zarr"
        es.create_run(path, *drifting(day), **IDS, chunk_rows=16)
        assert day > 2 or series.add(path).published
    return folder


@pytest.fixture
def days(template: Path, tmp_path: Path) -> list[es.Run]:
    """Five days, as training left them."""
    names = [f"2026-01-0{day + 1}.zarr" for day in range(5)]
    return [es.open_run(shutil.copytree(template / name, tmp_path / name)) for name in names]


@pytest.fixture
def series(template: Path, tmp_path: Path) -> es.Series:
    """A series of the first three days."""
    return es.Series(shutil.copytree(template / "series", tmp_path / "series"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """``run("log", ...)`` gives the exit code, the JSON object and stderr of ``embstab series log
    ... --json``.
    """

    def call(*arguments: Any) -> tuple[int, Any, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(
                ["series", *(str(argument) for argument in arguments), "--json"],
                prog_name="embstab",
            )
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(out) if out else None, err

    return call


# --- publishing


def test_add_is_stabilize_on_the_head(
    series: es.Series, days: list[es.Run], tmp_path: Path
) -> None:
    first = es.stabilize(days[0], tmp_path / "a.zarr")
    second = es.stabilize(days[1], tmp_path / "b.zarr", reference=first)
    for number, by_hand in ((1, first), (2, second)):
        for key in ("items", "users"):
            np.testing.assert_array_equal(
                vectors_of(series.open(number), key), vectors_of(by_hand, key)
            )
    assert [
        (v.run, v.parent, v.reference, v.state, v.policy, v.accepted) for v in series.log().versions
    ] == [
        ("2026-01-01", None, None, "live", "previous", None),
        ("2026-01-02", 1, 1, "live", "previous", None),
        ("2026-01-03", 2, 2, "live", "previous", None),
    ]


def test_a_version_says_what_was_read_and_written(series: es.Series, days: list[es.Run]) -> None:
    version = series.log().version(2)
    place = Path(series.open(2).path)
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert files == set(version.digests["chunks"]) | set(version.digests["metadata"])
    for name, crc in version.digests["chunks"].items():
        assert (place / name).read_bytes()[-4:] == crc.to_bytes(4, "little"), (
            "the checksum that is stored already"
        )
    stored = [chunk_file(days[1].path, "items", chunk).read_bytes()[-4:] for chunk in range(4)]
    assert [
        crc.to_bytes(4, "little") for crc in version.inputs["tables"]["items"]["digests"]
    ] == stored
    assert Version.decoded(version.encoded(), "", version.store).to_dict() == version.to_dict()


def test_the_first_policy_aligns_every_run_to_the_first(tmp_path: Path, days: list[es.Run]) -> None:
    series = es.Series.init(
        tmp_path / "frozen", policy="first", balance="gramians", align_on="both"
    )
    for day in days[:3]:
        series.add(day)
    by_hand = es.stabilize(days[2], tmp_path / "a.zarr", reference=series.open(1), align_on="both")
    np.testing.assert_array_equal(vectors_of(series.open()), vectors_of(by_hand))
    assert by_hand.transform.diagnostics["balance"] == "gramians"
    assert [v.figures["chain_minus_first"] for v in series.log().versions] == [None] * 3


def test_the_first_run_may_be_left_raw(tmp_path: Path, days: list[es.Run]) -> None:
    series = es.Series.init(tmp_path / "raw", policy="first", first_run="raw", keep="geometry")
    for day in days[:2]:
        series.add(day)
    np.testing.assert_array_equal(vectors_of(series.open(1), "users"), vectors_of(days[0], "users"))
    transformed, raw = vectors_of(series.open(2)), vectors_of(days[1])
    assert_close(transformed @ transformed.T, raw @ raw.T, 1e-12)


def test_the_same_run_twice_is_a_no_op_that_says_so(
    series: es.Series, days: list[es.Run], tmp_path: Path
) -> None:
    before = snapshot(tmp_path / "series")
    again = series.add(days[1].path)
    assert (again.published, again.version.version) == (False, 2)
    assert "published already as version 2" in again.note
    moved = shutil.copytree(days[1].path, tmp_path / "elsewhere")
    assert not series.add(moved).published, "the content counts, not the place"
    assert snapshot(tmp_path / "series") == before


@pytest.mark.parametrize("what", ["items", "users", "ids", "order of ids"])
def test_the_same_name_with_other_content_is_an_error(
    series: es.Series, tmp_path: Path, refused: Refused, what: str
) -> None:
    T, W = drifting(1)
    ids = dict(IDS)
    if what == "items":
        T[7, 2] += 1e-9
    elif what == "users":
        W[80, 0] += 1e-9
    elif what == "ids":
        ids["user_ids"] = [*IDS["user_ids"][:-1], "another"]
    else:
        ids["item_ids"] = IDS["item_ids"][::-1]
    other = es.create_run(tmp_path / "other.zarr", T, W, name="2026-01-02", chunk_rows=16, **ids)
    with refused(es.InputError, "published already .version 2.*other content", "another name"):
        series.add(other)
    assert series.add(other, name="2026-01-02b", accept="a test").version.run == "2026-01-02b"


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "x" * 201, "a\nb"])
def test_names_that_are_no_folders(
    series: es.Series, days: list[es.Run], refused: Refused, name: str
) -> None:
    if name:
        with refused(es.InputError, r"; name= gives it another"):
            series.add(days[3], name=name)


@pytest.mark.parametrize("ids", [np.arange(60) + 57, np.arange(60) + 1000])
def test_too_few_matched_rows_are_a_hold(
    series: es.Series, make_run: MakeRun, refused: Refused, run: Any, tmp_path: Path, ids: Any
) -> None:
    stranger = make_run("stranger", *drifting(3), item_ids=ids)
    with refused(es.HoldError, "stranger is held and not published", "shared|share no id"):
        series.add(stranger)
    code, out, err = run("add", tmp_path / "series", stranger.path)
    assert (code, out["published"]) == (3, False)
    assert [(v["gate"], v["verdict"]) for v in out["verdicts"]] == [("matched", "hold")]
    assert err.startswith("error: stranger is held")
    twice = make_run("twice", *drifting(3), item_ids=np.arange(60) // 2)
    assert run("add", tmp_path / "series", twice.path)[0] == 2, (
        "duplicated ids are bad input, and no hold"
    )


def test_a_publisher_that_was_slower_gets_a_retry_error(
    series: es.Series, days: list[es.Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between its look at the log and its publish, another publishes."""
    original = publishing.verify

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(publishing, "verify", original)
        es.Series(tmp_path / "series").add(days[4])
        return original(*arguments)

    monkeypatch.setattr(publishing, "verify", meanwhile)
    with pytest.raises(
        es.RetryError, match=r"version 4 was published by another process.*call again"
    ):
        series.add(days[3])
    assert series.head().run == "2026-01-05"
    assert series.add(days[3]).version.reference == 4, "fitted anew, on the new head"
    monkeypatch.setattr(publishing, "verify", meanwhile)
    assert not series.add(days[3], retries=1).published


def test_two_at_work_on_one_name(
    series: es.Series, days: list[es.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = publishing.verify, []

    def meanwhile(*arguments: Any) -> Any:
        with pytest.raises(es.RetryError, match="at work on 2026-01-04"):
            series.add(days[3])
        seen.append(series.gc(grace=0).removed)
        return original(*arguments)

    monkeypatch.setattr(publishing, "verify", meanwhile)
    assert series.add(days[3]).published
    assert seen == [[]], "gc leaves alone what is being published"


def test_an_input_that_changes_while_it_is_read(
    series: es.Series, days: list[es.Run], make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, other = publishing.transform_run, make_run("other", *drifting(4), **IDS)

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        shutil.rmtree(days[3].path)
        shutil.copytree(other.path, days[3].path)
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "transform_run", meanwhile)
        with pytest.raises(es.InputChangedError, match="items changed: chunk 0 had the digest"):
            series.add(days[3].path)
    assert series.head().version == 3
    series.add(days[3].path, name="2026-01-04")
    np.testing.assert_array_equal(vectors_of(series.open()).shape, (60, 4))
    assert not series.verify().damage


def test_a_scheduler_that_is_lost_loses_nothing_that_was_written(
    series: es.Series, days: list[es.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise es.RetryError("the scheduler went away")

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "verify", lost)
        with pytest.raises(es.RetryError, match="went away"):
            series.add(days[3])
    monkeypatch.setattr(candidate, "fit_tables", lambda *_: pytest.fail("it is fitted already"))
    monkeypatch.setattr(
        publishing, "transform_run", lambda *_, **__: pytest.fail("it is written already")
    )
    assert series.add(days[3]).published


@pytest.mark.usefixtures("small_tasks")
def test_an_interrupted_publish_goes_on_with_the_same_transform(
    series: es.Series,
    days: list[es.Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writing: Any,
) -> None:
    undisturbed = es.Series(shutil.copytree(tmp_path / "series", tmp_path / "undisturbed"))
    undisturbed.add(days[3])
    with writing(stop_at(5)), pytest.raises(Stop):
        series.add(days[3])
    assert series.head().version == 3
    written: list[int] = []
    with monkeypatch.context() as patched, writing(written.append):
        patched.setattr(candidate, "fit_tables", lambda *_: pytest.fail("it is fitted already"))
        assert series.add(days[3]).published
    assert len(written) == 10 - 4, "chunks that are there are not written again"
    assert data_of(series.open().path) == data_of(undisturbed.open().path)
    assert series.head().digests == undisturbed.head().digests
    with writing(stop_at(5)), pytest.raises(Stop):
        series.add(days[4])
    series.rollback(1)
    assert series.add(days[4]).version.reference == 5, "another reference, another fit"


def test_what_a_lost_worker_left_is_not_published(
    series: es.Series, days: list[es.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, written = publishing.transform_run, []

    def align(*arguments: Any, **options: Any) -> Any:
        transformed = original(*arguments, **options)
        written.append(transformed)
        (Path(transformed.path) / "items/vectors/c/1/0.77-88.partial").write_bytes(b"half")
        return transformed

    monkeypatch.setattr(publishing, "transform_run", align)
    version = series.add(days[3]).version
    assert len(written) == 1
    assert not [name for name in version.digests["chunks"] if "partial" in name]
    assert not list(Path(series.open().path).rglob("*.partial"))


def test_the_log_for_a_person(series: es.Series, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["series", "log", str(series.store.place(""))])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert re.search(
        r"version 3, kind publish, run 2026-01-03.*parent 2.*days_since_previous 1", lines[4]
    )
    assert not any("{" in line for line in lines), "what is nested is for --json"


# --- users alone, models, pins


def test_a_later_batch_is_transformed_with_its_model_s_transform(
    series: es.Series, make_run: MakeRun, run: Any, tmp_path: Path, refused: Refused
) -> None:
    _, W = drifting(1)
    late = make_run("late", None, W[40:60], user_ids=[f"late-{i}" for i in range(20)])
    transformed = series.apply(late, tmp_path / "a.zarr", model="2026-01-02")
    np.testing.assert_array_equal(
        vectors_of(transformed, "users"), vectors_of(series.open(2), "users")[40:60]
    )
    code, output, _ = run(
        "apply", tmp_path / "series", late.path, tmp_path / "b.zarr", "--version", 2
    )
    assert (code, output["users"]["rows"]) == (0, 20)
    assert data_of(tmp_path / "b.zarr") == data_of(tmp_path / "a.zarr")
    head = series.transform_for()
    np.testing.assert_array_equal(head.items, series.transform_for(model="2026-01-03").items)
    np.testing.assert_array_equal(head.items, series.transform_for(version=3).items)
    with refused(es.InputError, "must belong to the model 'v9'.*2026-01-03"):
        series.transform_for(model="v9")
    with refused(es.InputError, "both came"):
        series.transform_for(model="v9", version=1)
    with refused(es.InputError, "overlap"):
        series.apply(late, tmp_path / "series" / "runs" / "late.zarr")


def test_gc_takes_what_no_version_needs_and_leaves_pins(
    series: es.Series, days: list[es.Run], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, before = tmp_path / "series", snapshot(tmp_path / "series")
    with monkeypatch.context() as patched:
        patched.setattr(
            publishing, "create_version", lambda *_: (_ for _ in ()).throw(OSError("the disk"))
        )
        with pytest.raises(OSError, match="the disk"):
            series.add(days[3])
    (place / "runs" / "notes").mkdir()
    assert (place / "runs" / "2026-01-04.zarr").exists()
    (place / "pins" / "reader.json").write_text('{"run": "2026-01-04"}')
    (digests,) = (f"digests/{path.name}" for path in (place / "digests").glob("2026-01-04.*"))
    result = run("gc", place)[1]
    assert result["removed"] == []
    assert result["left"].keys() == {
        digests,
        "candidates/2026-01-04/candidate.npz",
        "runs/2026-01-04.zarr",
    }
    result = run("gc", place, "--grace", "0")[1]
    assert result["removed"] == [digests, "candidates/2026-01-04/candidate.npz"]
    assert result["left"] == {"runs/2026-01-04.zarr": "a reader has pinned it"}
    with series.pin(2) as pinned:
        assert len(list((place / "pins").iterdir())) == 2
        assert pinned.name == "2026-01-02"
    assert run("gc", place, "--pin-age", "0s", "--grace", "0s")[1]["removed"] == [
        "pins/reader.json",
        "runs/2026-01-04.zarr",
    ]
    (place / "runs" / "notes").rmdir()
    assert [failed["run"] for failed in series.status()["failed"]] == ["2026-01-04"]
    assert {
        name: data for name, data in snapshot(place).items() if not name.startswith("attempts/")
    } == before
    assert run("gc", place, "--pin-age", "soon")[0] == 2
