"""The record of one option."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError

Kind = Literal[
    "choice", "count", "integer", "number", "flag", "text", "place", "places", "bytes", "age",
    "reason",
    "by table", "runs", "gaps", "gates", "versions", "storage",
]  # fmt: skip
"""What a value is, and how a command parses its text."""
SETTINGS_VERBS = ("Series.init", "Series.change", "Series.replay")
"""Verbs that take settings of a series: what they are not given stays as it is."""
DTYPES = ("float16", "float32", "float64")
_SAME: Any = object()


@dataclass(frozen=True, slots=True)
class Option:
    """One option: the ``verbs`` that take it in Python and on the command line, those that take it
    in ``python`` alone, and ``commands`` without a parameter in Python.

    ``default`` is that of Python (of a flag False; ``setting_default`` that of the setting of a
    series where they differ). Where it says little, ``unset`` says what happens without the option.
    A number is at least ``least`` (a count: 1) and at most ``most``. ``flags`` is the spelling on
    the command line where it is not ``--name``, ``metavar`` its value.
    """

    name: str
    kind: Kind
    help: str
    verbs: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    default: Any = None
    setting_default: Any = _SAME
    unset: str = ""
    flags: str = ""
    metavar: str = ""
    python: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def is_setting(self) -> bool:
        """Whether a series has it as a setting."""
        return SETTINGS_VERBS[0] in self.verbs

    def default_of(self, verb: str) -> Any:
        """Its default in Python: for one run of a series (None) the settings of the series."""
        if self.is_setting and verb == "Series.add":
            return None
        if verb in SETTINGS_VERBS and self.setting_default is not _SAME:
            return self.setting_default
        return False if self.kind == "flag" and self.default is None else self.default

    @property
    def described(self) -> str:
        """The help text, with what happens without the option."""
        unset = self.unset or ("" if self.default in (None, "", {}) else str(self.default))
        return f"{self.help} Default: {unset}." if unset else self.help

    def require(self, value: Any, *, of: str = "") -> None:
        """Raise `InputError` unless the option can have this value; None is no value."""
        least = 1 if self.kind == "count" and self.least is None else self.least
        most = self.most
        if self.kind == "choice":
            # An array is in no tuple: NumPy would compare its elements.
            is_one = isinstance(value, str) and value in self.choices
            holds, must_be = is_one, f"one of {', '.join(map(repr, self.choices))}"
        elif self.kind == "flag":
            is_one = getattr(value, "ndim", 0) == 0 and value in (False, True)
            holds, must_be = is_one, "one of False, True"
        elif self.kind in ("count", "number") and least is not None:
            number = float(value) if isinstance(value, Real) else math.nan
            holds = least <= number <= (sys.float_info.max if most is None else most)
            must_be = f"at least {least}" if most is None else f"from {least} to {most}"
            if self.kind == "count" and holds and not isinstance(value, Integral):
                holds, must_be = False, f"a whole number of {must_be}"
            if self.kind == "number":
                must_be = f"a number {must_be}" if most else f"a number of {must_be}"
        else:
            return
        if value is not None and not holds:
            raise InputError(f"{of}{self.name} must be {must_be}; it is {shown(value)}")
