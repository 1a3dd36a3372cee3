"""Series without files for tests of reports: a log of made-up versions, and readers of a page."""

from __future__ import annotations

import datetime as dt
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np

from dask_embstab.series.admin.report import report_values
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.thresholds import GATES
from dask_embstab.series.log.version_file import Details
from dask_embstab.series.log.versions import Version


class NoFiles:
    """A store in which nothing waits."""

    def names(self, _: str) -> list[str]:
        return []

    def folders(self, _: str) -> list[str]:
        return []


def made_up_log(n: int, *, components: int = 64, name: str = "day-{}") -> Log:
    """A log of ``n`` published runs whose every figure is drawn at random."""
    rng = np.random.default_rng(0)
    settings = Settings.of({}).to_dict()
    start = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    versions = []
    for k in range(n):
        verdicts = tuple(
            {
                "gate": gate.name,
                "sense": gate.sense,
                "threshold": gate.threshold,
                "figure": 0.5,
                "at": "items",
                "figures": {"items": float(rng.random()), "users": float(rng.random())},
                "verdict": "pass",
            }
            for gate in GATES
        )
        counts = {"rows": 1000 + k, "matched": 900, "new": 100 + k, "gone": 50, "zero_rows": 0}
        figures = {"items": counts, "users": counts, "rank": components, "chain_minus_first": 0.01}
        spectrum = np.sort(rng.random(components))[::-1].tolist()
        details = Details(
            verdicts=verdicts,
            settings=settings,
            figures=figures,
            spectra={"items": spectrum, "users": spectrum},
            seconds={"fit": 1.0 + k % 3, "apply": 2.0, "gates": 0.25, "add": 5.0 + k % 3},
        )
        versions.append(
            Version(
                version=k + 1,
                kind="publish",
                run=name.format(k),
                model=None,
                parent=k or None,
                reference=k or None,
                policy="consensus",
                created=(start + dt.timedelta(days=k)).isoformat(),
                details=details,
            )
        )
    return Log(tuple(versions))


def made_up_values(n: int, *, name: str = "day-{}", days: int = 40) -> dict[str, Any]:
    """Values of a report of such a log, and of days that were not measured but drawn at random."""
    log = made_up_log(n, name=name)
    values = report_values(NoFiles(), log, "made up", days=lambda *_: None)  # type: ignore[arg-type]
    names = [name.format(k) for k in range(min(n, days))]
    values["days"] = made_up_days(names, of=n)
    return values


def made_up_days(names: list[str], *, of: int) -> dict[str, Any]:
    """What `days_of` would tell, at random."""
    rng, n = np.random.default_rng(1), len(names)

    def estimate() -> dict[str, float]:
        return {"mean": float(rng.random()), "low": 0.0, "high": 1.0, "n": 10}

    def matrix(low: float) -> list[list[float]]:
        drawn = rng.uniform(low, 1, (n, n))
        symmetric: list[list[float]] = ((drawn + drawn.T) / 2).tolist()
        return symmetric

    moved = [
        {"id": names[k], "cosine": k / 20, "distance": 2.0 - k / 20, "norm_a": 1.0, "norm_b": 2.0}
        for k in range(min(12, n))
    ]
    table = {
        "before": matrix(-1),
        "after": matrix(0.5),
        "by_gap": [
            {"gap": k, "pairs": n - k, "as_trained": 0.01, "stabilized": 0.9 / k, "ceiling": 1 / k}
            for k in range(1, n)
        ],
        "last": {
            "rows": 500,
            "mean_cosine": 0.87,
            "norm_ratio": 1.1,
            "cosine": {
                "histogram": rng.integers(0, 50, 100).tolist(),
                "chance": 0.1,
                "beyond_chance": 0.8,
                "share_at_chance": 0.0,
                "ceiling": 0.91,
            },
            "components": {
                name: rng.random(64).tolist() for name in ("correlation", "share_a", "share_b")
            },
            "moved": {"lowest_cosine": moved, "farthest": moved},
        },
    }
    shown = names[-8:]
    return {
        "runs": names,
        "versions": list(range(1, n + 1)),
        "of": of,
        "sample": 2048,
        "tables": {"items": table, "users": table},
        "skew": {
            "runs": shown,
            "versions": list(range(len(shown))),
            "k": 10,
            "queries": "users",
            "metric": "dot",
            "sampled": 200,
            "recall": [[estimate() for _ in shown] for _ in shown],
            "mixed": [estimate() for _ in shown],
        },
    }


class Page(HTMLParser):
    """A page taken apart: every figure with its marks of data (lines, filled shapes and shaded
    squares; no grid line, threshold or legend), texts and table; tags closed in order.
    """

    MARK = re.compile(r"(l|f\d+|k\w+)( (?!legend)\S+)*")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag == "figure":
            self.figures.append({"marks": 0, "title": 0, "desc": 0, "svg": 0, "cells": [], "": ""})
        elif self.figures and "figure" in self.open:
            figure = self.figures[-1]
            style = dict(attrs).get("class") or ""
            figure["marks"] += tag in ("path", "rect") and bool(self.MARK.fullmatch(style))
            for name in ("title", "desc", "svg"):
                figure[name] += tag == name
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not data.strip() or self.open[-1] == "style":
            return
        self.text.append(data)
        if self.figures and "figure" in self.open:
            figure, last = self.figures[-1], self.open[-1]
            if last in ("h3", "figcaption"):
                figure[last] = figure.get(last, "") + data
            if last in ("td", "th") and "tbody" in self.open:
                figure["cells"].append(data)


def numbers_in(value: Any) -> set[str]:
    """Every number of nested values as a table shows it: four digits, or whole."""
    if isinstance(value, dict):
        return set().union(*(numbers_in(inner) for inner in value.values()), set())
    if isinstance(value, list):
        return set().union(*(numbers_in(inner) for inner in value), set())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return set()
    return {f"{value:.4g}"} if isinstance(value, float) else {str(value)}


NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]\d+)?")
