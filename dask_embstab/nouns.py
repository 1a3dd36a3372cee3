"""What does the user call the rows of the tables? ``items`` and ``users``, unless the configuration
says ``documents`` and ``queries``.

Names on disk, options and keys of JSON stay. The words of messages, reports and tables for people
are replaced in one place each, where a text is complete (`repairs.told`, `render.text`): words of
prose, and none that touches what paths, options, code and quoted values are made of. Only the
standard library is imported.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from dask_embstab.arguments import shown

CONFIGURED = {"items": "embstab.items-as", "users": "embstab.users-as"}
"""By table, the key in Dask's configuration: a plural, or ``singular/plural``."""
NAME = re.compile(r"[^\W\d_][\w -]{0,39}(/[^\W\d_][\w -]{0,39})?")
_WORD = re.compile(
    r"(?<![\w/\\.=:@#<\[{'\"`~-])(?<!this )(?<!\w\()(?:(an?)( +))?\b(items?|users?)\b"
    r"(?![\w/\\=@\[(<\"`~-]|'(?!s\b)|\.\w|:\S)",
    re.IGNORECASE,
)
_BOTH_WAYS = ("movies", "cookies", "selfies", "zombies", "calories", "genies")
"""Plurals whose singular ends with ie."""
Names = tuple[str, str]


def chosen() -> Names:
    """The names of both tables that are configured now; empty where there is none."""
    dask = sys.modules.get("dask")  # nothing is configured before it is imported
    get: Any = getattr(getattr(dask, "config", None), "get", lambda _, default: default)
    items, users = (get(key, "") for key in CONFIGURED.values())
    return (
        items if is_name(items) else "",
        users if is_name(users) else "",
    )


def is_name(given: Any) -> bool:
    """Whether rows can be called so."""
    return isinstance(given, str) and NAME.fullmatch(given) is not None


def unusable(given: Any) -> str | None:
    """What is wrong with a name; None where nothing is."""
    if is_name(given):
        return None
    return (
        "rows are called by a plural such as documents, or by both forms, mouse/mice, of at most 40"
        f" letters, digits, spaces and hyphens; {shown(given)} came"
    )


def spoken(text: str, names: Names | None = None) -> str:
    """A text with the words for items and users replaced by those that were chosen.

    >>> spoken("an item of /a/items, and items='x': users", ("documents", "queries"))
    "a document of /a/items, and items='x': queries"
    """
    names = chosen() if names is None else names
    if not any(names):
        return text

    def replaced(match: re.Match[str]) -> str:
        article, space, word = match.groups()
        name = names[word.lower().startswith("user")]
        if not name:
            return match[0]
        singular, _, plural = name.rpartition("/")
        one = word[-1].lower() != "s"
        noun = (singular or _singular(plural)) if one else plural
        if word[0].isupper():
            noun = noun[0].upper() + noun[1:]
        if article is None:
            return noun
        fitting = "an" if one and noun[0].lower() in "aeiou" else "a"
        return f"{fitting.capitalize() if article[0].isupper() else fitting}{space}{noun}"

    return _WORD.sub(replaced, text)


def _singular(plural: str) -> str:
    if plural.endswith("ies") and not plural.endswith(_BOTH_WAYS):
        return f"{plural[:-3]}y"
    return plural.removesuffix("s")
