"""Is a landed run fit to be published? Figures against thresholds: pure functions, with no word
about how it was landed.

Every gate has a figure per table (or one for the run), one threshold in the series' settings, and a
verdict in the version. The defaults were set on real weekly factorizations and retrainings: see the
table in ``docs/series.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from dask_embstab.arguments import shown
from dask_embstab.errors import HoldError, InputError
from dask_embstab.repairs import option

Sense = Literal["at most", "at least", "within a factor of"]
Figures = Mapping[str, Mapping[str, float]]
"""By gate, then by table (``items``, ``users``) or ``run``; a gate that does not apply has none."""
Thresholds = Mapping[str, float | None]
Verdict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gate:
    """A name, what its figure is, which side of the ``threshold`` passes, and the default (None
    turns a gate off).
    """

    name: str
    sense: Sense
    threshold: float
    figure: str

    def passes(self, figure: float, threshold: float) -> bool:
        """Whether the figure is on the right side; one that is not a number is not."""
        if self.sense == "at most":
            return figure <= threshold
        if self.sense == "at least":
            return figure >= threshold
        return 1 / threshold <= figure <= threshold

    def badness(self, figure: float) -> float:
        """Greater is worse; a figure that is not a number is the worst."""
        if figure != figure:
            return float("inf")
        if self.sense == "within a factor of":
            return max(figure, 1 / figure) if figure > 0 else float("inf")
        return figure if self.sense == "at most" else -figure


GATES: tuple[Gate, ...] = (
    Gate(
        "delivered",
        "at most",
        0.0,
        "1 where an earlier run was made of the very same files, else 0",
    ),
    Gate("finite", "at most", 0.0, "rows with values that are not finite"),
    Gate(
        "rows",
        "at most",
        0.4,
        "change of the number of rows that are not zero, as a share of the last live run's",
    ),
    Gate(
        "matched", "at least", 0.3, "share of the smaller table whose ids the last live run has too"
    ),
    Gate(
        "scores",
        "at most",
        0.02,
        "change of sampled scores, from the run as it came to the landed rows",
    ),
    Gate(
        "alignment", "at most", 1.15, "relative distance of aligned rows from the last live run's"
    ),
    Gate("alignment_change", "at most", 0.5, "the same minus its median over the last live runs"),
    Gate(
        "rotation",
        "at most",
        0.35,
        "relative distance that one more rotation of the landed rows would remove",
    ),
    Gate(
        "mirror",
        "at least",
        -0.2,
        "lowest correlation of a component with the last live run's, beyond chance",
    ),
    Gate(
        "agreement",
        "at least",
        0.15,
        "mean cosine with the last live run's rows, beyond that of unrelated rows",
    ),
    Gate(
        "low_agreement",
        "at least",
        0.18,
        "the same of the cosine that one row in ten does not reach",
    ),
    Gate(
        "chance_share",
        "at most",
        0.12,
        "share of rows that have nothing to do with the last live run's rows",
    ),
    Gate(
        "norm_ratio", "within a factor of", 1.4, "length of rows over that of the last live run's"
    ),
    Gate(
        "spectrum",
        "at most",
        0.15,
        "share of energy that lies in other directions' places than in the last live run",
    ),
)
THRESHOLDS: dict[str, float | None] = {gate.name: gate.threshold for gate in GATES}


def thresholds(given: Any, default: Thresholds = THRESHOLDS) -> dict[str, float | None]:
    """Every gate's threshold: the given ones, and the ``default`` of the others."""
    if not isinstance(given, Mapping):
        raise InputError(
            f"gates are given as a dict of thresholds, such as {{'agreement': 0.2}}; {shown(given)}"
            " came"
        )
    for name, value in given.items():
        if name not in THRESHOLDS:
            raise InputError(
                f"the gates of a series are {', '.join(THRESHOLDS)}; {shown(name)} came"
            )
        if value is not None and not (isinstance(value, Real) and value == value):
            raise InputError(
                f"the threshold of the gate {name} must be a number, or None for off; it is"
                f" {shown(value)}"
            )
    return {
        **default,
        **{name: None if value is None else float(value) for name, value in given.items()},
    }


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
    verdict = {
        "gate": gate.name,
        "figure": figure,
        "threshold": threshold,
        "sense": gate.sense,
        "at": at,
    }
    return {
        **verdict,
        "figures": {key: float(value) for key, value in figures.items()},
        "verdict": _said(gate, verdict),
    }


def _said(gate: Gate, verdict: Mapping[str, Any]) -> str:
    if verdict["figure"] is None:
        return "not applicable"
    if verdict["threshold"] is None:
        return "off"
    return "pass" if gate.passes(verdict["figure"], verdict["threshold"]) else "hold"
