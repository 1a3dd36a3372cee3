"""Results as lines for a person to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from dask_embstab.nouns import spoken
from dask_embstab.repairs import printable

_LONG = 8


def render(title: str, result: Mapping[str, Any]) -> str:
    """Nested values as indented lines; long lists are cut, absent values left out."""
    return person_text([f"{title}:", *_lines(result, "  ")])


def person_text(lines: Iterable[str]) -> str:
    """Lines for a person to read, with the words that were chosen for items and users."""
    return "\n".join(printable(spoken(line)) for line in lines)


def markup_text(text: str) -> str:
    """Plain text as the text of HTML or SVG: what both reserve, and what steers a terminal, is
    escaped. The words for items and users are those that were chosen.
    """
    return escape(printable(spoken(text)))


def _lines(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in values.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, Iterator) or (
            isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value)
        ):
            yield f"{indent}{key}:"
            yield from (f"{indent}  {_row(row)}" for row in value)
        else:
            yield f"{indent}{key}: {_text(value)}"


def _row(row: Mapping[str, Any]) -> str:
    """One line of a table: what is there and not nested."""
    shown = {
        key: value
        for key, value in row.items()
        if value not in (None, [], ()) and not _is_nested(value)
    }
    return ", ".join(f"{key} {_text(value)}" for key, value in shown.items())


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(map(_is_nested, value))
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(_text(inner) for inner in value[:_LONG])
        return shown + (f", ... ({len(value)} in all)" if len(value) > _LONG else "")
    return str(value)
