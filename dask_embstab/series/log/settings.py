"""How are the runs of one series aligned? Given at ``init``, kept with every version, changed only
by a recorded one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from dask_embstab import options
from dask_embstab.arguments import mismatch, shown
from dask_embstab.core.fit_transform import AlignOn, Keep
from dask_embstab.core.running_mean import decay_of
from dask_embstab.errors import InputError
from dask_embstab.passes.compress import require_code
from dask_embstab.passes.fit.options import Balance, FitOptions, Method, resolve_keep
from dask_embstab.passes.join.options import KeepDuplicates
from dask_embstab.repairs import option
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.thresholds import thresholds

FirstRun = Literal["standardized", "raw"]
Tables = Literal["items", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options of `fit` and `apply` (``dtype``) that every run of the series shares, and the
    reference ``policy``: ``"consensus"``, ``"previous"`` or ``"first"``.

    ``tables`` that every run has (``"items"``, or ``"both"`` with users) and what the transform is
    to ``keep`` are fixed by the first run where they are None (`settled`); ``duplicates`` as in
    `fit`.

    ``first_run`` is standardized, or left raw (LINE's way); ``chain_minus_first`` is reported
    unless it is turned off. ``unit_rows`` None means the policy's own: directions for
    ``consensus``, rows as they are for the others. With a ``half_life`` a run counts half as much
    in the consensus once so many runs have followed it; else all count alike; the last run counts
    ``head_weight`` more. Half-life "auto" is 26 runs, and 4 times the longest gap where gaps are
    held.

    ``gaps`` are those to hold, in runs, each with its weight (a list of gaps: all 1): the consensus
    then aligns a run to the runs so many before it and to the sum of all (``sum_weight``, instead
    of ``head_weight``), together.

    A row that is gone leaves the running reference once it weighs less than ``forget_below`` (1: an
    id seen once); the references of the last ``keep_references`` runs are kept for rollbacks.

    All others are those of `fit`. ``weights`` and ``counts`` are the name of an array stored with
    every run's table (or "norm"), or a file, ``only`` and ``pairs`` are files of ids; where both
    tables are aligned, one for both or a dict by table name. Rows that ``only`` and ``min_count``
    leave out have no say in the running reference and the gates.

    With a ``code`` (a name of `compress`'s) every run holds the codes of its rows beside their
    vectors, written in the same read; ``code_rotate``, ``code_rank`` and ``code_force`` are
    `compress`'s ``rotate``, ``rank`` and ``force``. The code is made once, by the first run that
    needs it.

    ``gates`` are thresholds by gate, None for off; those that are not given are the defaults.
    """

    policy: str = "consensus"
    keep: Keep | None = None
    tables: Tables | None = None
    align_on: AlignOn = "items"
    balance: Balance | None = None
    first_run: FirstRun = "standardized"
    dtype: str | None = None
    rank: int | None = None
    width: int | None = None
    max_lost_energy: float = 0.5
    min_matched: int | None = None
    unit_rows: bool | None = None
    chain_minus_first: bool = True
    half_life: float | Literal["auto"] | None = "auto"
    head_weight: float = 0.5
    gaps: Mapping[str, float] = field(default_factory=dict)
    sum_weight: float = 1.0
    forget_below: float = 1.0
    keep_references: int = 8
    method: Method = "auto"
    center: bool = False
    rotation_only: bool = False
    weights: str | Mapping[str, str] | None = None
    only: str | Mapping[str, str] | None = None
    counts: str | Mapping[str, str] | None = None
    min_count: float | None = None
    sample: int | None = None
    anchors: int | None = None
    seed: int = 0
    pairs: str | Mapping[str, str] | None = None
    duplicates: KeepDuplicates = "error"
    code: str | None = None
    code_rotate: bool = False
    code_rank: int | None = None
    code_force: bool = False
    gates: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gates", thresholds(self.gates))
        object.__setattr__(self, "gaps", _gaps(self.gaps))
        for name, known in options.SETTINGS.items():
            known.require(getattr(self, name), of="the setting ")
        runs = 1.0 if self.half_life in (None, "auto") else self.half_life
        if not isinstance(runs, int | float) or not 0 < runs < math.inf:
            raise InputError(
                f"the setting half_life must be a number of runs above 0; it is {self.half_life!r}"
            )
        self._require_names()
        self._require_together()

    def _require_names(self) -> None:
        """Whatever is about single rows is the name of an array or a file."""
        for name in _NAMES:
            value = getattr(self, name)
            of_tables = value if isinstance(value, Mapping) else {"items": value}
            if set(of_tables) <= {"items", "users"} and all(
                isinstance(one, str | None) for one in of_tables.values()
            ):
                continue
            raise InputError(
                f"the setting {name} must be the name of an array stored with every run, or of a"
                f" file (or a dict of such by table name); it is {type(value).__name__}: give"
                f" {option(name)} with the run that it belongs to"
            )

    def _require_together(self) -> None:
        """What goes with what."""
        options.require_rank(self.keep, self.rank)
        if self.code is not None:
            require_code(self.code)
        elif self.code_rotate or self.code_rank is not None:
            raise InputError(
                f"{option('code_rotate')} and {option('code_rank')} say how rows become codes;"
                f" {option('code')} is not set: give it, leave them out, or unset them with it"
                f" ({option(code_rotate=False)})"
            )
        if self.center and (self.policy == "consensus" or self.keep != "geometry"):
            raise InputError(
                "center moves the origin, which directions and scores do not have; set"
                f" {option(keep='geometry')} and the policy 'previous' or 'first' with it: they are"
                f" {self.keep!r} and {self.policy!r}"
            )
        if self.tables == "items" and (self.keep == "scores" or self.align_on != "items"):
            used = (
                option(keep="scores") if self.keep == "scores" else option(align_on=self.align_on)
            )
            raise InputError(
                f"{used} needs users; {option(tables='items')} leaves them out",
                f"{option(keep='geometry')} and {option(align_on='items')} need items alone",
            )
        if self.gaps and (self.policy != "consensus" or self.unit_rows is False):
            given = (
                f"the policy is {self.policy!r}"
                if self.policy != "consensus"
                else "unit_rows is False"
            )
            raise InputError(
                f"gaps are held by the policy 'consensus', on unit rows; {given}: change it, or set"
                " no gaps"
            )

    def settled(self, tables: Collection[str]) -> Settings:
        """These settings with what they leave open fixed as by a first run with these
        ``tables``.
        """
        users = "users" in tables if self.tables is None else self.tables == "both"
        if not users and self.align_on != "items":
            raise InputError(
                f"{option(align_on=self.align_on)} needs users; the first run of this series has"
                " none",
                f"{option(align_on='items')} needs items alone",
            )
        return replace(
            self,
            tables="both" if users else "items",
            keep=resolve_keep(self.keep, users=users or None),
        )

    @property
    def aligned(self) -> tuple[str, ...]:
        """The tables that decide the rotation."""
        return ("items", "users") if self.align_on == "both" else (self.align_on,)

    @property
    def lags(self) -> dict[int, float]:
        """The gaps to hold and their weights."""
        return {int(gap): weight for gap, weight in self.gaps.items()}

    @property
    def decay(self) -> float:
        """What a run's weight in the running reference is multiplied by with every run that
        follows.
        """
        auto = 4.0 * max(self.lags) if self.gaps else 26.0
        return decay_of(auto if self.half_life == "auto" else self.half_life)

    @property
    def units(self) -> bool:
        """Whether directions are aligned."""
        return self.policy == "consensus" if self.unit_rows is None else self.unit_rows

    def fitting(self, **own: Any) -> FitOptions:
        """Options of a fit: what all fits of the series share, and this one's ``own``."""
        fixed = ("keep", "rank", "width", "balance", "unit_rows", *options.SELECTION, *options.JOIN)
        shared: dict[str, Any] = {
            name: getattr(self, name)
            for name in options.SETTINGS.keys() & options.FIT.keys() - set(fixed)
        }
        shared |= {"unit_rows": self.units, "join_options": {"duplicates": self.duplicates}}
        return FitOptions(**shared | own)

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with some of them changed; who turns to the consensus turns to its
        ``unit_rows``.
        """
        known = _known(changes)
        turned = {"unit_rows": None} if known.get("policy") == "consensus" != self.policy else {}
        return replace(
            self,
            **turned | known | {"gates": {**self.gates, **thresholds(known.get("gates", {}), {})}},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of ``to_dict``."""
        return cls(**_known(values))


