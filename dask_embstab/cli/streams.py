"""How do results and messages leave a command? A stream that is full, closed or of another encoding
fails no run.
"""

from __future__ import annotations

import contextlib
import os
import sys

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
