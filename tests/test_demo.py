"""Laws of the demo, and of the tables and the page it reports with."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.demo.run import run_demo
from dask_embstab.demo.table1 import ROWS_LEGEND
from dask_embstab.render.html import Section, figure, page, paragraph, table
from dask_embstab.render.table import text_table

SIZE = {"users": 600, "items": 300, "days": 3, "components": 8, "seed": 0}
OPTIONS = [text for name, value in SIZE.items() for text in (f"--{name}", str(value))]
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]


class Tags(HTMLParser):
    """Checks that tags are closed in order, and collects the text and the tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}, (
            "a report needs nothing beside it"
        )
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def result(folder: Path, lines: list[str]) -> dict[str, Any]:
    return run_demo(folder, say=lines.append, **SIZE)


# The demo


def test_writes_a_raw_and_a_stabilized_run_for_each_day(
    result: dict[str, Any], folder: Path
) -> None:
    assert result["days"] == DAYS
    for day in DAYS:
        raw, transformed = (
            es.open_run(folder / kind / f"{day}.zarr") for kind in ("raw", "stabilized")
        )
        assert raw.name == transformed.name == day
        assert raw.transform is None
        assert transformed.transform is not None
        assert transformed.table("users").n_rows == SIZE["users"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "heatmaps.svg",
        "raw",
        "report.html",
        "report.json",
        "stabilized",
    ]


def test_stabilizing_makes_days_comparable(result: dict[str, Any]) -> None:
    assert list(result["table"]) == DAYS[1:]
    for row in result["table"].values():
        for key, least in (("users", 0.85), ("items", 0.85), ("rbo", 0.5)):
            assert -1 <= row[key]["before"] < 0.5
            assert least < row[key]["after"] <= 1
        assert 0 < row["retrained"] <= 1


def test_scores_are_kept(result: dict[str, Any]) -> None:
    assert 0 <= result["score_change"] < 1e-5


def test_the_result_is_json_and_is_what_the_record_says(
    result: dict[str, Any], folder: Path
) -> None:
    recorded = json.loads((folder / "report.json").read_text())
    assert recorded.pop("made_by") == "embstab demo"
    assert recorded == result
    assert {Path(path).parent for path in result["paths"].values()} == {folder}


def test_the_picture_shows_every_day_and_the_measured_cosines(
    result: dict[str, Any], folder: Path
) -> None:
    root = ET.fromstring((folder / "heatmaps.svg").read_text())
    shown = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"items, before", "items, after", "users, before", "users, after", *DAYS} <= set(shown)
    for row in result["table"].values():
        assert f"{row['items']['after']:z.2f}" in shown
        assert f"{row['users']['before']:z.2f}" in shown


def test_the_page_holds_the_table_and_the_picture(result: dict[str, Any], folder: Path) -> None:
    parsed = Tags((folder / "report.html").read_text())
    assert {"table", "svg"} <= set(parsed.seen)
    for row in result["table"].values():
        assert f"{row['rbo']['after']:.3f}" in parsed.text


def test_the_page_says_over_how_many_rows_each_mean_is(
    result: dict[str, Any], folder: Path
) -> None:
    text = (folder / "report.html").read_text()
    assert ROWS_LEGEND in " ".join(Tags(text).text)
    for day, known in result["table"].items():
        counts = [
            known["rows"][key][name]
            for key in ("users", "items")
            for name in ("rows", "zero_rows", "unmatched_a")
        ]
        assert counts[0] > 0
        line = next(
            row
            for row in text[text.index("users sampled") :].split("<tr")
            if day in row and str(known["rows"]["rbo"]["users"]) in row
        )
        assert all(f">{count}<" in line for count in counts)


@pytest.mark.usefixtures("result")
def test_says_what_it_does_and_ends_with_the_table(lines: list[str], folder: Path) -> None:
    for line, day in zip(lines, DAYS, strict=False):
        assert line.startswith(f"day {day}: trained in ")
    assert sum(line.startswith("day   ") for line in lines) == 1
    assert lines[-1] == f"report: {folder / 'report.html'}"


