"""Options of commands, made of the records in `dask_embstab.options`: how a text becomes a value.

A command has no defaults of its own: what is not given is left to the function that is called, and
the help says what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from dask_embstab.options import SETTINGS_VERBS, STORAGE, Kind, Option, options_of
from dask_embstab.tables.layout import TABLES

NONE = "none"
"""What takes a setting back."""
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
Decorator = Callable[..., Any]


class _Place(click.Path):
    """A path or URL as it was given: whoever opens it says what is wrong with it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Itself; nothing is looked up."""
        del param, ctx
        return value


PLACE = _Place()


class _OrNone(click.ParamType):  # type: ignore[type-arg]
    """A value of another type, or ``none``."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.name = inner, inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == NONE else self._inner.convert(value, param, ctx)


def options(verb: str) -> tuple[Decorator, ...]:
    """Decorators for the command of a verb, one per option that it has on the command line."""
    return tuple(
        _decorator(one, verb)
        for one in options_of(verb).values()
        if verb in (*one.verbs, *one.commands)
    )


def of_every_command() -> Decorator:
    """The decorator for what every command takes, since all of them take places."""
    return _decorator(STORAGE, "")


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """What was given of a command's options."""
    return {name: value for name, value in arguments.items() if value is not None}


def given_settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """What was given of settings; ``none`` takes one back."""
    return {name: None if value == NONE else value for name, value in given(arguments).items()}


def _decorator(one: Option, verb: str) -> Decorator:
    attributes: dict[str, Any] = {"help": one.described, "metavar": one.metavar or None}
    if one.kind in _PARSERS:
        attributes["callback"] = _PARSERS[one.kind]
    if one.kind in ("by table", "gates", "storage"):
        attributes["multiple"] = True
    elif one.kind == "places":
        attributes |= {"multiple": True, "default": None}
    elif one.kind == "flag" and not one.flags:
        attributes |= {"is_flag": True, "metavar": None, "default": False}
    else:
        attributes["default"] = one.default if verb in one.commands else None

    bounds = (one.least, one.most)
    kinds: dict[Kind, Any] = {
        "choice": click.Choice(one.choices),
        "place": PLACE,
        "places": PLACE,
        "count": click.IntRange(1 if one.least is None else int(one.least)),
        "integer": click.INT,
        "number": click.FLOAT if bounds == (None, None) else click.FloatRange(*bounds),
    }
    kind = kinds.get(one.kind)
    may_be_none = verb in SETTINGS_VERBS and one.default_of(verb) is None
    if may_be_none and one.kind in ("count", "number"):
        kind = _OrNone(kind)
    if kind is not None:
        attributes["type"] = kind
    return click.option(one.flags or f"--{one.name.replace('_', '-')}", one.name, **attributes)


def _age(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Seconds from 90s, 15m, 12h or 7d; 0 needs no unit."""
    if value in (None, "0"):
        return None if value is None else 0.0
    try:
        return float(value[:-1]) * _SECONDS[value[-1:]]
    except (ValueError, KeyError):
        raise click.BadParameter(
            f"an age is a number and a unit, such as 90s, 15m, 12h or 7d; it is {value!r}"
        ) from None


def _reason(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("a reason is some words; it is empty")
    return value


def _by_table(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> str | dict[str, str] | None:
    """One value for whatever is aligned, or by table from items=VALUE and users=VALUE."""
    parts = [value.partition("=") for value in values]
    of_tables = {name: value for name, equals, value in parts if equals and name in TABLES}
    if len(of_tables) == len(values) or not values:
        return of_tables or None
    if len(values) > 1:
        raise click.BadParameter(
            f"it is one value, or items=VALUE and users=VALUE; it is {' '.join(values)!r}"
        )
    return values[0]


def _gates(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, float | None] | None:
    """Thresholds by gate from NAME=NUMBER and NAME=off."""
    gates: dict[str, float | None] = {}
    for value in values:
        name, _equals, limit = value.partition("=")
        try:
            gates[name] = None if limit == "off" else float(limit)
        except ValueError:
            raise click.BadParameter(
                f"a gate is set by NAME=NUMBER or NAME=off; it is {value!r}"
            ) from None
    return gates or None


def _runs(_: click.Context, __: click.Parameter, value: str | None) -> float | str | None:
    """A number of runs, or none."""
    try:
        return value if value in (None, NONE, "auto") else float(str(value))
    except ValueError:
        raise click.BadParameter(f"it is a number of runs, none or auto; it is {value!r}") from None


def _gaps(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, float] | None:
    """Weights by gap from 1,4,13 (all alike) or 1=1.2,4=1.5; none for no gaps."""
    if value is None:
        return None
    try:
        parts = [] if value == NONE else [part.partition("=") for part in value.split(",")]
        return {gap: float(weight) if equals else 1.0 for gap, equals, weight in parts}
    except ValueError:
        raise click.BadParameter(
            f"gaps are like 1,4,13 or 1=1.2,4=1.5, or none; it is {value!r}"
        ) from None


def _versions(_: click.Context, __: click.Parameter, value: str | None) -> list[int] | None:
    """Numbers of versions, separated by commas."""
    try:
        return None if value is None else [int(number) for number in value.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"it is numbers of versions, such as 1,2,5; it is {value!r}"
        ) from None


def _storage(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, str] | None:
    """Storage options from NAME=VALUE; a value may be a secret, so none is shown."""
    options = {}
    for value in values:
        name, equals, given = value.partition("=")
        if not equals or not name:
            raise click.BadParameter("it is NAME=VALUE, such as endpoint=http://127.0.0.1:9000")
        options[name] = given
    return options or None


_PARSERS: dict[Kind, Callable[[click.Context, click.Parameter, Any], Any]] = {
    "age": _age,
    "reason": _reason,
    "by table": _by_table,
    "runs": _runs,
    "gaps": _gaps,
    "gates": _gates,
    "versions": _versions,
    "storage": _storage,
}
