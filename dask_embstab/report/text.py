"""Results as lines for a person to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LONG = 8


def render(title: str, result: Mapping[str, Any]) -> str:
    """Nested values as indented lines; long lists are cut, absent values left out."""
    return "\n".join([f"{title}:", *_lines(result, "  ")])


def _lines(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in values.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{key}: {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(_text(inner) for inner in value[:_LONG])
        return shown + (f", ... ({len(value)} in all)" if len(value) > _LONG else "")
    return str(value)
