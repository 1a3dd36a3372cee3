"""What the first run of a series fixes (its tables, what is kept), and what one delivery may ask
for itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from oracle import assert_close, vectors_of
from seriesworlds import drifting

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.log.thresholds import THRESHOLDS

NO_GATES: dict[str, Any] = {"gates": dict.fromkeys(THRESHOLDS)}


def delivery(place: Path, week: int, tables: str = "items users", name: str | None = None) -> Path:
    result = drifting(week)
    given: dict[str, Any] = {}
    if "items" in tables:
        given |= {"items": result.items, "item_ids": result.item_ids}
    if "users" in tables:
        given |= {"users": result.users, "user_ids": result.user_ids}
    path = place / f"{name or f'week-{week}'}.zarr"
    es.create_run(path, given.pop("items", None), given.pop("users", None), **given)
    return path


def holds(error: pytest.ExceptionInfo[es.HoldError]) -> list[str]:
    return [verdict["gate"] for verdict in error.value.verdicts]


@pytest.mark.parametrize(
    ("first", "later", "says", "changes"),
    [
        (
            "items users",
            "items",
            "has items and users; it has items",
            {"tables": "items", "keep": "geometry"},
        ),
        ("items", "items users", "has items; it has items and users", {"tables": "both"}),
    ],
)
def test_a_run_with_other_tables_is_held_until_the_settings_let_it_in(
    tmp_path: Path, first: str, later: str, says: str, changes: dict[str, str]
) -> None:
    series = es.Series.init(tmp_path / "series", **NO_GATES)
    kept = series.add(delivery(tmp_path, 0, first)).version.figures["keep"]
    series.add(delivery(tmp_path, 1, first))
    odd = delivery(tmp_path, 2, later)
    for accept in (None, "no reason is enough"):
        with pytest.raises(es.HoldError, match=says) as held:
            series.add(odd, accept=accept)
        assert holds(held) == ["tables"]
        given = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        assert str(held.value).endswith(f"; series.change({given}) changes what the series holds")
    assert len(series.log().versions) == 2
    series.change(**changes)
    version = series.add(odd).version
    assert version.figures["keep"] == changes.get("keep", kept), "only keep= changes what is kept"
    with pytest.raises(es.HoldError):
        series.add(delivery(tmp_path, 3, first))


def test_users_alone_are_held(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series")
    series.add(delivery(tmp_path, 0))
    with pytest.raises(
        es.HoldError, match=r"has items and users; it has users; deliver items and users$"
    ):
        series.add(delivery(tmp_path, 1, "users"))


def test_the_settings_say_what_the_first_run_fixed(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series")
    assert (series.settings.tables, series.settings.keep) == (None, None)
    series.add(delivery(tmp_path, 0, "items"))
    assert (series.settings.tables, series.settings.keep) == ("items", "geometry")


def test_a_first_run_left_raw_does_not_make_it_a_series_of_geometry(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series", first_run="raw", policy="first", **NO_GATES)
    series.add(delivery(tmp_path, 0))
    assert series.add(delivery(tmp_path, 1)).version.figures["keep"] == "scores"


def test_a_series_of_before_is_fixed_by_its_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = es.Series.init(tmp_path / "series")
    with monkeypatch.context() as before:
        before.setattr("dask_embstab.series.log.settings.Settings.settled", lambda self, _: self)
        before.setattr(
            "dask_embstab.series.publish.delivery._settled", lambda settings, *_: settings
        )
        series.add(delivery(tmp_path, 0))
    assert series.settings.tables is None
    with pytest.raises(es.HoldError, match="it has items"):
        series.add(delivery(tmp_path, 1, "items"))
    series.add(delivery(tmp_path, 2))
    assert series.settings.tables == "both"


def test_tables_that_the_other_settings_need_cannot_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(
        es.InputError,
        match=r"keep='scores' needs users; tables='items' leaves them out; keep='geometry'",
    ):
        es.Series.init(tmp_path / "a", keep="scores", tables="items")
    with pytest.raises(es.InputError, match=r"align_on='both' needs users"):
        es.Series.init(tmp_path / "b", align_on="both", tables="items")
    series = es.Series.init(tmp_path / "c", align_on="users")
    with pytest.raises(
        es.InputError, match=r"the first run of this series has none; .*align_on='items'"
    ):
        series.add(delivery(tmp_path, 0, "items"))
    series = es.Series.init(tmp_path / "d", tables="both")
    with pytest.raises(es.HoldError, match="has items and users; it has items"):
        series.add(delivery(tmp_path, 1, "items"))


def test_on_the_command_line(tmp_path: Path) -> None:
    place = str(tmp_path / "series")
    es.Series.init(place).add(delivery(tmp_path, 0))
    ended = CliRunner().invoke(
        main, ["series", "add", place, str(delivery(tmp_path, 1, "items")), "--json"]
    )
    assert ended.exit_code == 3
    repair = (
        "`embstab series settings SERIES --tables items --keep geometry` changes what the series"
        " holds"
    )
    assert ended.stderr.rstrip().endswith(repair)
    assert json.loads(ended.stdout)["verdicts"][0]["gate"] == "tables"
    ended = CliRunner().invoke(
        main, ["series", "settings", place, "--tables", "items", "--keep", "geometry", "--json"]
    )
    assert json.loads(ended.stdout)["settings"]["tables"] == "items"
    assert (
        CliRunner().invoke(main, ["series", "add", place, str(tmp_path / "week-1.zarr")]).exit_code
        == 0
    )


# --- one delivery's own options


def repeating(place: Path, week: int) -> Path:
    """A delivery whose last item repeats the id of the first, with another vector."""
    result = drifting(week)
    ids = np.r_[result.item_ids, result.item_ids[0]]
    path = place / f"repeating-{week}.zarr"
    es.create_run(
        path,
        np.vstack([result.items, result.items[-1:]]),
        result.users,
        item_ids=ids,
        user_ids=result.user_ids,
    )
    return path


@pytest.mark.filterwarnings("ignore:.*repeats 1 ids:dask_embstab.errors.EmbstabWarning")
@pytest.mark.parametrize("scope", ["of this run", "of the series"])
def test_repeated_ids_where_the_first_counts(tmp_path: Path, scope: str) -> None:
    series = es.Series.init(
        tmp_path / "series", duplicates="first" if scope == "of the series" else "error"
    )
    series.add(delivery(tmp_path, 0))
    own, odd = {"duplicates": "first"} if scope == "of this run" else {}, repeating(tmp_path, 1)
    if own:
        with pytest.raises(es.IdError, match=r"; duplicates='first' keeps the first row of each$"):
            series.add(odd)
    assert series.add(odd, **own).published
    assert series.settings.duplicates == ("first" if scope == "of the series" else "error")
    assert series.add(delivery(tmp_path, 2), **own).published
    assert series.add(delivery(tmp_path, 3), **own).published
    assert not series.verify().damage
    assert series.diff(2, 1) if scope == "of the series" else True


def test_the_first_of_repeated_ids_counts_as_if_the_others_were_not_there(tmp_path: Path) -> None:
    written = []
    for number, write in enumerate((delivery, repeating)):
        place = tmp_path / str(number)
        place.mkdir()
        series = es.Series.init(place / "series", keep="geometry")
        series.add(delivery(place, 0))
        with (
            pytest.warns(es.EmbstabWarning, match="repeats 1 ids")
            if number
            else pytest.MonkeyPatch.context()
        ):
            series.add(write(place, 1), duplicates="first")
        written.append(vectors_of(series.open()))
    assert_close(written[1][:-1], written[0], 1e-9)


def test_one_run_may_be_wider(tmp_path: Path) -> None:
    series = es.Series.init(
        tmp_path / "series",
        policy="previous",
        gates=dict.fromkeys(es.Series.init(tmp_path / "x").settings.gates),
    )
    series.add(delivery(tmp_path, 0))
    wide = drifting(1, d=12)
    path = tmp_path / "wide.zarr"
    es.create_run(path, wide.items, wide.users, item_ids=wide.item_ids, user_ids=wide.user_ids)
    with pytest.raises(
        es.InputError, match=r"the rank of the run is 12 .*; width=12 keeps all of them"
    ):
        series.add(path)
    assert series.add(path, width=12).published
    assert series.open().items.d == 12
    assert series.settings.width is None
    series.add(delivery(tmp_path, 2))
    assert series.open().items.d == 12, "the space stays as wide as it became"


# --- names


def test_a_model_that_is_not_there_is_answered_with_those_that_are_live(tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series")
    series.add(delivery(tmp_path, 0), model="live")
    series.add(delivery(tmp_path, 1), model="hidden", shadow=True)
    for model in ("none", "hidden"):
        with pytest.raises(
            es.InputError, match=r"the last models that are live are live; give one of them$"
        ):
            series.transform_for(model=model)


@pytest.mark.parametrize("name", ["é" * 101, "x" * 201, "\udc80"])
def test_lengths_of_names_are_counted_in_bytes(tmp_path: Path, name: str) -> None:
    series = es.Series.init(tmp_path / "series")
    with pytest.raises(es.InputError, match=r"at most 200 bytes"):
        series.add(delivery(tmp_path, 0), name=name)
    assert series.add(tmp_path / "week-0.zarr", name="é" * 100).published
    with pytest.raises(es.InputError, match=r"at most 1024 bytes"):
        series.add(delivery(tmp_path, 1), model=name * 1024)
