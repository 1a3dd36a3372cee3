"""Which columns does a name, a pattern or a list stand for? Of frames and of files of columns
alike.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.repairs import option

_NUMBERED = re.compile(r"(.*?)(\d+)")
_SHOWN = 12


def named_columns(names: Sequence[Any], wanted: Any, where: str, listed: str = "") -> list[Any]:
    """The names that a name, a pattern (``emb_*``), or a list of names or positions stands for;
    ``listed`` describes all of them.

    Raises `InputError` where there is none of that name.
    """
    listed = listed or shown_names(names)
    if isinstance(wanted, str):
        if wanted in names:
            return [wanted]
        texts = [name for name in names if isinstance(name, str)]
        if matches := fnmatch.filter(texts, wanted):
            return in_order(matches)
        return [known_column(names, wanted, where, listed)]
    try:
        return [
            names[one] if isinstance(one, int) else known_column(names, one, where, listed)
            for one in wanted
        ]
    except (TypeError, IndexError) as error:
        raise InputError(
            f"{option('vector')} is a name, a pattern such as emb_*, or a list of names or"
            f" positions of columns; {where} has {len(names)} columns ({error})"
        ) from error


def known_column(names: Sequence[Any], name: Any, where: str, listed: str = "") -> Any:
    """The name; an error that lists all where there is none such."""
    if name not in names:
        raise InputError(f"{where} has no column {name!r}; it has {listed or shown_names(names)}")
    return name


def in_order(names: list[str]) -> list[str]:
    """By their numbers where all end with one (emb_2 before emb_10), else as they stand."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    numbers = [int(match[2]) for match in matches if match]
    if len(set(numbers)) < len(names):
        return names
    return [name for _, name in sorted(zip(numbers, names, strict=True))]


def series_of(name: str) -> str | None:
    """What stands before the number that ends a name; None where none does."""
    match = _NUMBERED.fullmatch(name)
    return None if match is None else match[1]


def shown_names(described: Sequence[Any]) -> str:
    """Columns as messages list them: the first few, and how many more."""
    more = f" and {len(described) - _SHOWN} more" if len(described) > _SHOWN else ""
    return ", ".join(map(str, described[:_SHOWN])) + more
