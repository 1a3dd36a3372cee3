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
from dask_embstab.series.store import Store

Sample = tuple[dict[str, str], float]
_PREFIX = "embstab_series_"


def metrics_text(store: Store, log: Log, series: str) -> str:
    """Every metric with its help and type; a gate that does not apply has no sample."""
    lines: list[str] = []
    for name, explained, samples in _metrics(store, log):
        lines += [f"# HELP {_PREFIX}{name} {explained}", f"# TYPE {_PREFIX}{name} gauge"]
        lines += [_line(name, {"series": series, **labels}, value) for labels, value in samples]
    return "\n".join(lines) + "\n"


def _metrics(store: Store, log: Log) -> Iterator[tuple[str, str, list[Sample]]]:
    head, waiting = log.head, unpublished(store, log)
    verdicts = () if head is None else head.verdicts
    figures: Mapping[str, Any] = {} if head is None else head.figures
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
    tables = {key: figures[key] for key in ("items", "users") if figures.get(key)}
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


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
    return f"{_PREFIX}{name}{{{inner}}} {float(value)!r}".replace(" nan", " NaN").replace(
        " inf", " +Inf"
    )


def _escaped(label: str) -> str:
    lines = (printable(line).replace("\\", r"\\").replace('"', r"\"") for line in label.split("\n"))
    return r"\n".join(lines)
