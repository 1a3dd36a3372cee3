"""Is all well? Three lines, and the facts behind them; nothing is read but the log and what is being held."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container
from typing import Any

from dask_embstab.series.admin.foreign import foreign
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish.candidate import held_key
from dask_embstab.series.publish.gates import GATES, held, said
from dask_embstab.series.store import Store


def status_of(store: Store, log: Log) -> dict[str, Any]:
    """``well`` unless a run is held or interrupted, or the head was published in spite of a gate."""
    waiting, head = held_runs(store, log), log.head
    unfinished = unfinished_runs(store, log, waiting)
    ignored = [] if head is None else [verdict["gate"] for verdict in held(head.verdicts)]
    shadows = shadows_of(log)
    return {
        "well": head is not None and not (waiting or unfinished or ignored),
        "head": None if head is None else {"version": head.version, "run": head.run, "created": head.created},
        "runs": len(log.live_runs),
        "held": [{"run": name, "gates": [v["gate"] for v in held(verdicts)]} for name, verdicts in waiting.items()],
        "unfinished": unfinished,
        "ignored": ignored,
        "shadows": [version.version for version in shadows],
        "foreign": foreign(store),
        "lines": [_head_line(log), _gates_line(head), _rest_line(waiting, unfinished, shadows)],
    }


def held_runs(store: Store, log: Log) -> dict[str, list[dict[str, Any]]]:
    """Runs that a gate holds, and their verdicts."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in store.folders("candidates"):
        # What is no record of a hold is somebody else's, or torn: the run is told of as unfinished.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if name not in log.runs:
                verdicts = json.loads(store.read(held_key(name)))["verdicts"]
                if all(
                    {"gate", "verdict", "figure", "at", "sense", "threshold"} <= set(verdict) for verdict in verdicts
                ):
                    found[name] = verdicts
    return found


def unfinished_runs(store: Store, log: Log, waiting: Container[str]) -> list[str]:
    """Runs whose publish is at work, or was interrupted, but for those that are ``waiting`` (held)."""
    names = [name for name in store.folders("candidates") if name not in waiting and name not in log.runs]
    return [name for name in names if store.names(f"candidates/{name}")]


def shadows_of(log: Log) -> list[Version]:
    """Shadow versions whose run was never live."""
    return [v for v in log.versions if v.state == "shadow" and v.kind == "publish" and v.run not in log.live_runs]


def _head_line(log: Log) -> str:
    head = log.head
    if head is None:
        return "head: nothing is published yet"
    n = len(log.live_runs)
    return f"head: version {head.version}, run {head.run}, of {head.created}; {n} run{'s' * (n > 1)}"


def _gates_line(head: Version | None) -> str:
    if head is None or not head.verdicts:
        return "gates: none were asked"
    if ignored := held(head.verdicts):
        return f"gates: {'; '.join(map(said, ignored))}; accepted: {head.accepted}"
    asked = [verdict for verdict in head.verdicts if verdict["verdict"] == "pass"]
    named = [said(v) for v in asked if v["gate"] in ("alignment", "agreement")]
    return f"gates: {len(asked)} of {len(GATES)} were asked and pass" + "".join(f"; {words}" for words in named)


def _rest_line(waiting: dict[str, list[dict[str, Any]]], unfinished: list[str], shadows: list[Version]) -> str:
    holds = [f"{name} by {'; '.join(map(said, held(verdicts)))}" for name, verdicts in waiting.items()]
    parts = {
        "held": ", ".join(holds),
        "unfinished": ", ".join(unfinished),
        "shadows": ", ".join(f"{version.run} (version {version.version})" for version in shadows),
    }
    return "; ".join(f"{name}: {said_ or 'none'}" for name, said_ in parts.items())
