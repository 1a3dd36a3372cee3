"""How do results and messages leave a command? A stream that is full, closed or of another encoding
fails no run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

_BLOCK = 1 << 20


def write_line(text: str, *, err: bool = False) -> OSError | None:
    """Write to stdout (or stderr) what it can encode, the rest escaped; the error where it takes
    nothing (any more).
    """
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        for at in range(0, len(text), _BLOCK):
            click.echo(
                text[at : at + _BLOCK].encode(encoding, "backslashreplace").decode(encoding),
                err=err,
                nl=False,
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


def say(text: str) -> None:
    """A message on stderr, where there is one."""
    write_line(text, err=True)


def _redirect(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def json_line(values: dict[str, Any]) -> str:
    """One line of ASCII; an iterator becomes a list, of which one entry at a time is held as
    anything but text.
    """
    return (
        "{"
        + ", ".join(f"{json.dumps(key)}: {_json_value(value)}" for key, value in values.items())
        + "}"
    )


def _json_value(value: Any) -> str:
    if isinstance(value, Iterator):
        return "[" + ", ".join(map(_json_value, value)) + "]"
    try:
        text = json.dumps(value, allow_nan=False)
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
