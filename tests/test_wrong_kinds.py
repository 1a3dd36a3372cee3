"""Every verb with every wrong kind: one clear error of this library, one line, and never a raw
exception.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from wrong_kinds import NO_TABLES, T, W, value

import dask_embstab as es
from dask_embstab.cli.main import main


def refuses(call: Callable[[], Any]) -> None:
    with pytest.raises(es.EmbstabError) as caught:
        call()
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert caught.value.__cause__ is not caught.value


@pytest.fixture
def run(tmp_path: Path) -> es.Run:
    return es.create_run(tmp_path / "in.zarr", T, W, item_ids=np.arange(60), chunk_rows=16)


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_is_no_table_or_run(run: es.Run, tmp_path: Path, kind: str) -> None:
    wrong, out, fitted = value(kind), tmp_path / "out.zarr", es.fit(run)
    for call in (
        lambda: es.create_run(out, wrong),
        lambda: es.create_run(out, T, wrong),
        lambda: es.fit(wrong),
        lambda: es.fit(T, wrong),
        lambda: es.fit(T, W, reference=wrong),
        lambda: es.moments(wrong),
        lambda: es.apply(fitted, wrong, out),
        lambda: es.stabilize(wrong, out),
        lambda: es.stabilize(run, out, reference=wrong),
        lambda: es.evaluate(wrong, run),
        lambda: es.evaluate(run, wrong),
        lambda: es.open_run(wrong),
    ):
        refuses(call)
    assert not out.exists()


@pytest.mark.parametrize(
    "name",
    [
        "rank",
        "width",
        "min_matched",
        "sample",
        "anchors",
        "min_count",
        "keep",
        "align_on",
        "method",
        "balance",
        "center",
        "unit_rows",
        "rotation_only",
        "max_lost_energy",
        "seed",
        "duplicates",
        "scratch",
    ],
)
@pytest.mark.parametrize(
    "value",
    [{1}, [], "nonsense\0", b"1", 1.5j, object(), float("nan"), T],
    ids=lambda v: type(v).__name__,
)
def test_options_of_another_kind(name: str, value: Any) -> None:
    if name == "scratch" and isinstance(value, str):
        return
    refuses(lambda: es.fit(T, W, reference=T, **{name: value}))


@pytest.mark.parametrize("name", ["sample", "anchors", "min_count", "seed"])
def test_numbers_by_table_are_numbers(name: str) -> None:
    with pytest.raises(
        es.InputError,
        match=f"{name} must be a.* number.* or a dict of them by table name; it is a dict",
    ):
        es.fit(
            T, W, reference={"items": T, "users": W}, align_on="both", **{name: {"items": "many"}}
        )


def test_what_one_table_of_two_is_chosen_by() -> None:
    """Counts of the items alone: their least count is no option of the users."""
    reference, options = (
        {"items": T, "users": W},
        {"align_on": "both", "counts": {"items": np.arange(len(T))}},
    )
    fitted = es.fit(T, W, reference=reference, min_count=20, **options)
    by_table = es.fit(T, W, reference=reference, min_count={"items": 20}, **options)
    np.testing.assert_array_equal(fitted.items, by_table.items)
    assert [fitted.diagnostics[key]["aligned"] for key in ("items", "users")] == [
        len(T) - 20,
        len(W),
    ]


@pytest.mark.parametrize("ids", ["-5", "5"])
def test_a_negative_id_is_an_id_on_the_command_line(tmp_path: Path, ids: str) -> None:
    es.create_run(tmp_path / "in.zarr", T, item_ids=np.arange(60) - 30)
    ended = CliRunner().invoke(main, ["lookup", str(tmp_path / "in.zarr"), ids, "--json"])
    assert ended.exit_code == 0, ended.output
    assert f'"{ids}"' in ended.stdout
    missing = CliRunner().invoke(main, ["lookup", str(tmp_path / "in.zarr"), "-5000"])
    assert missing.exit_code == 2
    typo = CliRunner().invoke(main, ["lookup", str(tmp_path / "in.zarr"), "--tabel", "5"])
    assert typo.exit_code == 2
    assert "--tabel" in typo.stderr


def test_texts_that_no_file_can_hold_are_refused_as_ids(tmp_path: Path) -> None:
    ids = [f"i{n}" for n in range(60)]
    ids[7] = "\ud800"
    with pytest.raises(es.IdError, match="row 7"):
        es.create_run(tmp_path / "out.zarr", T, item_ids=ids)


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_is_no_version_series_or_transform(run: es.Run, tmp_path: Path, kind: str) -> None:
    wrong, series = value(kind), es.Series.init(tmp_path / "series")
    series.add(run)
    for call in (
        lambda: series.open(wrong),
        lambda: series.show(wrong),
        lambda: series.rollback(wrong),
        lambda: series.promote(wrong),
        lambda: series.change(rank=wrong if kind != "a number" else "5"),
        lambda: es.load_transform(wrong),
        lambda: es.apply(wrong, run, tmp_path / "out.zarr"),
    ):
        refuses(call)
