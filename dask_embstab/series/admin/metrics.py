"""A series as a Prometheus text file (exposition format 0.0.4), for the textfile collector of a
node exporter.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from dask_embstab.repairs import printable
from dask_embstab.series.admin.status import shadows_of, unpublished
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.thresholds import GATES
from dask_embstab.series.log.version_file import Details
from dask_embstab.series.log.versions import Version, row_counts, stored_bytes
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import TABLES

Sample = tuple[dict[str, str], float]
Metric = tuple[str, str, list[Sample]]
"""Its name, its help, and its values by labels."""
_PREFIX = "embstab_series_"
_DIRECTIONS = 8
_NOT_FINITE = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
_ROWS = {
    "matched": "with an id that the reference has",
    "new": "with an id that the reference does not have",
    "gone": "ids that the reference has alone",
    "zero_rows": "rows of zeros",
}


def metrics_text(
    store: Store, log: Log, series: str, *, days: Mapping[str, Any] | None = None
) -> str:
    """Every metric with its help and type; a gate that does not apply has no sample.

    ``days``: what was measured on the runs (`days_of`), to be told too.
    """
    lines: list[str] = []
    details = Details(settings={}) if log.head is None else log.head.full_details
    metrics = (*_metrics(store, log, details), *_of_head(log.head, details))
    for name, explained, samples in (*metrics, *(() if days is None else _measured(days))):
        lines += [f"# HELP {_PREFIX}{name} {explained}", f"# TYPE {_PREFIX}{name} gauge"]
        lines += [_line(name, {"series": series, **labels}, value) for labels, value in samples]
    return "\n".join(lines) + "\n"


def _metrics(store: Store, log: Log, details: Details) -> Iterator[Metric]:
    head, waiting = log.head, unpublished(store, log)
    verdicts, figures = details.verdicts, details.figures
    created = 0.0 if head is None else dt.datetime.fromisoformat(head.created).timestamp()
    yield "versions", "Published versions.", [({}, len(log.versions))]
    yield "runs", "Runs that are or were live.", [({}, len(log.live_runs))]
    yield (
        "head_version",
        "Number of the live version, 0 where there is none.",
        [({}, head.version if head else 0)],
    )
    yield (
        "head_created_seconds",
        "When the live version was published, as Unix time.",
        [({}, created)],
    )
    yield "shadows", "Shadow versions that were not promoted.", [({}, len(shadows_of(log)))]
    yield "held_runs", "Deliveries that are held and not acknowledged.", [({}, len(waiting.held))]
    yield (
        "failed_runs",
        "Deliveries that failed and are not acknowledged.",
        [({}, len(waiting.failed))],
    )
    yield "unfinished_runs", "Deliveries at work or interrupted.", [({}, len(waiting.unfinished))]
    yield (
        "failed_seconds",
        "When a delivery failed, as Unix time.",
        [
            ({"run": a.run, "error": a.error}, dt.datetime.fromisoformat(a.at).timestamp())
            for a in waiting.failed
        ],
    )
    yield (
        "gate_figure",
        "Figure of a gate of the live version, by table.",
        [
            ({"gate": v["gate"], "table": table}, value)
            for v in verdicts
            for table, value in v["figures"].items()
        ],
    )
    yield (
        "gate_threshold",
        "Threshold of a gate.",
        [({"gate": v["gate"]}, v["threshold"]) for v in verdicts if v["threshold"] is not None],
    )
    yield (
        "gate_held",
        "1 where the gate said hold and the live version was published in spite of it.",
        [({"gate": v["gate"]}, float(v["verdict"] == "hold")) for v in verdicts],
    )
    tables = {key: figures[key] for key in TABLES if figures.get(key)}
    yield (
        "rows",
        "Rows of the live run.",
        [({"table": key}, known["rows"]) for key, known in tables.items()],
    )
    drift = figures.get("chain_minus_first")
    yield (
        "chain_minus_first",
        "Distance of the live run from where the first run would have put it.",
        [] if drift is None else [({}, drift)],
    )


def _of_head(head: Version | None, details: Details) -> Iterator[Metric]:
    """What the live version records of its rows, its alignment, its space and its size."""
    verdicts, figures = details.verdicts, details.figures
    tables = {key: row_counts(figures[key]) for key in TABLES if figures.get(key)}
    gates = {gate.name: gate for gate in GATES}
    yield (
        "gate_margin",
        "How far the worst figure of a gate is from its threshold, on the good side, as a share.",
        [
            ({"gate": v["gate"]}, gates[v["gate"]].margin(v["figure"], v["threshold"]))
            for v in verdicts
            if v["gate"] in gates and v["figure"] is not None and v["threshold"] is not None
        ],
    )
    for name in ("matched", "new", "gone", "zero_rows"):
        yield (
            f"{name.removesuffix('_rows')}_rows",
            f"Rows of the live run: {_ROWS[name]}.",
            [
                ({"table": key}, known[name])
                for key, known in tables.items()
                if known.get(name) is not None
            ],
        )
    alignment = figures.get("alignment") or {}
    yield (
        "alignment",
        "Distance of the live run's aligned rows from their reference rows, and its bounds.",
        [({"figure": key}, v) for key, v in alignment.items() if isinstance(v, int | float)],
    )
    codes = figures.get("codes") or {}
    yield (
        "code",
        "Of the codes of the live run, beside the day they were made and codes fitted anew.",
        [
            ({"table": key, "figure": name}, value)
            for key, known in (codes.get("tables") or {}).items()
            for name, value in known.items()
            if value is not None
        ],
    )
    yield (
        "code_made_version",
        "Number of the version that made the code of the live run.",
        [({}, codes["made"])] if codes else [],
    )
    yield (
        "spectrum_share",
        "Share of the sum of squares in the largest directions of the live run.",
        [
            ({"table": key, "direction": str(k + 1)}, value * value / total)
            for key, values in details.spectra.items()
            if (total := sum(value * value for value in values))
            for k, value in enumerate(values[:_DIRECTIONS])
        ],
    )
    yield (
        "add_seconds",
        "Seconds of the call that published the live run: in all (add) and by step.",
        [({"step": step}, seconds) for step, seconds in details.seconds.items()],
    )
    yield (
        "bytes",
        "Bytes of the chunks of the live run as it was published.",
        [] if head is None else [({}, size) for size in (stored_bytes(head),) if size is not None],
    )


def _measured(days: Mapping[str, Any]) -> Iterator[Metric]:
    """What a sample of the runs tells: the figures of the report."""
    tables = days["tables"]
    yield (
        "cosine",
        "Mean cosine of the same ids so many runs apart: stabilized, as trained, and its ceiling.",
        [
            ({"table": key, "gap": str(one["gap"]), "of": name}, one[name])
            for key, figures in tables.items()
            for one in figures["by_gap"]
            for name in ("stabilized", "as_trained", "ceiling")
            if one[name] is not None
        ],
    )
    yield (
        "share_at_chance",
        "Share of the live run's rows that have nothing to do with their rows in the run before.",
        [
            ({"table": key}, figures["last"]["cosine"]["share_at_chance"])
            for key, figures in tables.items()
            if figures["last"].get("cosine")
        ],
    )
    skew = days.get("skew")
    yield (
        "skew_recall",
        "Recall of the queries of one run on the items of the live one, and on a mixed table.",
        []
        if skew is None
        else [
            ({"queries": run, "items": items}, one["mean"])
            for run, line, mixed in zip(skew["runs"], skew["recall"], skew["mixed"], strict=True)
            for items, one in (("live", line[-1]), ("mixed", mixed))
        ],
    )


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{escaped_label(label)}"' for key, label in labels.items())
    number = repr(float(value))
    return f"{_PREFIX}{name}{{{inner}}} {_NOT_FINITE.get(number, number)}"


def escaped_label(label: str) -> str:
    """A label's text as Prometheus reads it."""
    lines = (printable(line).replace("\\", r"\\").replace('"', r"\"") for line in label.split("\n"))
    return r"\n".join(lines)
