"""Which gates must a run pass before it is published, and what is the default threshold of each?

Every gate has a figure per table (or one for the run) and one threshold in the series' settings.
The defaults were set on real weekly factorizations and retrainings: see the table in
``docs/series.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError

Sense = Literal["at most", "at least", "within a factor of"]
Thresholds = Mapping[str, float | None]


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

    def margin(self, figure: float, threshold: float) -> float:
        """How far the figure is on the good side, as a share of the threshold where that is not 0;
        below 0 it does not pass.
        """
        worst = self.badness(figure)
        limit = -threshold if self.sense == "at least" else threshold
        return (limit - worst) / (abs(threshold) or 1.0)

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
        "matched",
        "at least",
        0.3,
        "share of the smaller table whose ids the last live run has too; of a list of pairs, share"
        " of the rows it names",
    ),
    Gate(
        "scores",
        "at most",
        0.02,
        "change of sampled scores, from the run as it came to the transformed rows",
    ),
    Gate(
        "alignment", "at most", 1.15, "relative distance of aligned rows from the last live run's"
    ),
    Gate("alignment_change", "at most", 0.5, "the same minus its median over the last live runs"),
    Gate(
        "rotation",
        "at most",
        0.35,
        "relative distance that one more rotation of the transformed rows would remove",
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
    Gate(
        "query_recall",
        "at least",
        0.3,
        "share of the best 10 items of logged queries that the last live run's items give too",
    ),
    Gate("code_saturation", "at most", 0.01, "share of numbers that frozen ranges cut off"),
    Gate(
        "code_error",
        "at most",
        2.0,
        "relative error of decoded rows over that of the day when the code was made",
    ),
    Gate(
        "dead_codes",
        "at most",
        0.25,
        "share of codebook entries that no sampled row uses, beyond that of the day when the code"
        " was made",
    ),
    Gate(
        "code_agreement",
        "at least",
        0.0,
        "share of code bytes equal to the last live run's of the same ids, beyond that of unrelated"
        " rows",
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
