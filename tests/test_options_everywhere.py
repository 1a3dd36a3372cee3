"""What `fit` can do, a series can by the same option, in Python and by commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from oracle import assert_close, vectors_of
from test_consensus import OFF, unit
from test_series_selection import never_trained

import dask_embstab as es
from dask_embstab.cli.main import main

# --- 80 % of the rows were never trained


def cosine(a: Any, b: Any, counts: Any) -> float:
    """Of the trained rows of two runs."""
    x, y = (unit(vectors_of(es.open_run(run)))[counts > 0] for run in (a, b))
    return float(np.sum(x * y, axis=1).mean())


def run_command(*arguments: Any, wanted: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments], prog_name="embstab")
    assert ended.value.code == wanted


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Two runs whose counts are stored with their items, and as a file; what `fit` makes of them in
    Python.
    """
    folder = tmp_path_factory.mktemp("shop")
    for day in (0, 1):
        T, W, counts = never_trained(day, 3000, 8)
        es.create_run(folder / f"{day}.zarr", T, W, item_ids=np.arange(3000))
        zarr.open_group(folder / f"{day}.zarr")["items"].create_array("events", data=counts)
    order = np.random.default_rng(0).permutation(3000)
    pd.DataFrame({"id": order, "n": counts[order]}).to_csv(folder / "counts.csv", index=False)
    es.stabilize(folder / "0.zarr", folder / "first.zarr")
    es.stabilize(
        folder / "1.zarr",
        folder / "python.zarr",
        reference=folder / "first.zarr",
        counts=counts,
        min_count=5,
    )
    return folder, counts


def test_never_trained_rows_are_transformed_in_python(shop: tuple[Path, Any]) -> None:
    folder, counts = shop
    assert cosine(folder / "python.zarr", folder / "first.zarr", counts) > 0.98
    run_command(
        "stabilize", folder / "1.zarr", folder / "blind.zarr", "--reference", folder / "first.zarr"
    )
    assert cosine(folder / "blind.zarr", folder / "first.zarr", counts) < 0.96


@pytest.mark.parametrize("given", ["events", "counts.csv"])
def test_never_trained_rows_are_transformed_on_the_command_line(
    shop: tuple[Path, Any], tmp_path: Path, given: str
) -> None:
    folder, counts = shop
    named = folder / given if "." in given else given
    options = ("--reference", folder / "first.zarr", "--counts", named, "--min-count", "5")
    run_command("stabilize", folder / "1.zarr", tmp_path / "out.zarr", *options)
    assert_close(
        vectors_of(es.open_run(tmp_path / "out.zarr")),
        vectors_of(es.open_run(folder / "python.zarr")),
        1e-12,
    )
    run_command("fit", folder / "1.zarr", tmp_path / "fit.npz", *options)
    same = es.load_transform(tmp_path / "fit.npz")
    np.testing.assert_array_equal(same.items, es.open_run(folder / "python.zarr").transform.items)
    assert cosine(tmp_path / "out.zarr", folder / "first.zarr", counts) > 0.98


@pytest.mark.parametrize("when", ["init", "add"])
def test_never_trained_rows_are_transformed_in_a_series_by_command(
    shop: tuple[Path, Any], tmp_path: Path, when: str
) -> None:
    """By a setting, or with each run; no gate holds them."""
    folder, counts = shop
    options = ["--counts", "events", "--min-count", "5"]
    run_command("series", "init", tmp_path / "s", *(options if when == "init" else []))
    for day in (0, 1):
        run_command(
            "series",
            "add",
            tmp_path / "s",
            folder / f"{day}.zarr",
            *(options if when == "add" else []),
        )
    series = es.Series(tmp_path / "s")
    assert cosine(series.open(1), series.open(2), counts) > 0.98


# --- each option of one run, and every value that the command line makes


ONE_RUN: dict[str, tuple[tuple[str, ...], Any]] = {
    "method": (("--method", "qr"), "qr"),
    "rank": (("--rank", "3"), 3),
    "balance": (("--balance", "gramians"), "gramians"),
    "unit_rows": (("--raw-rows",), False),
    "min_matched": (("--min-matched", "2"), 2),
    "max_lost_energy": (("--max-lost-energy", "0.9"), 0.9),
    "weights": (("--weights", "norm"), "norm"),
    "only": (("--only", "ids.csv"), np.arange(2, 20)),
    "sample": (("--sample", "11", "--seed", "3"), 11),
    "anchors": (("--anchors", "12"), 12),
    "pairs": (("--pairs", "pairs.csv"), [(k, k) for k in range(18)]),
    "width": (("--width", "6"), 6),
}


