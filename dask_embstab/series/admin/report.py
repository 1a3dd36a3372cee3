"""Everything that the report of a series shows, as plain values: from the log, from what is waiting
and measured on a sample of its runs.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dask_embstab.series.admin.days import days_of, evenly
from dask_embstab.series.admin.status import status_of
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.thresholds import GATES
from dask_embstab.series.log.version_file import Details
from dask_embstab.series.log.versions import Version, row_counts, stored_bytes
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import TABLES

MOST_VERSIONS = 116
"""Runs whose figures are shown over time; of more, evenly spread ones and those accepted against
a gate.
"""
_KEYS = (
    (
        "agreement",
        "Same ids stay in place",
        "Mean cosine with the run before, beyond chance.",
        "same ids do not stay in place",
    ),
    (
        "matched",
        "Ids carried over",
        "Share of the smaller table whose ids the run before has too.",
        "few ids carried over",
    ),
    (
        "scores",
        "Scores kept",
        "Change of sampled scores by stabilizing, as a share of the scores.",
        "scores changed",
    ),
)
_GATES = {gate.name: gate for gate in GATES}
_MOST_SPECTRA, _MOST_COMPONENTS = 60, 12
_OF_CODES = ("agreement", "refit_agreement", "error", "refit_error")
_COUNTS = ("rows", "matched", "new", "gone", "returned", "zero_rows")


def report_values(
    store: Store,
    log: Log,
    name: str,
    *,
    days: Callable[[Store, Log], dict[str, Any] | None] = days_of,
) -> dict[str, Any]:
    """Plain values of the report of a series; ``name`` is what it is called, ``days`` measures its
    runs.
    """
    published = [v for v in log.versions if v.kind == "publish" and v.run is not None]
    accepted = [k for k, version in enumerate(published) if version.accepted is not None]
    live = [k for k, version in enumerate(published) if log.head and version.run == log.head.run]
    keys = _keys(published[live[-1]].verdicts if live else ())
    chosen = {*evenly(len(published), MOST_VERSIONS), *accepted[-MOST_VERSIONS // 4 :], *live}
    shown = [published[k] for k in sorted(chosen)]
    details = [version.full_details for version in shown]
    status = status_of(store, log)
    return {
        "kind": "series",
        "name": name,
        "well": status["well"] and not any(key["is_off"] and key["good"] is False for key in keys),
        "keys": keys,
        "lines": status["lines"],
        "status": {key: value for key, value in status.items() if key != "lines"},
        "versions": {
            "published": len(log.versions),
            "runs": len(published),
            "shown": len(shown),
            "kinds": {
                kind: sum(version.kind == kind for version in log.versions)
                for kind in sorted({version.kind for version in log.versions})
            },
        },
        "runs": [
            {
                "version": version.version,
                "run": version.run,
                "state": version.state,
                "created": version.created,
                "hours_since_previous": hours,
                "accepted": version.accepted,
                "bytes": stored_bytes(version),
                "seconds": dict(detail.seconds) or None,
                "chain_minus_first": detail.figures.get("chain_minus_first"),
                "rank": detail.figures.get("rank"),
            }
            for version, hours, detail in zip(shown, _hours(shown), details, strict=True)
        ],
        "gates": _gates(details),
        "tables": {
            key: {
                count: [row_counts(detail.figures.get(key))[count] for detail in details]
                for count in _COUNTS
            }
            for key in TABLES
            if any(detail.figures.get(key) for detail in details)
        },
        "spectra": _spectra(shown, details),
        "codes": _codes(details),
        "days": days(store, log),
    }


def key_figure(
    gate_name: str,
    name: str,
    values: Sequence[float],
    meaning: str,
    trouble: str,
    *,
    threshold: float | None = None,
    is_off: bool = False,
) -> dict[str, Any]:
    """A figure to look at first: the worst of the values against the threshold of a gate, by
    default and where it ``is_off`` the gate's own; ``trouble`` is what is wrong where it does not
    pass.
    """
    gate = _GATES[gate_name]
    limit = gate.threshold if threshold is None else threshold
    worst = max(values, key=gate.badness) if values else None
    return {
        "name": name,
        "meaning": meaning,
        "trouble": f"{trouble} (its gate is off)" if is_off else trouble,
        "sense": gate.sense,
        "threshold": limit,
        "is_off": is_off,
        "value": None if worst is None else float(worst),
        "good": None if worst is None else gate.passes(worst, limit),
    }


def _keys(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The three figures to look at first, of the live run; a gate that is off is asked as well."""
    by_gate = {str(verdict["gate"]): verdict for verdict in verdicts}
    keys = []
    for gate, name, meaning, trouble in _KEYS:
        verdict = by_gate.get(gate, {})
        values = [v for v in (verdict.get("figures") or {}).values() if v is not None]
        threshold = verdict.get("threshold")
        is_off = bool(values) and threshold is None
        more: Any = {"threshold": threshold, "is_off": is_off}
        keys.append(key_figure(gate, name, values, meaning, trouble, **more))
    return keys


