"""Every option of the verbs, once: its name, default and help, what it must be, which verbs take
it, and how the command line spells it.

Python signatures repeat names and defaults, so that type checkers and editors see them;
``tests/test_options_once.py`` holds that they, the commands, the settings of a series and
``docs/command-line.md`` agree with these records. A new option is one record in
the module of its group and one parameter of its verb. Only the standard library is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.options.command_line import COMMAND_LINE
from dask_embstab.options.comparison import COMPARISON
from dask_embstab.options.exchange import EXCHANGE
from dask_embstab.options.fitting import FITTING
from dask_embstab.options.record import SETTINGS_VERBS, Kind, Option
from dask_embstab.options.series import SERIES
from dask_embstab.options.tables import TABLES
from dask_embstab.repairs import option

__all__ = [
    "FIT",
    "JOIN",
    "OPTIONS",
    "SELECTION",
    "SETTINGS",
    "SETTINGS_VERBS",
    "STORAGE",
    "Kind",
    "Option",
    "options_of",
    "require_each",
    "require_rank",
    "taken",
]

OPTIONS: tuple[Option, ...] = (*FITTING, *TABLES, *COMPARISON, *EXCHANGE, *SERIES, *COMMAND_LINE)
"""In the order in which ``--help`` and the docs list them."""


def options_of(verb: str) -> dict[str, Option]:
    """The options that a verb takes, in Python, on the command line or in both, by name."""
    return {one.name: one for one in OPTIONS if verb in (*one.verbs, *one.python, *one.commands)}


FIT = options_of("fit")
STORAGE = FIT["storage_options"]
"""Of every verb and command that takes places."""
SETTINGS = {name: known for name, known in options_of("Series.init").items() if known.is_setting}
SELECTION = ("weights", "only", "counts", "min_count", "sample", "anchors", "seed", "pairs")
"""Options of a fit that say which rows decide the rotation."""
JOIN = ("duplicates", "scratch", "join_memory")
"""Options of whatever joins rows by id."""


def require_each(verb: str, given: Mapping[str, Any]) -> None:
    """Raise `InputError` unless every option of this verb can have the value given."""
    known = options_of(verb)
    for name, value in given.items():
        known[name].require(value)


def taken(arguments: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of a verb's arguments (its ``locals()``) that have these names."""
    return {name: arguments[name] for name in names if name in arguments}


def require_rank(keep: str | None, rank: int | None) -> None:
    """Raise `InputError` where a rank is given that has no scores to truncate."""
    if keep == "geometry" and rank is not None:
        raise InputError(
            f"{option('rank')} truncates scores; with {option(keep='geometry')} use"
            f" {option('width')} instead"
        )