@pytest.mark.filterwarnings("ignore:balance=")
@pytest.mark.parametrize("name", ONE_RUN)
def test_an_option_of_one_run_is_that_of_fit(
    make_run: Callable[..., es.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The command says what Python says, and the run is aligned as by `fit` alone."""
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"id": np.arange(2, 20)}).to_csv("ids.csv", index=False)
    pd.DataFrame([(k, k) for k in range(18)], columns=["ours", "theirs"]).to_csv(
        "pairs.csv", index=False
    )
    rng = np.random.default_rng(0)
    T, W = rng.normal(size=(24, 4)), rng.normal(size=(30, 4))
    runs = [
        make_run(
            f"{day}",
            T + 0.1 * rng.normal(size=T.shape),
            W @ np.diag([1, 2, 3, 4]),
            item_ids=np.arange(24),
        )
        for day in (0, 1)
    ]
    arguments, value = ONE_RUN[name]
    options = {name: value} | ({"seed": 3} if name == "sample" else {})
    both = [es.Series.init(place, gates=OFF, policy="previous") for place in ("python", "shell")]
    for series in both:
        series.add(runs[0])
    both[0].add(runs[1], **options)
    run_command("series", "add", "shell", runs[1].path, *arguments)
    alone = es.stabilize(runs[1], "alone.zarr", reference=both[0].open(1), **options)
    for series in both:
        assert_close(vectors_of(series.open(2)), vectors_of(alone), 1e-9)
    asked = both[0].open(2).transform.diagnostics
    assert asked == both[1].open(2).transform.diagnostics
    assert json.loads(json.dumps(both[0].settings.to_dict())) == both[1].settings.to_dict(), (
        "the series' own stay"
    )


def test_a_setting_may_be_taken_back_and_given_by_table(
    make_run: Callable[..., es.Run], tmp_path: Path
) -> None:
    place = tmp_path / "s"
    given = (
        "--weights",
        "items=events",
        "--weights",
        "users=visits",
        "--align-on",
        "both",
        "--rank",
        "3",
    )
    run_command("series", "init", place, *given)
    assert es.Series(place).settings.weights == {"items": "events", "users": "visits"}
    run = make_run(
        "r", np.eye(4)[[0, 1, 2, 3, 0, 1]], np.eye(4), item_ids=np.arange(6), user_ids=np.arange(4)
    )
    for key, name, n in (("items", "events", 6), ("users", "visits", 4)):
        zarr.open_group(run.path)[key].create_array(name, data=np.arange(1, n + 1))
    es.Series(place).add(run.path)
    run_command("series", "settings", place, "--weights", "none", "--rank", "none", "--sample", "5")
    run_command("series", "settings", place, "--sample", "none")
    settings = es.Series(place).settings
    assert (settings.weights, settings.rank, settings.sample) == (None, None, None)
    run_command("series", "settings", place, "--weights", "a", "--weights", "b", wanted=2)
    run_command("stabilize", run.path, tmp_path / "out.zarr", "--rank", "none", wanted=2)


@pytest.mark.parametrize(
    "given",
    [
        ("--weights", ""),
        ("--weights", "../r.zarr/items/vectors"),
        ("--weights", "id"),
        ("--counts", "norm"),
        ("--only", "norm"),
    ],
)
def test_names_of_nothing_are_one_line(
    make_run: Callable[..., es.Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: tuple[str, str],
) -> None:
    run = make_run("r", np.eye(4), np.eye(4))
    more = ("--min-count", "1") if given[0] == "--counts" else ()
    run_command(
        "stabilize",
        run.path,
        tmp_path / "out.zarr",
        "--reference",
        run.path,
        *given,
        *more,
        wanted=2,
    )
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert any(
        what in output
        for what in ("no array stored with", "CSV, Parquet or .npy file of ids", "'' is empty")
    )


def test_a_run_called_none_is_no_setting_taken_back(
    make_run: Callable[..., es.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run("r", np.eye(4), np.eye(4))
    run_command("stabilize", run.path, "out.zarr", "--reference", "none", wanted=2)
