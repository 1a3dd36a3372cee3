"""Is all well? Three lines, and the facts behind them; nothing is read but the log and what is
being held.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.files.stored_json import parsed_json
from dask_embstab.series.admin.foreign import foreign
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.names import held_key
from dask_embstab.series.log.thresholds import GATES
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish.attempts import Attempt, attempts_in, set_acknowledged
from dask_embstab.series.publish.gates import are_verdicts, format_verdict, held
from dask_embstab.series.store import Store

_SHOWN = 200
"""Characters of an error in a line."""


@dataclass(frozen=True, slots=True)
class Unpublished:
    """Deliveries that nobody has acknowledged: ``held`` with their verdicts, ``failed``, and
    ``unfinished`` ones.

    Unfinished is what is at work or was interrupted. ``messages`` say why what is held was held, as
    far as it is recorded.
    """

    held: dict[str, list[Mapping[str, Any]]]
    failed: list[Attempt]
    unfinished: list[str]
    messages: Mapping[str, str]


def status_of(store: Store, log: Log) -> dict[str, Any]:
    """``well`` unless a delivery is held, failed or interrupted, or the head was published in spite
    of a gate.
    """
    waiting, head = unpublished(store, log), log.head
    verdicts = () if head is None else head.verdicts  # one read of its file
    ignored = [verdict["gate"] for verdict in held(verdicts)]
    shadows = shadows_of(log)
    return {
        "well": (
            head is not None
            and not (waiting.held or waiting.failed or waiting.unfinished or ignored)
        ),
        "head": (
            None
            if head is None
            else {"version": head.version, "run": head.run, "created": head.created}
        ),
        "runs": len(log.live_runs),
        "held": [
            {
                "run": name,
                "gates": [v["gate"] for v in held(verdicts)],
                "message": waiting.messages.get(name),
            }
            for name, verdicts in waiting.held.items()
        ],
        "failed": [
            {name: getattr(attempt, name) for name in ("run", "source", "at", "error", "message")}
            for attempt in waiting.failed
        ],
        "unfinished": waiting.unfinished,
        "ignored": ignored,
        "codes": None if head is None else _codes(head),
        "shadows": [version.version for version in shadows],
        "foreign": foreign(store),
        "lines": [_head_line(log), _gates_line(head, verdicts), _rest_line(waiting, shadows)],
    }


def unpublished(store: Store, log: Log) -> Unpublished:
    """What was delivered and is not published."""
    attempts = attempts_in(store)
    seen = {
        name for name, attempt in attempts.items() if attempt.acknowledged is not None
    } | log.runs.keys()
    candidates = [name for name in store.folders("candidates") if name not in seen]
    open_ones = {name: attempt for name, attempt in attempts.items() if name not in seen}
    verdicts = {
        name: list(attempt.verdicts)
        for name, attempt in open_ones.items()
        if attempt.outcome == "held"
    }
    verdicts |= {name: known for name in candidates if (known := _stored_verdicts(store, name))}
    # A name that is published can be delivered again, with other content: that fails.
    failed = [a for a in attempts.values() if a.outcome == "failed" and a.acknowledged is None]
    begun = {
        name for name, attempt in open_ones.items() if attempt.outcome in ("started", "interrupted")
    }
    begun |= {name for name in candidates if store.names(f"candidates/{name}")}
    done = verdicts.keys() | {attempt.run for attempt in failed}
    messages = {
        name: attempt.message for name, attempt in open_ones.items() if attempt.outcome == "held"
    }
    return Unpublished(dict(sorted(verdicts.items())), failed, sorted(begun - done), messages)


def acknowledge(store: Store, log: Log, run: str, reason: str) -> Attempt:
    """Show what is known of an unpublished delivery no more."""
    latest, waiting = attempts_in(store).get(run), unpublished(store, log)
    names = [*waiting.held, *(attempt.run for attempt in waiting.failed), *waiting.unfinished]
    if run not in names:
        listed = ", ".join(names) or "none"
        raise InputError(
            f"only what is held, failed or unfinished is acknowledged; {run!r} is not; these are:"
            f" {listed}"
        )
    if latest is None:
        created = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        latest = Attempt(
            run=run, source="", at=created, outcome="held" if run in waiting.held else "interrupted"
        )
    return set_acknowledged(store, latest, reason)


def _stored_verdicts(store: Store, name: str) -> list[Mapping[str, Any]]:
    """The verdicts by which a candidate is held; none where its record is torn or somebody
    else's.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        verdicts = parsed_json(store.read(held_key(name)))["verdicts"]
        return verdicts if are_verdicts(verdicts) else []
    return []


def _codes(head: Version) -> dict[str, Any] | None:
    """Which codes the live run holds, and since which version; None without."""
    known = head.figures.get("codes")
    return known and {**known["asked"], "made": known["made"], "row_bytes": known["row_bytes"]}


def shadows_of(log: Log) -> list[Version]:
    """Shadow versions whose run was never live."""
    return [
        v
        for v in log.versions
        if v.state == "shadow" and v.kind == "publish" and v.run not in log.live_runs
    ]


def _head_line(log: Log) -> str:
    head = log.head
    if head is None:
        return "head: nothing is published yet"
    n = len(log.live_runs)
    return (
        f"head: version {head.version}, run {head.run}, of {head.created}; {n} run{'s' * (n > 1)}"
    )


def _gates_line(head: Version | None, verdicts: Sequence[Mapping[str, Any]]) -> str:
    if head is None or not verdicts:
        return "gates: none were asked"
    if ignored := held(verdicts):
        return f"gates: {'; '.join(map(format_verdict, ignored))}; accepted: {head.accepted}"
    asked = [verdict for verdict in verdicts if verdict["verdict"] == "pass"]
    named = [format_verdict(v) for v in asked if v["gate"] in ("alignment", "agreement")]
    return f"gates: {len(asked)} of {len(GATES)} were asked and pass" + "".join(
        f"; {words}" for words in named
    )


def _rest_line(waiting: Unpublished, shadows: list[Version]) -> str:
    holds = []
    for name, verdicts in waiting.held.items():
        asked = (
            all(verdict.get("figures") for verdict in held(verdicts))
            if name in waiting.messages
            else True
        )
        why = (
            f"by {'; '.join(map(format_verdict, held(verdicts)))}"
            if asked
            else f"({waiting.messages[name][:_SHOWN]})"
        )
        holds.append(f"{name} {why}")
    parts = {
        "held": ", ".join(holds),
        "failed": ", ".join(f"{a.run} ({a.error}: {a.message[:_SHOWN]})" for a in waiting.failed),
        "unfinished": ", ".join(waiting.unfinished),
        "shadows": ", ".join(f"{version.run} (version {version.version})" for version in shadows),
    }
    return "; ".join(f"{name}: {listed or 'none'}" for name, listed in parts.items())
