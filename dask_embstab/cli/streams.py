"""How do results and messages leave a command? A stream that is full, closed or of another encoding
fails no run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

_BLOCK = 1 << 20


def write_line(*parts: str, err: bool = False) -> OSError | None:
    """Write the parts of a line to stdout (or stderr), what it cannot encode escaped; the error
    where it takes nothing (any more).
    """
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        for block in _blocks(parts):
            click.echo(
                block.encode(encoding, "backslashreplace").decode(encoding), err=err, nl=False
            )
        click.echo(err=err)
    except OSError as error:
        with contextlib.suppress(
            Exception
        ):  # what is buffered goes nowhere, so that the exit does not fail over it
            _redirect(stream.fileno())
        return error
    except ValueError as error:  # a closed stream
        return OSError(None, str(error))
    return None


def _blocks(parts: Iterable[str]) -> Iterator[str]:
    """The same text in blocks of a bounded number of characters."""
    held, n = list[str](), 0
    for part in parts:
        for at in range(0, len(part), _BLOCK):
            held.append(part[at : at + _BLOCK])
            n += len(held[-1])
            if n >= _BLOCK:
                yield "".join(held)
                held, n = [], 0
    yield "".join(held)


def say(text: str) -> None:
    """A message on stderr, where there is one."""
    write_line(text, err=True)


def _redirect(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def json_line(values: dict[str, Any]) -> list[str]:
    """One line of ASCII, in parts that are never joined; an iterator becomes a list, of which one
    entry at a time is held as anything but text.
    """
    parts = ["{"]
    for n, (key, value) in enumerate(values.items()):
        parts.append(f"{', ' * bool(n)}{json.dumps(key)}: ")
        if isinstance(value, Iterator):
            parts.append("[")
            parts.extend(f"{', ' * bool(i)}{_json_value(entry)}" for i, entry in enumerate(value))
            parts.append("]")
        else:
            parts.append(_json_value(value))
    return [*parts, "}"]


def _json_value(value: Any) -> str:
    encode = getattr(value, "json", None)  # what is stored as JSON has a text already
    try:
        text = json.dumps(value, allow_nan=False) if encode is None else encode()
    except ValueError:
        text = json.dumps(_finite(value))
    return text.replace("\x7f", "\\u007f")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
