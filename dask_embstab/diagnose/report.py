"""Which figures does the report of two runs, or of one stabilized run, show, and what is good?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask_embstab.diagnose.reference import with_reference
from dask_embstab.errors import InputError
from dask_embstab.passes.evaluate.results import Metrics
from dask_embstab.passes.sampled import compared, most_moved, sampled_rows, shared_rows
from dask_embstab.render.report import Report
from dask_embstab.repairs import call
from dask_embstab.series.log.thresholds import GATES
from dask_embstab.series.log.versions import row_counts
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run

_SAMPLE, _SAMPLE_PER_COMPONENT, _MOVED = 4096, 12, 12
_COUNTS = ("rows", "matched", "new", "gone", "zero_rows")
_GATES = {gate.name: gate for gate in GATES}


def report_runs(a: Run, b: Run, metrics: Metrics) -> Report:
    """The report of two runs, from what `evaluate` measured and a sample of their rows."""
    told = metrics.to_dict()
    for key, found in _sampled(a, b).items():
        # What was measured on all rows goes before what a sample tells.
        told[key] = {**found, **{k: v for k, v in told[key].items() if v is not None}}
    tables = {key: told[key] for key in TABLES if told.get(key)}
    shares = [
        found["matched"] / (found["matched"] + min(found["unmatched_a"], found["unmatched_b"]))
        for found in tables.values()
    ]
    keys = [
        _key("agreement", "Same ids agree", _agreements(tables), "Mean cosine beyond chance."),
        _key("matched", "Ids in both", shares, "Share of the smaller table's ids."),
        _key(
            "norm_ratio",
            "Lengths",
            [found["norm_ratio"] for found in tables.values()],
            "Length of the second run's vectors over that of the first's.",
        ),
    ]
    names = [run.name or "a table" for run in (a, b)]
    return Report(
        {
            "kind": "runs",
            "name": f"{names[0]} and {names[1]}",
            "well": not any(key["good"] is False for key in keys),
            "a": names[0],
            "b": names[1],
            "keys": keys,
            "metrics": told,
        }
    )


def report_run(run: Run) -> Report:
    """The report of a stabilized run: of what its fit recorded, and of a sample of its rows beside
    those of its reference, where that can still be opened.
    """
    if run.transform is None:
        raise InputError(
            f"a report is of a series, of two runs or of one stabilized run; {run.where} is a run"
            f" as training left it; give two runs, or stabilize it with {call('stabilize')}"
        )
    known = run.transform.diagnostics
    reference, notes = known.get("reference") or None, []
    tables: dict[str, Any] = {}
    if reference and reference.get("path"):
        found = with_reference(run, known)
        if isinstance(found, str):
            notes.append(found)
        else:
            tables = _sampled(*found)
    counts = {
        key: {name: row_counts(known[key])[name] for name in _COUNTS}
        for key in TABLES
        if known.get(key)
    }
    shares = [
        found["matched"] / max(min(found["rows"], found["matched"] + (found["gone"] or 0)), 1)
        for found in counts.values()
        if found["matched"] is not None
    ]
    alignment = known.get("alignment")
    errors = [] if alignment is None else [alignment["relative_error"]]
    keys = [
        _key("alignment", "Alignment error", errors, "Relative distance from the reference rows."),
        _key("matched", "Ids carried over", shares, "Share of the smaller table's ids."),
        _key(
            "agreement",
            "Same ids agree",
            _agreements(tables),
            "Mean cosine with the reference's rows, beyond chance.",
        ),
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


def _sampled(a: Run, b: Run) -> dict[str, Any]:
    """By table, what a sample of the shared rows tells."""
    found: dict[str, Any] = {}
    widths = [run.table(key).d for run in (a, b) for key in TABLES if getattr(run, key)]
    for key in TABLES:
        if getattr(a, key) is not None and getattr(b, key) is not None:
            n = max(_SAMPLE, _SAMPLE_PER_COMPONENT * max(widths))
            shared = shared_rows(*(sampled_rows(run.table(key), n) for run in (a, b)))
            found[key] = compared(shared)
            if len(shared.x):
                found[key]["moved"] = most_moved(a.table(key), shared, _MOVED)
    return found


def _agreements(tables: Mapping[str, Any]) -> list[float]:
    known = [(found.get("cosine") or {}).get("beyond_chance") for found in tables.values()]
    return [value for value in known if value is not None]


def _key(gate_name: str, name: str, values: list[float], meaning: str) -> dict[str, Any]:
    """The worst of the values against the default threshold of a gate."""
    gate = _GATES[gate_name]
    known = {
        "name": name,
        "meaning": meaning,
        "sense": gate.sense,
        "threshold": gate.threshold,
        "why": "not known here",
    }
    if not values:
        return {**known, "value": None, "good": None}
    worst = max(values, key=gate.badness)
    return {**known, "value": float(worst), "good": gate.passes(worst, gate.threshold)}
