"""What the gates promise: no real retraining is held, each way in which a delivery goes wrong is, a
hold leaves no trace.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deliveries import BAD, Week
from oracle import vectors_of
from seriesworlds import drifting, gmf, rotation, shop_weeks

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.thresholds import GATES, THRESHOLDS
from dask_embstab.series.log.version_file import Details
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish import candidate
from dask_embstab.series.publish import publish as publishing

N_WEEKS = 5


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gates")
    series = es.Series.init(folder / "series")
    for week in range(N_WEEKS):
        series.add(drifting(week).write(folder / f"week-{week}.zarr"))
    return folder


@pytest.fixture
def series(template: Path, tmp_path: Path) -> es.Series:
    """A series of a few weeks, none of which was held."""
    return es.Series(shutil.copytree(template / "series", tmp_path / "series"))


@pytest.fixture
def place(series: es.Series) -> Path:
    return Path(series.store.place(""))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real trainings in a series."""
    folder = tmp_path_factory.mktemp("real")
    series = es.Series.init(folder / "series")
    for name in ("a", "b"):
        assert series.add(gmf(name).write(folder / f"{name}.zarr")).published
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five real weeks of a web shop; a series of the first three."""
    folder = tmp_path_factory.mktemp("shop")
    runs = shop_weeks(folder, 5)
    series = es.Series.init(folder / "series")
    for run in runs[:3]:
        assert series.add(run).published
    return folder


def holding(error: pytest.ExceptionInfo[es.HoldError]) -> set[str]:
    return {verdict["gate"] for verdict in error.value.verdicts if verdict["verdict"] == "hold"}


def by_gate(version: Version) -> dict[str, Any]:
    return {verdict["gate"]: verdict for verdict in version.verdicts}


# --- what passes


def test_weeks_of_drift_pass_and_say_by_how_much(series: es.Series) -> None:
    first, *later = (by_gate(version) for version in series.log().versions)
    assert list(first) == [gate.name for gate in GATES]
    assert {
        name: v["verdict"] for name, v in first.items() if v["verdict"] != "not applicable"
    } == dict.fromkeys(("delivered", "finite", "scores"), "pass"), (
        "a first run has nothing to be compared with"
    )
    for verdicts in later:
        asked = {name: v["verdict"] for name, v in verdicts.items() if "code" not in name}
        others = ("alignment_change", "query_recall")  # of later runs, and of logged queries
        assert {verdict for name, verdict in asked.items() if name not in others} == {"pass"}
        assert set(verdicts["agreement"]["figures"]) == {"items", "users"}
    assert [v["alignment_change"]["verdict"] for v in later] == ["not applicable"] * 3 + ["pass"]


@pytest.mark.parametrize("d", [4, 64, 256])
@pytest.mark.parametrize("size", [0.02, 0.3])
def test_no_drift_of_any_width_is_held(tmp_path: Path, d: int, size: float) -> None:
    series = es.Series.init(tmp_path / "series")
    for week in range(2 if d > 64 else 5):
        trained = drifting(week, d=d, size=size, n_items=max(300, 5 * d), n_users=max(300, 5 * d))
        assert series.add(trained.write(tmp_path / f"{week}.zarr")).version.accepted is None


def test_a_real_retraining_passes(real: Path, tmp_path: Path) -> None:
    series = es.Series(shutil.copytree(real / "series", tmp_path / "series"))
    added = series.add(gmf("c").write(tmp_path / "c.zarr"))
    assert all(v["verdict"] in ("pass", "not applicable") for v in added.version.verdicts)
    assert by_gate(added.version)["alignment"]["figure"] == pytest.approx(0.26, abs=0.03)


# --- what is held, one by one


@pytest.mark.parametrize("what", BAD)
def test_a_bad_delivery_is_held(series: es.Series, tmp_path: Path, what: str) -> None:
    make, gates = BAD[what]
    bad = make(drifting(N_WEEKS), drifting(N_WEEKS + 1)).write(tmp_path / "bad.zarr")
    before = series.log()
    with pytest.raises(
        es.HoldError, match=r"bad is held and not published: .*accept='reason'"
    ) as error:
        series.add(bad)
    assert holding(error) & gates
    for verdict in error.value.verdicts:
        named = re.search(
            rf"[:;] {verdict['gate']}( of \w+)? \d", str(error.value).replace("-", "")
        )
        assert bool(named) == (verdict["verdict"] == "hold")
    assert series.log() == before


@pytest.mark.parametrize("what", BAD)
def test_a_bad_delivery_of_a_real_model_is_held(real: Path, tmp_path: Path, what: str) -> None:
    make, gates = BAD[what]
    series = es.Series(shutil.copytree(real / "series", tmp_path / "series"))
    with pytest.raises(es.HoldError) as error:
        series.add(make(gmf("c"), gmf("a")).write(tmp_path / "bad.zarr"))
    assert holding(error) & gates


@pytest.mark.parametrize("what", BAD)
def test_a_bad_delivery_of_a_real_week_is_held(shop: Path, tmp_path: Path, what: str) -> None:
    make, gates = BAD[what]
    weeks = [Week.read(path) for path in sorted(shop.glob("*.zarr"))[-2:]]
    series = es.Series(shutil.copytree(shop / "series", tmp_path / "series"))
    with pytest.raises(es.HoldError) as error:
        series.add(make(*weeks).write(tmp_path / "bad.zarr"))
    assert holding(error) & gates


def mirrored(component: int, *keys: str) -> Callable[[es.Transform], es.Transform]:
    def tampered(transform: es.Transform) -> es.Transform:
        signs = np.ones(transform.width)
        signs[component] = -1.0
        return replace(transform, **{key: getattr(transform, key) * signs for key in keys})

    return tampered


TAMPERED: dict[str, tuple[Callable[[es.Transform], es.Transform], set[str]]] = {
    **{f"mirrored in {i}": (mirrored(i, "items", "users"), {"mirror"}) for i in (0, 3, 7)},
    "items mirrored": (mirrored(0, "items"), {"scores"}),
    "users mirrored": (mirrored(0, "users"), {"scores"}),
    "transposed": (
        lambda t: replace(t, items=t.items.T, users=t.users.T),
        {"alignment", "agreement", "rotation"},
    ),
    "items transposed": (lambda t: replace(t, items=t.items.T), {"scores"}),
    "columns in another order": (
        lambda t: replace(t, items=t.items[:, ::-1], users=t.users[:, ::-1]),
        {"agreement"},
    ),
    "all signs": (lambda t: replace(t, items=-t.items, users=-t.users), {"mirror"}),
    "items for users": (lambda t: replace(t, items=t.users, users=t.items), {"norm_ratio"}),
}


@pytest.mark.parametrize("data", ["drifting", pytest.param("real", marks=pytest.mark.long)])
@pytest.mark.parametrize("tampering", TAMPERED)
def test_a_transform_tampered_with_between_fit_and_apply_is_held(
    series: es.Series,
    request: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: str,
    tampering: str,
) -> None:
    tampered, gates = TAMPERED[tampering]
    week = drifting(N_WEEKS)
    if data == "real":
        series = es.Series(
            shutil.copytree(request.getfixturevalue("real") / "series", tmp_path / "real")
        )
        week = gmf("c")
    original = publishing.transform_run
    run = week.write(tmp_path / "run.zarr")
    with monkeypatch.context() as patched:
        patched.setattr(
            publishing,
            "transform_run",
            lambda t, *args, **options: original(tampered(t), *args, **options),
        )
        with pytest.raises(es.HoldError) as error:
            series.add(run)
    assert holding(error) & gates
    assert series.add(run).published, (
        "as it was fitted, it passes: what was tampered with is written anew"
    )


def test_last_week_s_file_under_a_new_name_is_held(
    series: es.Series, template: Path, tmp_path: Path
) -> None:
    again = shutil.copytree(template / "week-3.zarr", tmp_path / "week-5.zarr")
    with pytest.raises(es.HoldError, match=r"delivered 1 \(at most 0\)") as error:
        series.add(again, name="week-5")
    assert holding(error) == {"delivered"}
    week, d = drifting(3), 8
    A = rotation(np.random.default_rng(5), d) * np.linspace(0.5, 2, d)
    same_scores = replace(week, items=week.items @ A, users=week.users @ np.linalg.inv(A).T)
    assert series.add(same_scores.write(tmp_path / "again.zarr")).published


@pytest.mark.parametrize("keep", ["scores", "geometry"])
@pytest.mark.parametrize("key", ["items", "users"])
def test_values_that_are_not_finite_are_held(tmp_path: Path, keep: str, key: str) -> None:
    """Also where the fit does not read them: geometry mode reads no users."""
    series = es.Series.init(tmp_path / "series", keep=keep)
    week = drifting(0)
    series.add(week.write(tmp_path / "a.zarr"))
    getattr(week, key)[7, 1] = np.nan
    with pytest.raises(es.HoldError, match=r"b is held and not published: .*row 7") as error:
        series.add(week.write(tmp_path / "b.zarr"), accept="cannot be accepted")
    assert holding(error) == {"finite"}


def test_models_without_users_are_compared_by_their_items(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series")
    for week in range(3):
        trained = drifting(week)
        Q = rotation(np.random.default_rng(week), 8)
        vectors = drifting(0).items @ Q + 0.02 * trained.items
        es.create_run(tmp_path / f"{week}.zarr", vectors, item_ids=np.arange(len(vectors)))
        assert series.add(tmp_path / f"{week}.zarr").published
    es.create_run(tmp_path / "bad.zarr", vectors[::-1], item_ids=np.arange(len(vectors)))
    with pytest.raises(es.HoldError, match="agreement of items"):
        series.add(tmp_path / "bad.zarr")


# --- what a hold leaves, and what may be said to it


def test_a_hold_on_the_command_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: Any) -> tuple[int, Any, str]:
        with pytest.raises(SystemExit) as ended:
            main(["series", *map(str, arguments), "--json"], prog_name="embstab")
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(out) if out else None, err

    bad = BAD["half the items gone"][0](drifting(N_WEEKS), drifting(0)).write(tmp_path / "bad.zarr")
    code, output, err = run("add", place, bad.path)
    assert (code, output["published"]) == (3, False)
    assert [v["gate"] for v in output["verdicts"] if v["verdict"] == "hold"] == ["rows"]
    assert err == f"error: {output['note']}\n"
    assert run("add", place, bad.path, "--accept", " ")[0] == 2
    code, output, _ = run("add", place, bad.path, "--accept", "half the shop is closed")
    assert (code, output["version"], output["accepted"]) == (
        0,
        N_WEEKS + 1,
        "half the shop is closed",
    )
    assert run("log", place)[1]["versions"][-1]["accepted"] == "half the shop is closed"
    code, output, _ = run("settings", place, "--gate", "rows=0.1", "--gate", "mirror=off")
    assert output["settings"]["gates"] == THRESHOLDS | {"rows": 0.1, "mirror": None}
    for wrong in ("rows", "rows=many", "nonsense=1"):
        assert run("settings", place, "--gate", wrong)[0] == 2


def test_what_is_accepted_is_neither_fitted_nor_written_again(
    series: es.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = BAD["users in other units"][0](drifting(N_WEEKS), drifting(0)).write(
        tmp_path / "bad.zarr"
    )
    for _ in range(2):
        with pytest.raises(es.HoldError):
            series.add(bad)
    transformed = vectors_of(es.open_run(tmp_path / "series" / "runs" / "bad.zarr"), "users")
    monkeypatch.setattr(candidate, "fit_tables", lambda *_: pytest.fail("it is fitted already"))
    monkeypatch.setattr(
        publishing, "transform_run", lambda *_, **__: pytest.fail("it is written already")
    )
    version = series.add(bad, accept="new units").version
    assert by_gate(version)["norm_ratio"]["verdict"] == "hold", "the verdict stays what it was"
    np.testing.assert_array_equal(vectors_of(series.open(), "users"), transformed)
    assert not list((tmp_path / "series" / "candidates").iterdir())


def test_a_run_that_is_fitted_anew_is_no_longer_held(
    series: es.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = BAD["shuffled ids"][0](drifting(N_WEEKS), drifting(0)).write(tmp_path / "bad.zarr")
    with pytest.raises(es.HoldError):
        series.add(bad)
    assert [result["run"] for result in series.status()["held"]] == ["bad"]
    series.change(half_life=3)
    with monkeypatch.context() as patched:
        patched.setattr(
            candidate, "fit_tables", lambda *_: (_ for _ in ()).throw(OSError("the disk"))
        )
        with pytest.raises(OSError, match="the disk"):
            series.add(bad)
    status = series.status()
    assert (status["held"], status["unfinished"], [one["run"] for one in status["failed"]]) == (
        [],
        [],
        ["bad"],
    )


def test_gc_takes_what_was_held_when_its_grace_is_over(series: es.Series, tmp_path: Path) -> None:
    bad = BAD["shuffled ids"][0](drifting(N_WEEKS), drifting(0)).write(tmp_path / "bad.zarr")
    with pytest.raises(es.HoldError):
        series.add(bad)
    kept = ["candidates/bad/candidate.npz", "candidates/bad/held.json", "runs/bad.zarr"]
    assert sorted(series.gc().left) == kept
    assert [one["run"] for one in series.status()["held"]] == ["bad"]
    assert sorted(series.gc(grace=0).removed) == kept
    assert series.add(bad, accept="fitted anew").published


def test_a_gate_is_moved_or_turned_off_by_settings(series: es.Series, tmp_path: Path) -> None:
    week = drifting(N_WEEKS).write(tmp_path / "week.zarr")
    series.change(gates={"agreement": 0.9999})
    with pytest.raises(
        es.HoldError, match=r"agreement of (items|users) 0\.\d+ \(at least 0\.9999\)"
    ):
        series.add(week)
    series.change(gates={"agreement": None})
    verdict = by_gate(series.add(week).version)["agreement"]
    assert (verdict["verdict"], verdict["threshold"]) == ("off", None)
    assert verdict["figure"] > 0.5, "what is off is measured all the same"


def test_a_jump_beyond_the_last_runs_level_is_held(series: es.Series, tmp_path: Path) -> None:
    """The level of this series is 0.1; an alignment that is 0.6 away would pass in another
    series.
    """
    week = drifting(N_WEEKS)
    noisy = replace(
        week, items=week.items + 1.2 * np.random.default_rng(0).normal(size=week.items.shape)
    )
    others = ("agreement", "low_agreement", "mirror", "spectrum", "norm_ratio")
    series.change(gates=dict.fromkeys(others))
    with pytest.raises(es.HoldError) as error:
        series.add(noisy.write(tmp_path / "noisy.zarr"))
    assert holding(error) == {"alignment_change"}


def test_what_was_written_before_there_were_gates_still_opens(series: es.Series) -> None:
    old = Settings().to_dict()
    del old["gates"]
    assert Settings.of(old).gates == THRESHOLDS
    head = replace(series.head(), details=Details(settings=old))
    assert (head.accepted, head.spectra, head.verdicts) == (None, {}, ())
