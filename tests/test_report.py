"""Laws of a report: its values are right, its page holds them all, safely, and in little room."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from reports import NUMBER, Page, made_up_values, numbers_in

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.render.axes import Scale, apart, round_ticks, thinned
from dask_embstab.render.colours import DARK, LIGHT, ink_on, shades, to_rgb
from dask_embstab.render.heatmap import contrast
from dask_embstab.render.marks import CHARACTER

MEGABYTE = 1_000_000
ANGLE = np.pi / 6
HOSTILE = (
    '<script>alert("x")</script>',
    "\"'><img src=x onerror=alert(1)>",
    "a\x00b\x1b[31m\x9b\u202e",
    "lone \ud800 surrogate",
    "</style></svg></title><b>",
    "]]>--><!-- &lt;",
)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 2))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray) -> es.Series:
    """Three runs of one geometry: each the one before turned by 30 degrees, but for id 7, which
    the last one turns about.
    """
    folder = tmp_path_factory.mktemp("report")
    made = es.Series.init(folder / "turned", keep="geometry", policy="previous")
    for k in range(3):
        cos, sin = np.cos(k * ANGLE), np.sin(k * ANGLE)
        turned = rows @ np.array([[cos, sin], [-sin, cos]])
        if k == 2:
            turned[7] *= -1
        run = es.create_run(folder / f"day-{k}.zarr", turned, item_ids=np.arange(300) + 1000)
        made.add(run)
    return made


@pytest.fixture(scope="module")
def values(series: es.Series) -> dict[str, Any]:
    return series.report().to_dict()


@pytest.fixture(scope="module")
def drawn() -> tuple[dict[str, Any], Page]:
    report = es.Report(made_up_values(12))
    return report.to_dict(), Page(report.html)


# Values


def test_cosines_between_days_are_those_of_the_rotations_by_hand(values: dict[str, Any]) -> None:
    days = values["days"]
    table, n = days["tables"]["items"], 300
    assert days["runs"] == ["day-0", "day-1", "day-2"]
    cos = np.cos([0, ANGLE, 2 * ANGLE])
    last = (n * cos - 2 * cos)[1:] / n  # id 7 counts with the other sign
    before = [[1, cos[1], last[1]], [cos[1], 1, last[0]], [last[1], last[0], 1]]
    np.testing.assert_allclose(table["before"], before, atol=1e-5)
    flipped = 1 - 2 / n
    after = [[1, 1, flipped], [1, 1, flipped], [flipped, flipped, 1]]
    np.testing.assert_allclose(table["after"], after, atol=1e-3)
    assert table["by_gap"][0]["pairs"] == 2
    assert table["by_gap"][0]["stabilized"] == pytest.approx((1 + flipped) / 2, abs=1e-3)
    for gap in table["by_gap"]:
        assert gap["as_trained"] - 1e-9 <= gap["stabilized"] <= gap["ceiling"] + 1e-6 <= 1 + 1e-6


def test_the_row_that_turned_about_is_the_worst_and_the_histogram_counts_it(
    values: dict[str, Any], rows: np.ndarray
) -> None:
    last = values["days"]["tables"]["items"]["last"]
    worst = last["moved"]["lowest_cosine"][0]
    assert worst["id"] == 1007
    assert worst["cosine"] == pytest.approx(-1, abs=1e-3)
    assert worst["norm_a"] == pytest.approx(np.linalg.norm(rows[7]), rel=1e-5)
    histogram = last["cosine"]["histogram"]
    assert (sum(histogram), histogram[0], histogram[-1]) == (300, 1, 299)


def test_what_the_log_says_is_in_the_report(series: es.Series, values: dict[str, Any]) -> None:
    log = series.log()
    assert [run["run"] for run in values["runs"]] == [v.run for v in log.versions]
    sizes = [sum(version.digests["bytes"].values()) for version in log.versions]
    assert [run["bytes"] for run in values["runs"]] == sizes
    assert min(sizes) > 300 * (2 + 1) * 8  # rows and ids
    for gate in values["gates"]:
        for k, version in enumerate(log.versions):
            known = next(v for v in version.verdicts if v["gate"] == gate["gate"])
            assert gate["verdict"][k] == known["verdict"]
            assert gate["threshold"][k] == known["threshold"]
            recorded = {table: figures[k] for table, figures in gate["figures"].items()}
            assert {t: v for t, v in recorded.items() if v is not None} == known["figures"]
    assert values["tables"]["items"]["matched"] == [None, 300, 300]
    assert values["spectra"]["items"]["head_share"] == pytest.approx(
        np.square(log.versions[-1].spectra["items"])
        / np.square(log.versions[-1].spectra["items"]).sum()
    )
    assert values["well"] is series.status()["well"]


def test_a_series_without_runs_has_a_page(tmp_path: Path) -> None:
    report = es.Series.init(tmp_path / "empty").report()
    assert not report.well
    assert "Nothing is published yet" in report.html
    assert Page(report.html).figures == []


def test_the_three_figures_are_those_of_the_live_run_not_of_a_later_one(
    series: es.Series, tmp_path: Path
) -> None:
    copy = tmp_path / "shop"
    shutil.copytree(str(series.store.place("")), copy)
    es.Series(copy).rollback(2)
    values = es.Series(copy).report().to_dict()
    verdicts = {verdict["gate"]: verdict for verdict in series.log().versions[1].verdicts}
    assert [key["value"] for key in values["keys"]] == [
        verdicts[gate]["figure"] for gate in ("agreement", "matched", "scores")
    ]
    assert all(key["good"] for key in values["keys"])


def test_versions_in_between_are_left_out_evenly_and_the_page_says_so() -> None:
    values = made_up_values(1000)
    assert values["versions"]["shown"] == 116
    assert {values["runs"][0]["run"], values["runs"][-1]["run"]} == {"day-0", "day-999"}
    assert "show 116 of 1000 runs" in es.Report(values).html


# The page


def test_every_figure_has_marks_names_a_sentence_and_a_table(
    drawn: tuple[dict[str, Any], Page],
) -> None:
    _, page = drawn
    assert len(page.figures) >= 24
    for figure in page.figures:
        assert figure["svg"] >= 1, figure["h3"]
        assert figure["marks"] >= figure["svg"], figure["h3"]
        assert figure["title"] == figure["desc"] == figure["svg"]
        assert figure["figcaption"].strip().endswith(".")
        assert figure["cells"], figure["h3"]
    assert len(set(page.ids)) == len(page.ids)
    assert page.tags.count("details") == len(page.figures)


def test_every_number_of_a_table_is_in_the_values(drawn: tuple[dict[str, Any], Page]) -> None:
    values, page = drawn
    known = numbers_in(values) | {str(k) for k in range(1, 65)}
    edges = {f"{-1 + k / 50:.2f}" for k in range(101)}
    totals = {str(sum(values["days"]["tables"]["items"]["last"]["cosine"]["histogram"]))}
    for figure in page.figures:
        shown = {cell for cell in figure["cells"] if NUMBER.fullmatch(cell)}
        assert shown <= known | edges | totals, figure["h3"]


def test_the_page_needs_no_other_file(drawn: tuple[dict[str, Any], Page]) -> None:
    _, page = drawn
    names = {name for name, _ in page.attributes}
    assert not names & {"src", "href", "srcset", "action", "onload", "data"}
    assert not {"script", "link", "img", "iframe", "object", "foreignObject"} & set(page.tags)


@pytest.mark.parametrize(("n", "name"), [(365, "day-{}"), (1000, "&" * 190 + "{}")])
def test_a_page_stays_under_a_megabyte_however_long_the_series(n: int, name: str) -> None:
    assert len(es.Report(made_up_values(n, name=name)).html.encode()) < MEGABYTE


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_and_ids_inject_nothing(name: str) -> None:
    values = made_up_values(3, name="{}")
    text = json.dumps(values)
    for k in range(3):
        text = text.replace(f'"{k}"', json.dumps(f"{name}{k}"))
    values = json.loads(text) | {"name": name}
    report = es.Report(values)
    plain = Page(es.Report(made_up_values(3)).html)
    for shown in (report.html, report._repr_html_()):
        shown.encode()
        assert not {"\x00", "\x1b", "\x9b", "\u202e"} & set(shown)
    page = Page(report.html)
    assert set(page.tags) == set(plain.tags)
    assert len(page.figures) == len(plain.figures)
    assert {name for name, _ in page.attributes} == {name for name, _ in plain.attributes}


def test_equal_values_give_an_equal_page_and_reports_of_a_notebook_share_no_id() -> None:
    one, same, other = (es.Report(made_up_values(n)) for n in (4, 4, 5))
    assert one.html == same.html
    both = Page(one._repr_html_() + other._repr_html_())
    assert len(set(both.ids)) == len(both.ids)
    assert repr(one) == "Report(series=made up, well=True, verdict=All is well: day-3 is live)"


def test_metrics_of_many_ids_and_groups_stay_under_a_megabyte() -> None:
    """A page lists the first ids; every group, of which any may be the one that matters."""
    x, y = np.random.default_rng(0).normal(size=(2, 5000, 4))
    groups = [f"group {k % 64}" for k in range(5000)]
    metrics = es.evaluate(x, y, k=5, users=20, most_moved=5000, groups=groups)
    shown = metrics._repr_html_()
    assert len(shown) < 200_000
    assert all(f">group {k}<" in shown for k in range(64))
    assert metrics.items is not None
    assert len(metrics.items.most_moved) == 5000


def test_metrics_show_themselves_in_a_notebook() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 4))
    metrics = es.evaluate({"items": rows, "users": rows}, {"items": rows + 0.1, "users": rows}, k=5)
    page = Page(metrics._repr_html_())
    titles = {figure["h3"] for figure in page.figures}
    assert {"Cosines", "Components", "Overlap of rankings", "Recall of stale queries"} <= titles
    assert all(figure["marks"] for figure in page.figures)


@pytest.mark.parametrize(("palette", "scheme"), [(LIGHT, "light"), (DARK, "dark")])
def test_text_has_contrast_on_its_ground(palette: dict[str, str], scheme: str) -> None:
    for ground in ("card", "page"):
        for ink in ("ink", "mute", "good", "bad", *(f"s{k}" for k in range(6))):
            assert contrast(to_rgb(palette[ink]), to_rgb(palette[ground])) >= 4.5, (ink, ground)
    for fill in shades(scheme).values():
        assert contrast(ink_on(fill), fill) >= 4.5


def test_labels_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = apart(rng.uniform(0, 200, 8).tolist(), 0, 200)
        assert np.diff(sorted(places)).min() >= 14 - 1e-9
        n, texts = int(rng.integers(1, 500)), ["2026-01-01"] * 500
        scale = Scale(0, max(n - 1, 1), 46, 390)
        shown = thinned(n, scale, texts[:n])
        assert shown[0] == 0
        assert shown[-1] == n - 1
        assert all(np.diff([scale(k) for k in shown]) >= 10 * CHARACTER)


def test_ticks_are_round_and_enclose_the_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        low, high = sorted(rng.normal(size=2) * 10.0 ** rng.integers(-6, 7))
        ticks = round_ticks(low, high)
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 2 <= len(ticks) <= 8


# The verbs


def report_of(*arguments: Any, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["report", *map(str, arguments), "--json"])
    assert done.exit_code == code, done.output
    return dict(json.loads(done.stdout)) if not code else {"error": done.stderr}


def test_the_command_writes_the_page_and_prints_every_number(
    series: es.Series, values: dict[str, Any], tmp_path: Path
) -> None:
    report = report_of(series.store.place(""), tmp_path / "page.html")
    assert {key: report[key] for key in values} == values
    assert (tmp_path / "page.html").read_text() == series.report().html
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"], "nothing beside it"


def test_two_runs_and_one_stabilized_run(series: es.Series, tmp_path: Path) -> None:
    root = Path(str(series.store.place("")))
    raw = [root.parent / f"day-{k}.zarr" for k in range(3)]
    report = report_of(*raw[:2], tmp_path / "pair.html")
    assert report["kind"] == "runs"
    assert report["metrics"]["items"]["mean_cosine"] == pytest.approx(np.cos(ANGLE))
    assert report["well"]
    run = report_of(root / "runs" / "day-2.zarr", tmp_path / "run.html")
    assert run["kind"] == "run"
    assert run["tables"]["items"]["mean_cosine"] == pytest.approx(1 - 2 / 300, abs=1e-3)
    for name in ("pair", "run"):
        page = Page((tmp_path / f"{name}.html").read_text())
        assert page.figures
        assert all(figure["marks"] and figure["cells"] for figure in page.figures)


def test_rows_that_do_not_agree_are_not_well() -> None:
    rng = np.random.default_rng(0)
    report = es.report(rng.normal(size=(400, 8)), rng.normal(size=(400, 8)))
    assert not report.well
    assert report.verdict.startswith("Look at this: same ids do not agree, one row in ten does not")


def test_what_cannot_be_reported_is_one_clear_error(series: es.Series, tmp_path: Path) -> None:
    root = Path(str(series.store.place("")))
    raw, out, table = root.parent / "day-0.zarr", tmp_path / "x.html", tmp_path / "table.npy"
    np.save(table, np.eye(8))
    for places, message in (
        ((raw, out), "as training left it"),
        ((table, out), f"{table} is a run as training left it"),
        ((root, raw, out), "give the series alone"),
        ((out,), f"what came: {out}"),
        ((raw, raw, raw, out), f"{raw}, {raw}, {raw}, {out}"),
    ):
        assert message in report_of(*places, code=2)["error"]
    assert not out.exists()
