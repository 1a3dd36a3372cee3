"""The options of a fit, each written once: those of the verbs, of the settings of a series, and of
one run of a series.

None of them has a default here: what is not given is left to the function that is called, and the
help says what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import click

from dask_embstab.cli.common import PLACE

NONE = "none"
"""What takes a setting back."""
_TABLES = ("items", "users")
Decorator = Callable[..., Any]


class _OrNone(click.ParamType):  # type: ignore[type-arg]
    """A value of another type, or ``none``."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.name = inner, inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == NONE else self._inner.convert(value, param, ctx)


def by_table(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> str | dict[str, str] | None:
    """One value for whatever is aligned, or by table from items=VALUE and users=VALUE."""
    parts = [value.partition("=") for value in values]
    of_tables = {name: value for name, equals, value in parts if equals and name in _TABLES}
    if len(of_tables) == len(values) or not values:
        return of_tables or None
    if len(values) > 1:
        raise click.BadParameter(
            f"it is one value, or items=VALUE and users=VALUE; it is {' '.join(values)!r}"
        )
    return values[0]


_POSITIVE = click.IntRange(1)
_CHOSEN: dict[str, tuple[str, str]] = {
    "weights": ("NAME|FILE|norm", "Of rows: an array stored with the run, or a file."),
    "only": ("FILE", "Align on these ids alone: CSV, Parquet or npy."),
    "counts": ("NAME|FILE", "How often rows were seen: an array of the run, or a file."),
    "pairs": ("FILE", "CSV or Parquet: ids of the run, ids of the reference."),
}
"""Options that may be given by table: what they are, and their help."""
FIT: dict[str, dict[str, Any]] = {
    "keep": {
        "type": click.Choice(["scores", "geometry"]),
        "help": "Default: scores with users, else geometry.",
    },
    "align_on": {"type": click.Choice(["items", "users", "both"]), "help": "Default: items."},
    "method": {
        "type": click.Choice(["auto", "gram", "qr"]),
        "help": "Route to the factors. Default: auto.",
    },
    "rank": {"type": _POSITIVE, "metavar": "K", "help": "Keep the best scores of rank K."},
    "width": {"type": _POSITIVE, "metavar": "K", "help": "Components of the aligned tables."},
    "max_lost_energy": {
        "type": click.FloatRange(0, 1),
        "metavar": "SHARE",
        "help": "Refuse a narrower --width that loses more. Default: 0.5.",
    },
    "balance": {
        "type": click.Choice(["rows", "gramians"]),
        "help": "Default: the reference's, else rows.",
    },
    "center": {
        "names": "--center/--no-center",
        "help": "Remove the means first (geometry). Default: do not.",
    },
    "min_matched": {
        "type": _POSITIVE,
        "metavar": "N",
        "help": "Refuse or hold a run with fewer shared rows.",
    },
    "unit_rows": {
        "names": "--unit-rows/--raw-rows",
        "help": (
            "Align directions. Default: rows as they are; directions with the policy consensus."
        ),
    },
    "rotation_only": {
        "names": "--rotation-only/--reflections",
        "help": "Allow no reflection. Default: allow.",
    },
    **{
        name: {"metavar": metavar, "multiple": True, "callback": by_table, "help": text}
        for name, (metavar, text) in _CHOSEN.items()
    },
    "min_count": {"type": float, "metavar": "N", "help": "Align on rows seen at least so often."},
    "sample": {
        "type": _POSITIVE,
        "metavar": "N",
        "help": "Align on N shared rows, drawn with the seed.",
    },
    "anchors": {
        "type": _POSITIVE,
        "metavar": "N",
        "help": "Align on N shared rows, chosen by their ids.",
    },
    "seed": {"type": click.IntRange(0), "help": "Other samples and anchors. Default: 0."},
    "duplicates": {
        "type": click.Choice(["error", "first"]),
        "help": "Of an id that repeats. Default: error.",
    },
}
"""Those that say how a run is aligned, by name: attributes of `click.option`."""
OF_ALL_RUNS = ("keep", "align_on")
"""Those that one run of a series cannot have for itself."""


def fit_options(*, but: Collection[str] = (), takes_back: bool = False) -> tuple[Decorator, ...]:
    """Decorators for a command; with ``takes_back`` the value ``none`` is allowed where a setting
    may be taken back.
    """
    made = []
    for name, attributes in FIT.items():
        own = {"default": None, **attributes}
        names = own.pop("names", f"--{name.replace('_', '-')}")
        if own.pop("multiple", False):
            own |= {"multiple": True}
            own.pop("default")
        if (
            takes_back
            and isinstance(own.get("type"), click.ParamType)
            and not isinstance(own["type"], click.Choice)
        ):
            own["type"] = _OrNone(own["type"])
        if name not in but:
            made.append(click.option(names, name, **own))
    return tuple(made)


SCRATCH = click.option(
    "--scratch", type=PLACE, metavar="DIR", help="Folder for joins beyond memory."
)
JOIN_MEMORY = click.option(
    "--join-memory", metavar="BYTES", help="Memory of a join, e.g. 2GiB; default 1GiB."
)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """What was given of the options."""
    return {name: value for name, value in options.items() if value is not None}


def given_settings(options: dict[str, Any]) -> dict[str, Any]:
    """What was given of settings; ``none`` takes one back."""
    return {name: None if value == NONE else value for name, value in given(options).items()}
