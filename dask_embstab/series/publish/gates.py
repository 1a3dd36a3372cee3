"""Is a stabilized run fit to be published? Figures against thresholds: pure functions, with no word
about how it was aligned.

Every gate (`series/log/thresholds.py`) has a figure per table (or one for the run), and a verdict
in the version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dask_embstab.errors import HoldError
from dask_embstab.repairs import option
from dask_embstab.series.log.thresholds import GATES, Gate, Thresholds

Figures = Mapping[str, Mapping[str, float]]
"""By gate, then by table (``items``, ``users``) or ``run``; a gate that does not apply has none."""
Verdict = dict[str, Any]


def are_verdicts(values: Any) -> bool:
    """Whether what was read from a record is a list of verdicts."""
    known = {"gate", "verdict", "figure", "at", "sense", "threshold"}
    return isinstance(values, list) and all(
        isinstance(value, dict) and known <= value.keys() for value in values
    )


def judge(figures: Figures, limits: Thresholds) -> tuple[Verdict, ...]:
    """A verdict for every gate: pass, hold, not applicable or off."""
    return tuple(_judged(gate, figures.get(gate.name, {}), limits.get(gate.name)) for gate in GATES)


def held(verdicts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The verdicts that say hold."""
    return [verdict for verdict in verdicts if verdict["verdict"] == "hold"]


def format_verdict(verdict: Mapping[str, Any]) -> str:
    """A verdict in words: gate, figure, threshold."""
    if verdict["figure"] is None:
        return f"{verdict['gate']}: {verdict['verdict']}"
    of = "" if verdict["at"] == "run" else f" of {verdict['at']}"
    limit = (
        "off" if verdict["threshold"] is None else f"{verdict['sense']} {verdict['threshold']:.4g}"
    )
    return f"{verdict['gate']}{of} {verdict['figure']:.4g} ({limit})"


def hold(name: str, verdicts: Sequence[Mapping[str, Any]]) -> HoldError:
    """The error that names every gate that held a run, with its figure and its threshold."""
    why = "; ".join(format_verdict(verdict) for verdict in held(verdicts))
    return HoldError(
        f"{name} is held and not published: {why}",
        f"{option(accept='reason')} publishes it all the same and records the reason",
        verdicts=verdicts,
    )


def refused(name: str) -> Verdict:
    """The verdict that needs no figure: the run could not even be aligned (and ``name`` may be no
    gate).
    """
    sense = next((gate.sense for gate in GATES if gate.name == name), "at most")
    known: Verdict = {
        "gate": name,
        "figure": None,
        "threshold": None,
        "sense": sense,
        "at": None,
        "figures": {},
    }
    return {**known, "verdict": "hold"}


def _judged(gate: Gate, figures: Mapping[str, float], threshold: float | None) -> Verdict:
    at = max(figures, key=lambda key: gate.badness(figures[key]), default=None)
    figure = None if at is None else float(figures[at])
    if figure is None:
        verdict = "not applicable"
    elif threshold is None:
        verdict = "off"
    else:
        verdict = "pass" if gate.passes(figure, threshold) else "hold"
    return {
        "gate": gate.name,
        "figure": figure,
        "threshold": threshold,
        "sense": gate.sense,
        "at": at,
        "figures": {key: float(value) for key, value in figures.items()},
        "verdict": verdict,
    }
