"""Every delivery that a series refuses is shown until a later one of its name, or an
acknowledgement.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from oracle import world

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.publish import attempts
from dask_embstab.series.publish.attempts import attempts_in

IDS: dict[str, Any] = {"item_ids": np.arange(60), "user_ids": np.arange(90)}


@pytest.fixture
def series(tmp_path: Path) -> es.Series:
    made = es.Series.init(tmp_path / "series", gates=dict.fromkeys(THRESHOLDS))
    made.add(es.create_run(tmp_path / "first", *world(0), **IDS))
    return made


def with_nan(place: Path) -> None:
    T, W = world(1)
    T[3] = np.nan
    es.create_run(place, T, W, **IDS)


def damaged(place: Path) -> None:
    es.create_run(place, *world(1), **IDS)
    (place / "items" / "vectors" / "c" / "0" / "0").write_bytes(b"")


REFUSED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "NaN": (with_nan, "held", "HoldError"),
    "other ids": (
        lambda place: es.create_run(
            place, *world(1), item_ids=np.arange(60) + 999, user_ids=np.arange(90)
        ),
        "held",
        "HoldError",
    ),
    "items alone": (
        lambda place: es.create_run(place, world(1)[0], item_ids=np.arange(60)),
        "held",
        "HoldError",
    ),
    "repeated ids": (
        lambda place: es.create_run(
            place, *world(1), item_ids=np.r_[0, np.arange(59)], user_ids=np.arange(90)
        ),
        "failed",
        "IdError",
    ),
    "a wider run": (
        lambda place: es.create_run(place, *world(1, d=6), **IDS),
        "failed",
        "InputError",
    ),
    "damage": (damaged, "failed", "DamageError"),
    "nothing": (lambda _: None, "failed", "NotARunError"),
    "no run": (lambda place: place.mkdir(), "failed", "NotARunError"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_delivery_is_shown_until_it_is_delivered(
    series: es.Series, tmp_path: Path, what: str
) -> None:
    place = tmp_path / "next"
    deliver, outcome, error = REFUSED[what]
    deliver(place)
    with pytest.raises(es.EmbstabError) as raised:
        series.add(place)
    status = series.status()
    assert not status["well"]
    assert [result["run"] for result in status[outcome]] == ["next"]
    assert not status["held" if outcome == "failed" else "failed"]
    if outcome == "held":
        assert status["held"][0]["message"] == str(raised.value)
        assert str(raised.value)[:100] in status["lines"][2]
    if outcome == "failed":
        shown = status["failed"][0]
        assert (shown["error"], shown["message"], shown["source"]) == (
            error,
            str(raised.value),
            str(place),
        )
        assert str(raised.value)[:100] in status["lines"][2]
    assert f'embstab_series_{outcome}_runs{{series="series"}} 1.0' in series.metrics()
    ended = CliRunner().invoke(main, ["series", "status", str(tmp_path / "series"), "--json"])
    assert (ended.exit_code, json.loads(ended.stdout)["well"]) == (3, False)
    es.create_run(tmp_path / "good", *world(1), **IDS)
    assert series.add(tmp_path / "good", name="next").published
    assert series.status()["well"]
    assert not attempts_in(series.store)
    assert CliRunner().invoke(main, ["series", "status", str(tmp_path / "series")]).exit_code == 0


def test_an_acknowledged_delivery_is_shown_no_more_and_the_next_one_is(
    series: es.Series, tmp_path: Path
) -> None:
    with_nan(tmp_path / "next")
    place = str(tmp_path / "series")
    for _ in range(2):
        with pytest.raises(es.HoldError):
            series.add(tmp_path / "next")
        assert [held["run"] for held in series.status()["held"]] == ["next"]
        arguments = ["series", "acknowledge", place, "next", "--reason", "they know", "--json"]
        ended = CliRunner().invoke(main, arguments)
        assert json.loads(ended.stdout)["outcome"] == "held"
        assert series.status()["well"]
        assert 'embstab_series_held_runs{series="series"} 0.0' in series.metrics()
        assert attempts_in(series.store)["next"].acknowledged == "they know"
    with pytest.raises(es.InputError, match=r"'next' is not; these are: none$"):
        series.acknowledge("next")


def test_what_a_gate_holds_can_be_acknowledged_and_still_be_accepted(
    series: es.Series, tmp_path: Path
) -> None:
    series.change(gates={"matched": 2.0})
    es.create_run(tmp_path / "next", *world(1), **IDS)
    with pytest.raises(es.HoldError):
        series.add(tmp_path / "next")
    series.acknowledge("next")
    assert series.status()["well"]
    assert series.add(tmp_path / "next", accept="known").published


def test_a_published_name_that_comes_again_with_other_content(
    series: es.Series, tmp_path: Path
) -> None:
    es.create_run(tmp_path / "other", *world(1), **IDS)
    with pytest.raises(es.InputError, match="other content"):
        series.add(tmp_path / "other", name="first")
    assert [failed["run"] for failed in series.status()["failed"]] == ["first"]
    assert not series.add(tmp_path / "first").published, "the same once more"
    assert series.status()["well"]


@pytest.mark.parametrize("name", ["a/b", "x" * 300, "\udc80"])
def test_names_that_cannot_be(series: es.Series, tmp_path: Path, name: str) -> None:
    with pytest.raises(es.InputError):
        series.add(tmp_path / "first", name=name)
    assert [failed["run"] for failed in series.status()["failed"]] == [name]
    series.acknowledge(name)
    assert series.status()["well"]


def test_an_interrupted_delivery_is_unfinished(
    series: es.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    es.create_run(tmp_path / "next", *world(1), **IDS)
    for error, outcome in ((KeyboardInterrupt, "interrupted"), (SystemExit, "interrupted")):
        with monkeypatch.context() as patched:

            def strike(*_: Any, error: type[BaseException] = error, **__: Any) -> None:
                raise error

            patched.setattr("dask_embstab.series.publish.publish.fit", strike)
            with pytest.raises(error):
                series.add(tmp_path / "next")
        assert attempts_in(series.store)["next"].outcome == outcome
        assert (series.status()["unfinished"], series.status()["failed"]) == (["next"], [])
    assert CliRunner().invoke(main, ["series", "status", str(tmp_path / "series")]).exit_code == 0
    assert series.add(tmp_path / "next").published


def test_an_interrupt_after_the_publish_leaves_nothing_to_show(
    series: es.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    es.create_run(tmp_path / "next", *world(1), **IDS)

    def strike(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dask_embstab.series.publish.publish.remove_candidate", strike)
        with pytest.raises(KeyboardInterrupt):
            series.add(tmp_path / "next")
    assert series.head().run == "next"
    assert series.status()["well"]


def test_who_is_at_work_on_a_name_keeps_its_record(series: es.Series, tmp_path: Path) -> None:
    with series.store.lock("next"), attempts.attempting(series.store, "next", "elsewhere"):
        with pytest.raises(es.NotARunError):
            series.add(tmp_path / "next")
        assert attempts_in(series.store)["next"].source == "elsewhere"


def test_records_are_bounded(
    series: es.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_MOST", 5)
    for day in range(8):
        with pytest.raises(es.NotARunError):
            series.add(tmp_path / f"none-{day}")
    assert len(attempts_in(series.store)) == 5
    long = "x" * 100_000
    with attempts.recording_refusals(series.store, long, long), pytest.raises(es.InputError):
        raise es.InputError(long)
    assert (
        max(path.stat().st_size for path in (tmp_path / "series" / "attempts").iterdir()) < 20_000
    )


def test_a_series_does_without_its_records(series: es.Series, tmp_path: Path) -> None:
    folder = tmp_path / "series" / "attempts"
    with pytest.raises(es.NotARunError):
        series.add(tmp_path / "none")
    for path in folder.iterdir():
        path.write_text('{"run": 3')
    (folder / ".DS_Store").write_text("x")
    assert series.status()["well"]
    folder.chmod(0o500)
    es.create_run(tmp_path / "next", *world(1), **IDS)
    assert series.add(tmp_path / "next").published


def test_a_source_that_could_not_be_opened_is_forgotten_once_it_is_delivered(
    series: es.Series, tmp_path: Path
) -> None:
    (tmp_path / "latest.zarr").mkdir()
    with pytest.raises(es.NotARunError):
        series.add(tmp_path / "latest.zarr")
    assert [failed["run"] for failed in series.status()["failed"]] == ["latest"]
    (tmp_path / "latest.zarr").rmdir()
    es.create_run(tmp_path / "latest.zarr", *world(1), name="2026-01-02", **IDS)
    assert series.add(tmp_path / "latest.zarr").version.run == "2026-01-02"
    assert series.status()["well"]


@pytest.mark.parametrize(
    "options",
    [{"retries": -1}, {"retries": "x"}, {"width": "x"}, {"weights": {1}}, {"model": "x" * 2000}],
)
def test_options_that_are_refused_are_a_refused_delivery(
    series: es.Series, tmp_path: Path, options: dict[str, Any]
) -> None:
    es.create_run(tmp_path / "next", *world(1), **IDS)
    with pytest.raises(es.InputError) as raised:
        series.add(tmp_path / "next", **options)
    (failed,) = series.status()["failed"]
    assert (failed["run"], failed["error"], failed["message"]) == (
        "next",
        "InputError",
        str(raised.value)[:2000],
    )


def test_a_cluster_that_does_not_answer_is_a_refused_delivery(
    series: es.Series, tmp_path: Path
) -> None:
    run = es.create_run(tmp_path / "next", *world(1), **IDS)
    arguments = [
        "series",
        "add",
        str(tmp_path / "series"),
        str(run.path),
        "--scheduler",
        "tcp://127.0.0.1:99999",
    ]
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 2
    (failed,) = series.status()["failed"]
    assert failed["run"] == "next"
    assert "no Dask scheduler answers" in failed["message"]


def test_what_is_acknowledged_leaves_before_what_is_not(
    series: es.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_MOST", 3)
    for day in range(6):
        with pytest.raises(es.NotARunError):
            series.add(tmp_path / f"none-{day}")
        if day in (1, 2, 3):
            series.acknowledge(f"none-{day}")
    assert {failed["run"] for failed in series.status()["failed"]} == {"none-0", "none-4", "none-5"}
