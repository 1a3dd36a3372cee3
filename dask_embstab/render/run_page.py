"""The page of one stabilized run: how well it was aligned, and what is known of its space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask_embstab.render.charts import ranked_bars
from dask_embstab.render.figures import Absent, Figure, merged, sections_of
from dask_embstab.render.html import Section, Verdict
from dask_embstab.render.likeness import (
    component_figure,
    cosine_histogram,
    moved_figures,
    share_columns,
)
from dask_embstab.render.marks import shortened
from dask_embstab.render.pair_page import first_keys, troubles

_ERRORS = {
    "error": "error",
    "nuclear_bound": "bound: square root of the nuclear norm",
    "bound": "the paper's bound",
    "gram_gap": "Gram gap",
}


def run_verdict(values: Mapping[str, Any]) -> Verdict:
    """The line and the figures to look at first."""
    known = values["diagnostics"]
    keys, others = first_keys(values["keys"])
    bad = troubles(values["keys"])
    reference = known["reference"]
    if bad:
        line = f"Look at this: {', '.join(bad)}"
    elif reference is None:
        was = "Standardized" if known["keep"] == "scores" else "Left in its own space"
        line = f"{was} without a reference: there is nothing to compare it with"
    else:
        line = f"Well aligned to {reference}"
    facts = ", ".join(
        f"{name} {known[name]}" for name in ("keep", "method", "rank", "balance") if known[name]
    )
    return Verdict(values["well"], line, keys, (facts, *others, *values["notes"]))


def run_sections(values: Mapping[str, Any], prefix: str) -> tuple[Section, ...]:
    """What the page holds below the verdict; ids of its elements begin with ``prefix``."""
    known, between = values["diagnostics"], f"{shortened(values['name'])} and its reference"
    compared: Mapping[str, Any] = values["tables"]
    parts: dict[str, list[Figure | Absent]] = {
        "The alignment": [
            _errors(known["alignment"]),
            *(_rows(key, figures) for key, figures in known["tables"].items()),
        ],
        "Cosines of the same ids": merged(
            "Cosines", {key: cosine_histogram(key, one, between) for key, one in compared.items()}
        ),
        "The space": [
            share_columns(
                "What each component explains",
                known["explained_share"],
                "Share of the squared scores (or lengths) by direction, largest first: a long flat"
                " tail is components that carry little.",
                unit="share, by direction",
            ),
            *merged(
                "Components",
                {key: component_figure(key, one, between) for key, one in compared.items()},
            ),
        ],
        "Ids that moved most": moved_figures(
            {key: figures.get("moved") or {} for key, figures in compared.items()}, between
        ),
    }
    return sections_of(parts, prefix)


def _errors(alignment: Mapping[str, Any] | None) -> Figure | Absent:
    title = "Alignment error and its bounds"
    if alignment is None:
        return Absent(title, "the run was stabilized without a reference.")
    named = {text: alignment.get(name) for name, text in _ERRORS.items()}
    shown = {name: value for name, value in named.items() if value is not None}
    return Figure(
        title,
        ", ".join(f"{name} {value:.3g}" for name, value in shown.items())
        + f"; relative error {alignment['relative_error']:.3g}",
        "The distance (Frobenius) of the aligned rows from their reference rows, which is what no"
        " rotation can remove; it is at most either bound.",
        (ranked_bars(list(shown), list(shown.values()), unit="Frobenius norm"),),
        ("figure", "value"),
        (*named.items(), ("relative error", alignment["relative_error"])),
    )


def _rows(key: str, counts: Mapping[str, Any]) -> Figure:
    shown = {name: value for name, value in counts.items() if value is not None}
    return Figure(
        f"Rows of {key}",
        ", ".join(f"{name} {value}" for name, value in shown.items()),
        f"How many {key} the run has, how many of them the reference has too (matched) or not"
        " (new), and how many the reference alone has (gone).",
        (ranked_bars(list(shown), [float(v) for v in shown.values()], unit="rows"),),
        ("rows", "number"),
        tuple(counts.items()),
    )