@pytest.mark.long
def test_the_last_lines_are_commands_for_one_s_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are printed, in a folder with nothing but the four files that they name."""
    monkeypatch.chdir(tmp_path)
    small = ["--users", "100", "--items", "100", "--days", "2", "--components", "3"]
    done = CliRunner().invoke(main, ["demo", "out", *small])
    assert done.exit_code == 0, done.output
    assert done.stderr.rstrip().endswith("out/report.html")
    output = done.stdout.splitlines()
    commands = [line.split()[1:] for line in output if line.startswith("  embstab ")]
    assert len(commands) == 9
    pq = pytest.importorskip("pyarrow.parquet", reason="the commands read Parquet")
    pa = pytest.importorskip("pyarrow")
    for day, date in (("monday", "2026-01-01"), ("tuesday", "2026-01-02")):
        run = es.open_run(f"out/raw/{date}.zarr")
        for name, rows in (("items", run.items), ("users", run.users)):
            columns = {"id": rows.ids[:].compute(), "vector": list(np.asarray(rows.vectors))}
            pq.write_table(pa.table(columns), f"{day}-{name}.parquet")
    shutil.rmtree("out")
    for number, command in enumerate(commands):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, (number, done.output)


@pytest.mark.usefixtures("result")
def test_again_replaces_its_own_output_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folder, tmp_path / "out")
    for stranger in (
        folder / "notes.txt",
        folder / "raw" / "notes.txt",
        folder / "raw" / "2027-01-01.zarr",
    ):
        stranger.write_text("mine")
    shorter = run_demo(folder, say=lambda _: None, **{**SIZE, "days": 2})
    assert shorter["days"] == DAYS[:2]
    kept = sorted(path.name for path in (folder / "raw").iterdir())
    assert kept == ["2026-01-01.zarr", "2026-01-02.zarr", "2027-01-01.zarr", "notes.txt"]
    assert sorted(path.name for path in (folder / "stabilized").iterdir()) == kept[:2]
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["raw/2026-01-01.zarr", "stabilized/2026-01-01.zarr", "report.html", "report.json"]
)
def test_what_another_left_in_the_way_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("[]")
    with pytest.raises(es.OutputExistsError, match="was not made by the demo"):
        run_demo(tmp_path, say=lambda _: None, **SIZE)
    assert (tmp_path / name).read_text() == "[]"


def test_an_interrupted_demo_is_replaced(tmp_path: Path) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path, say=interrupt, **SIZE)
    assert (tmp_path / "raw" / "2026-01-01.zarr").is_dir()
    assert run_demo(tmp_path, say=lambda _: None, **{**SIZE, "days": 2})["days"] == DAYS[:2]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(es.InputError, match="is a file"):
        run_demo(tmp_path / "file", say=lambda _: None, **SIZE)


def test_the_command_prints_one_json_object_and_same_seed_same_figures(
    result: dict[str, Any], tmp_path: Path
) -> None:
    done = CliRunner().invoke(main, ["demo", str(tmp_path / "out"), *OPTIONS, "--json"])
    assert done.exit_code == 0, done.output
    again = json.loads(done.stdout)
    assert again["days"] == DAYS
    for day, row in again["table"].items():
        for key in ("users", "items", "rbo"):
            assert row[key] == pytest.approx(result["table"][day][key], abs=1e-4)
    assert f"day {DAYS[0]}: trained in " in done.stderr


# Tables and pages


def test_numbers_stand_to_the_right() -> None:
    lines = text_table(
        ["run", "n", "cosine"], [["a", 12, -0.0001], ["long name", 7, None]]
    ).splitlines()
    assert lines == [
        "run         n  cosine",
        "---------  --  ------",
        "a          12   0.000",
        "long name   7       -",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(["a", "b"], []) == "a  b\n-  -"


def test_numpy_numbers_are_numbers() -> None:
    assert text_table(["x"], [[np.float64(0.5)]], digits=1).splitlines()[-1] == "0.5"


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ValueError, match="every row must have 2 cells to fit the header; one has 1"
    ):
        text_table(["a", "b"], [["x"]])


def test_a_page_escapes_what_comes_from_outside() -> None:
    nasty = '<script>alert("x")</script> & co'
    blocks = (paragraph(nasty), table([nasty, "n"], [[nasty, 1.0]]), figure("<svg></svg>", nasty))
    parsed = Tags(page(nasty, [Section(nasty, blocks)]))
    assert "script" not in parsed.seen
    assert parsed.text.count(nasty) == 7
    assert {"table", "svg", "figcaption"} <= set(parsed.seen)


def test_a_page_follows_light_and_dark() -> None:
    assert "color-scheme: light dark" in page("t", [])
