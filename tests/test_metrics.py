"""What a series says of itself: three lines, and a text file that Prometheus reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deliveries import shuffled
from seriesworlds import drifting

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.admin.metrics import escaped_label

SAMPLE = re.compile(
    r'(?P<name>[a-z_]+)\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\} (?P<value>\S+)'
)


def parsed(text: str) -> dict[tuple[str, ...], float]:
    """The exposition format 0.0.4, strictly: HELP and TYPE before samples, every line understood,
    no sample twice.
    """
    assert text.endswith("\n")
    typed, samples = set(), {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind == "gauge"
            assert name not in typed
            typed.add(name)
        elif not line.startswith("# HELP "):
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            assert sample["name"] in typed
            labels = re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', sample["labels"])
            key = (
                sample["name"].removeprefix("embstab_series_"),
                *(v for k, v in labels if k != "series"),
            )
            assert key not in samples
            samples[key] = float(sample["value"])
    return samples


@pytest.fixture
def place(tmp_path: Path) -> Path:
    es.Series.init(tmp_path / "series")
    return tmp_path / "series"


def run(capsys: pytest.CaptureFixture[str], *arguments: Any, code: int = 0) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["series", *map(str, arguments)], prog_name="embstab")
    assert (ended.value.code or 0) == code
    return capsys.readouterr().out


def test_a_series_from_empty_to_held(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = es.Series(place)
    assert run(capsys, "status", place).splitlines()[0] == "head: nothing is published yet"
    run(capsys, "metrics", place, tmp_path / "a.prom")
    assert parsed((tmp_path / "a.prom").read_text())["head_version",] == 0
    for week in range(3):
        series.add(drifting(week).write(tmp_path / f"week-{week}.zarr"), shadow=week == 2)
    lines = run(capsys, "status", place).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("head: version 2, run week-1")
    assert re.match(
        r"gates: 13 of 19 were asked and pass; alignment 0\.\d+ .*; agreement of", lines[1]
    )
    assert lines[2] == "held: none; failed: none; unfinished: none; shadows: week-2 (version 3)"
    printed = json.loads(run(capsys, "status", place, "--json"))
    assert (printed["well"], printed["shadows"]) == (True, [3])

    bad = shuffled(drifting(3), "item", "user").write(tmp_path / "bad.zarr")
    with pytest.raises(es.HoldError):
        series.add(bad)
    printed = json.loads(run(capsys, "status", place, "--json", code=3))
    assert not printed["well"]
    assert [held["run"] for held in printed["held"]] == ["bad"]
    assert "agreement" in run(capsys, "status", place, code=3).splitlines()[2]
    out = json.loads(run(capsys, "metrics", place, "--json"))["out"]
    samples = parsed(Path(out).read_text())
    assert (samples["versions",], samples["held_runs",], samples["shadows",]) == (3, 1, 1)
    head = {verdict["gate"]: verdict for verdict in series.head().verdicts}
    for gate, verdict in head.items():
        for table, value in verdict["figures"].items():
            assert samples["gate_figure", gate, table] == value
        assert samples["gate_threshold", gate] == verdict["threshold"]
        assert samples["gate_held", gate] == 0
    assert samples["rows", "items"] == 400

    series.add(bad, accept="a test")
    printed = json.loads(run(capsys, "status", place, "--json"))
    assert "agreement" in printed["ignored"]
    assert printed["lines"][1].endswith("accepted: a test")
    run(capsys, "metrics", place, tmp_path / "a.prom")
    samples = parsed((tmp_path / "a.prom").read_text())
    assert (samples["gate_held", "agreement"], samples["held_runs",]) == (1, 0)
    assert not list(tmp_path.glob(".*")), "written beside and renamed; nothing is left"


def test_labels_are_escaped() -> None:
    assert escaped_label('a"b\\c\nd') == r"a\"b\\c\nd"
    assert np.isfinite(
        parsed('# TYPE embstab_series_x gauge\nembstab_series_x{series="a\\"b"} 1.0\n')["x",]
    )
