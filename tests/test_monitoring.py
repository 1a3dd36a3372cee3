"""The alert rules and the dashboard are valid, and ask for metrics that a series writes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import dask_embstab as es
from dask_embstab.series.admin.metrics import metrics_text

FOLDER = Path(es.__file__).parent / "monitoring"
NAME = re.compile(r"embstab_series_[a-z_]+")
ALERTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0][
    "rules"
]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
EXPRESSIONS = [
    *(alert["expr"] for alert in ALERTS),
    *(target["expr"] for panel in PANELS for target in panel.get("targets", ())),
]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a series of three runs writes, a tenth of whose items are new each time."""
    folder = tmp_path_factory.mktemp("monitoring")
    series = es.Series.init(folder / "shop")
    rng = np.random.default_rng(0)
    items, users = (rng.normal(size=(n, 4)) + 0.5 for n in (200, 100))
    for k in range(3):
        items = np.concatenate([items[20:], rng.normal(size=(20, 4)) + 0.5])
        ids = {"item_ids": np.arange(200) + 20 * k, "user_ids": np.arange(100)}
        series.add(es.create_run(folder / f"day-{k}.zarr", items, users, **ids))
    return series.metrics(measured=True)


def samples(text: str, name: str, kind: Any = float) -> dict[str, Any]:
    """By labels without the series."""
    matches = re.findall(
        rf'^embstab_series_{name}{{series="shop",?(.*)}} (\S+)$', text, re.MULTILINE
    )
    return {labels: kind(value) for labels, value in matches}


def test_the_new_figures_are_right(metrics: str) -> None:
    assert samples(metrics, "matched_rows")['table="items"'] == 180
    assert samples(metrics, "new_rows")['table="items"'] == 20
    assert samples(metrics, "zero_rows") == {'table="items"': 0, 'table="users"': 0}
    shares = [v for k, v in samples(metrics, "spectrum_share").items() if 'table="items"' in k]
    assert sum(shares) == pytest.approx(1)
    figures, limits = samples(metrics, "gate_figure"), samples(metrics, "gate_threshold")
    margins = samples(metrics, "gate_margin")
    worst = min(figures[f'gate="agreement",table="{key}"'] for key in ("items", "users"))
    limit = limits['gate="agreement"']
    assert margins['gate="agreement"'] == pytest.approx((worst - limit) / limit)
    ratios = [figures[f'gate="norm_ratio",table="{key}"'] for key in ("items", "users")]
    limit = limits['gate="norm_ratio"']
    assert margins['gate="norm_ratio"'] == pytest.approx(
        (limit - max(max(r, 1 / r) for r in ratios)) / limit
    )
    cosine = samples(metrics, "cosine")
    assert cosine['table="users",gap="1",of="stabilized"'] > 0.99
    assert 0 < samples(metrics, "skew_recall")['queries="day-2",items="mixed"'] <= 1


def test_names_in_labels_stay_as_they_are(tmp_path: Path) -> None:
    """Even where they read like a number that Prometheus spells in its own way."""
    text = es.Series.init(tmp_path / "shop info nan").metrics()
    assert 'embstab_series_versions{series="shop info nan"} 0.0' in text.splitlines()


@pytest.mark.parametrize(
    ("value", "spelled"),
    [(0.5, "0.5"), (np.nan, "NaN"), (np.inf, "+Inf"), (-np.inf, "-Inf")],
)
def test_values_that_are_no_numbers_are_spelled_as_prometheus_does(
    tmp_path: Path, value: float, spelled: str
) -> None:
    series = es.Series.init(tmp_path / "shop")
    days = {"tables": {"items": {"by_gap": [], "last": {"cosine": {"share_at_chance": value}}}}}
    text = metrics_text(series.store, series.log(), "shop", days=days)
    assert samples(text, "share_at_chance", str) == {'table="items"': spelled}


def test_rules_and_panels_ask_for_metrics_that_are_written(metrics: str) -> None:
    written = set(re.findall(r"^# TYPE (\S+) gauge$", metrics, re.MULTILINE))
    asked = {name for expression in EXPRESSIONS for name in NAME.findall(expression)}
    assert asked <= written
    assert {"embstab_series_gate_margin", "embstab_series_held_runs"} <= asked
    for expression in EXPRESSIONS:
        for name, labels in re.findall(r"(embstab_series_\w+)\{([^}]*)\}", expression):
            known = set(re.findall(rf"^{name}{{(.*)}}", metrics, re.MULTILINE))
            for label in re.findall(r"(\w+)=", labels):
                assert any(f"{label}=" in one for one in known), (name, label)


def test_an_alert_says_what_it_is_and_what_to_do() -> None:
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS) >= 8
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("info", "warning", "critical")
        assert {"summary", "description"} == set(alert["annotations"])
        assert "{{ $labels.series }}" in alert["annotations"]["summary"]
        assert "for" in alert


def test_panels_do_not_overlap_and_each_says_what_it_shows() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not taken & cells
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]


def promtool(*arguments: str, given: str = "") -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: the package prometheus)")
    done = subprocess.run(
        [program, *arguments], input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reads_the_metrics(metrics: str) -> None:
    promtool("check", "metrics", given=metrics)


def test_promtool_reads_the_rules_and_the_panels(tmp_path: Path) -> None:
    promtool("check", "rules", str(FOLDER / "alerts.yml"))
    rules = [
        {"record": f"panel:{k}", "expr": expression.replace("$series", ".*").replace("$gate", ".*")}
        for k, expression in enumerate(EXPRESSIONS)
    ]
    (tmp_path / "panels.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]})
    )
    promtool("check", "rules", str(tmp_path / "panels.yml"))


FIRING = {
    "EmbstabDeliveryHeld": {"held_runs": 1},
    "EmbstabDeliveryFailed": {"failed_runs": 2},
    "EmbstabDeliveryUnfinished": {"unfinished_runs": 1},
    "EmbstabNoNewVersion": {"head_created_seconds": -400_000, "head_version": 3},
    "EmbstabGateIgnored": {'gate_held{gate="mirror"}': 1},
    "EmbstabGateNear": {'gate_margin{gate="rows"}': 0.05, 'gate_threshold{gate="rows"}': 0.4},
    "EmbstabCatalogueTurnedOver": {'new_rows{table="items"}': 40, 'rows{table="items"}': 100},
    "EmbstabDrift": {"chain_minus_first": 0.6},
    "EmbstabOldQueriesMiss": {'skew_recall{items="live",queries="a"}': 0.3},
}


def test_every_alert_fires_on_what_it_is_for_and_on_nothing_else(tmp_path: Path) -> None:
    assert set(FIRING) == {alert["alert"] for alert in ALERTS}
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    tests = []
    for name, wrong in FIRING.items():
        given = []
        for metric, value in wrong.items():
            plain, _, labels = metric.rstrip("}").partition("{")
            series = f'embstab_series_{plain}{{series="s"{labels and ","}{labels}}}'
            given.append({"series": series, "values": f"{value}+0x480"})
        expected = [{"labels": f'{{alertname="{name}"}}', "value": 1}]
        check = {"expr": firing, "eval_time": "8h", "exp_samples": expected}
        tests.append({"interval": "1m", "input_series": given, "promql_expr_test": [check]})
    whole = {
        "rule_files": [str(FOLDER / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": tests,
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(whole))
    promtool("test", "rules", str(tmp_path / "tests.yml"))