def settings_in(log: Log, initial: Settings) -> Settings:
    """The settings of the last version, or those of ``init``."""
    return Settings.of(log.versions[-1].settings) if log.versions else initial


_NAMES = tuple(name for name, known in options.SETTINGS.items() if known.kind == "by table")
"""Settings that name an array or a file."""
_OWN = (*_NAMES, "gaps", "gates")
"""Settings that say themselves what they must be."""
SETTINGS = frozenset(options.SETTINGS)


def _gaps(given: Any) -> dict[str, float]:
    """Weights by gap, ascending; keys are texts, as in JSON."""
    try:
        is_list = isinstance(given, list | tuple | range | np.ndarray)
        if not is_list and not isinstance(given, Mapping | None):
            raise TypeError
        weights = dict.fromkeys(given, 1.0) if is_list else dict(given or {})
        weight_of = {int(str(gap)): float(weight) for gap, weight in weights.items()}
    except Exception:  # noqa: BLE001 (whatever a foreign type raises, it holds no gaps)
        weight_of = {0: 0.0}
    if not all(gap > 0 and 0 < weight < math.inf for gap, weight in weight_of.items()):
        raise InputError(
            "the setting gaps must be whole numbers of runs from 1 on, with weights above 0; it is"
            f" {shown(given)}: give a list such as [1, 4, 13], or {{1: 1.0, 4: 2.0}}"
        )
    return {str(gap): weight_of[gap] for gap in sorted(weight_of)}


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(values) - SETTINGS):
        raise InputError(
            f"a series has the settings {', '.join(sorted(SETTINGS))}; {', '.join(unknown)} came"
        )
    if wrong := mismatch(
        Settings, (), {name: value for name, value in values.items() if name not in _OWN}
    ):
        raise InputError(f"the setting {wrong}")
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python, as JSON has them."""
    if isinstance(value, Fraction | Decimal):
        return float(value)
    return value.item() if isinstance(value, np.generic) else value
