"""Which figures does the report of two runs, or of one stabilized run, show, and what is good?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dask_embstab.core.similarity import LEAST_PER_COMPONENT, beyond_chance
from dask_embstab.diagnose.reference import with_reference
from dask_embstab.errors import InputError
from dask_embstab.passes.evaluate.results import Metrics
from dask_embstab.passes.sampled import SharedRows, compared, most_moved, sampled_rows, shared_rows
from dask_embstab.render.report import Report
from dask_embstab.repairs import call
from dask_embstab.series.admin.report import key_figure
from dask_embstab.series.log.versions import row_counts
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run

_SAMPLE, _SAMPLE_PER_COMPONENT = 4096, 12
_LEAST = 10
"""Rows of one id, not zero, below which two runs in different spaces may look alike: so many, and
`LEAST_PER_COMPONENT`.
"""
_COUNTS = ("rows", "matched", "new", "gone", "zero_rows")


def report_runs(a: Run, b: Run, metrics: Metrics) -> Report:
    """The report of two runs, from what `evaluate` measured and a sample of their rows."""
    values = metrics.to_dict()
    for key, shared in _sampled(a, b, [key for key in TABLES if values[key] is not None]).items():
        values[key] = {name: value for name, value in values[key].items() if value is not None}
        if len(shared.x):
            values[key]["moved"] = most_moved(a.table(key), shared)
    tables = {key: values[key] for key in TABLES if values.get(key)}
    shares = [
        figures["matched"]
        / max(figures["matched"] + min(figures["unmatched_a"], figures["unmatched_b"]), 1)
        for figures in tables.values()
    ]
    shares += [0.0 for _ in metrics.unmeasured]  # tables of which the runs share no id
    agreement, *others = _agreement_keys(tables, "Mean cosine beyond chance.")
    keys = [
        agreement,
        key_figure(
            "matched", "Ids in both", shares, "Share of the smaller table's ids.", "few shared ids"
        ),
        key_figure(
            "norm_ratio",
            "Lengths",
            [figures["norm_ratio"] for figures in tables.values() if figures.get("cosine")],
            "Length of the second run's vectors over that of the first's.",
            "lengths differ",
        ),
        *others,
    ]
    usable = {
        key: (
            figures["matched"],
            sum((figures.get("cosine") or {}).get("histogram", ())),
            max(run.table(key).d for run in (a, b)),
        )
        for key, figures in tables.items()
    }
    unknown = [text for key, counts in usable.items() if (text := _too_few(key, *counts))]
    names = [run.name or "a table" for run in (a, b)]
    return Report(
        {
            "kind": "runs",
            "name": f"{names[0]} and {names[1]}",
            "well": not unknown and not any(key["good"] is False for key in keys),
            "unknown": unknown,
            "a": names[0],
            "b": names[1],
            "keys": keys,
            "metrics": values,
        }
    )


def report_run(run: Run) -> Report:
    """The report of a stabilized run: of what its fit recorded, and of a sample of its rows beside
    those of its reference, where that can still be opened.
    """
    if run.transform is None:
        raise InputError(
            f"a report is of a series, of two runs or of one stabilized run; {run.path or run.name}"
            " is a run as training left it; give two runs, or stabilize it with"
            f" {call('stabilize')}"
        )
    known = run.transform.diagnostics
    reference, notes = known.get("reference") or None, []
    tables: dict[str, Any] = {}
    if reference and reference.get("path"):
        pair = with_reference(run, known)
        if isinstance(pair, str):
            notes.append(pair)
        else:
            ours, theirs = pair
            both = [key for key in TABLES if getattr(ours, key) and getattr(theirs, key)]
            tables = {
                key: compared(ours.table(key), shared)
                for key, shared in _sampled(ours, theirs, both).items()
            }
    counts = {
        key: {name: row_counts(known[key])[name] for name in _COUNTS}
        for key in TABLES
        if known.get(key)
    }
    shares = [
        of["matched"] / max(min(of["rows"], of["matched"] + (of["gone"] or 0)), 1)
        for of in counts.values()
        if of["matched"] is not None
    ]
    alignment = known.get("alignment")
    errors = [] if alignment is None else [alignment["relative_error"]]
    keys = [
        key_figure(
            "alignment",
            "Alignment error",
            errors,
            "Relative distance from the reference rows.",
            "large alignment error",
        ),
        key_figure(
            "matched",
            "Ids carried over",
            shares,
            "Share of the smaller table's ids.",
            "few ids carried over",
        ),
        *_agreement_keys(tables, "Mean cosine with the reference's rows, beyond chance."),
    ]
    named = (reference or {}).get("name") or (reference or {}).get("path")
    return Report(
        {
            "kind": "run",
            "name": run.name or run.where,
            "well": not any(key["good"] is False for key in keys),
            "keys": keys,
            "notes": notes,
            "diagnostics": {
                **{name: known.get(name) for name in ("keep", "method", "rank", "balance")},
                "reference": None if reference is None else str(named or "rows in memory"),
                "alignment": alignment,
                "explained_share": list(known.get("explained_share") or [1.0]),
                "tables": counts,
            },
            "tables": tables,
        }
    )


def _sampled(a: Run, b: Run, keys: Sequence[str]) -> dict[str, SharedRows]:
    """A sample of the shared rows of these tables."""
    widths = [run.table(key).d for run in (a, b) for key in TABLES if getattr(run, key)]
    n = max(_SAMPLE, _SAMPLE_PER_COMPONENT * max(widths))
    with unchanged(*(run.table(key) for run in (a, b) for key in keys)):
        return {
            key: shared_rows(*(sampled_rows(run.table(key), n) for run in (a, b))) for key in keys
        }


def _agreement_keys(tables: Mapping[str, Any], meaning: str) -> list[dict[str, Any]]:
    """A mean hides a part of the rows that lie elsewhere: the lowest tenth and the share of rows at
    chance are asked too, as the gates of a series do.
    """
    known = [cosine for figures in tables.values() if (cosine := figures.get("cosine"))]

    def values(name: str) -> list[float]:
        return [value for cosine in known if (value := cosine.get(name)) is not None]

    lowest = [
        beyond_chance(cosine["percentiles"]["10"], cosine["chance"])
        for cosine in known
        if cosine.get("percentiles")
    ]
    return [
        key_figure(
            "agreement",
            "Same ids agree",
            values("beyond_chance"),
            meaning,
            "same ids do not agree",
        ),
        key_figure(
            "low_agreement",
            "The lowest tenth agrees",
            [*lowest, *values("low_beyond_chance")],
            "The same of the cosine that one row in ten does not reach.",
            "one row in ten does not agree",
        ),
        key_figure(
            "chance_share",
            "Rows at chance",
            values("share_at_chance"),
            "Share of rows that have nothing to do with the row of the same id.",
            "many rows agree no better than chance",
        ),
    ]


def _too_few(key: str, matched: int, usable: int, d: int) -> str | None:
    """Why the rows of a table cannot tell whether two runs are in one space; None if they can."""
    if not matched:
        return f"no id of {key} is in both runs"
    if not usable:
        return f"no row of {key} that is not zero in both runs"
    least = max(LEAST_PER_COMPONENT * d, _LEAST)
    if usable >= least:
        return None
    return f"too few shared rows of {key} to tell ({usable}; at least {least} are needed)"