def _gates(details: Sequence[Details]) -> list[dict[str, Any]]:
    """Of every gate, its figures by table, its threshold and its verdict, by run."""
    by_run = [{str(v["gate"]): v for v in detail.verdicts} for detail in details]
    gates = []
    for gate in GATES:
        verdicts: list[Mapping[str, Any]] = [known.get(gate.name, {}) for known in by_run]
        tables = sorted({table for verdict in verdicts for table in verdict.get("figures") or {}})
        gates.append(
            {
                "gate": gate.name,
                "sense": gate.sense,
                "meaning": gate.figure,
                "threshold": [verdict.get("threshold") for verdict in verdicts],
                "verdict": [verdict.get("verdict") for verdict in verdicts],
                "figures": {
                    table: [(verdict.get("figures") or {}).get(table) for verdict in verdicts]
                    for table in tables
                },
            }
        )
    return gates


def _codes(details: Sequence[Details]) -> dict[str, dict[str, list[Any]]]:
    """By table what the codes of each run keep, frozen and refitted, and the version that made
    them; nothing of a series without codes.
    """
    by_run = [detail.figures.get("codes") or {} for detail in details]
    tables = sorted({key for known in by_run for key in known.get("tables") or {}})
    return {
        key: {
            "made": [known.get("made") for known in by_run],
            **{
                name: [((known.get("tables") or {}).get(key) or {}).get(name) for known in by_run]
                for name in _OF_CODES
            },
        }
        for key in tables
    }


def _spectra(shown: Sequence[Version], details: Sequence[Details]) -> dict[str, Any]:
    """Singular values over the root of the number of rows, of evenly spread runs: the largest, and
    how many there are.
    """
    spectra: dict[str, Any] = {}
    for key in TABLES:
        known = [k for k, detail in enumerate(details) if detail.spectra.get(key)]
        if not known:
            continue
        chosen = [known[k] for k in evenly(len(known), _MOST_SPECTRA)]
        per_row = [
            [
                float(value)
                / max(float((details[k].figures.get(key) or {}).get("rows") or 1), 1) ** 0.5
                for value in details[k].spectra[key]
            ]
            for k in chosen
        ]
        squares = [value * value for value in per_row[-1]]
        total = sum(squares) or 1.0
        spectra[key] = {
            "runs": [shown[k].run for k in chosen],
            "components": max(map(len, per_row)),
            "per_row": [values[:_MOST_COMPONENTS] for values in per_row],
            "head_share": [square / total for square in squares],
        }
    return spectra


def _hours(versions: Sequence[Version]) -> list[float | None]:
    times = [dt.datetime.fromisoformat(version.created) for version in versions]
    since = [(b - a).total_seconds() / 3600 for a, b in itertools.pairwise(times)]
    return [None, *since][: len(times)]
