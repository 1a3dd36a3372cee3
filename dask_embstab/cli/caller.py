"""The command line as messages name it: ``--width 8``, ``embstab series settings SERIES
--min-matched 5``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from dask_embstab.repairs import PythonVerb

_NAMES = {"Series.change": "series settings", "ingest": "import"}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command below ``root``, and the verb through which options are set that it does not take
    itself.
    """

    root: click.Group
    command: click.Command
    through: str = ""

    def mention(self, name: str, value: Any) -> str:
        """``--name value`` as this command, or the one ``through`` which it is set, writes it."""
        for command in filter(None, (self.command, self._named(self.through))):
            if written := _written(command, name, value):
                return written
        return PythonVerb().mention(name, value)

    def option(self, name: str, value: Any) -> str | None:
        """The same, or the whole other command; None where neither has the option."""
        if written := _written(self.command, name, value):
            return written
        other = self._named(self.through)
        return (
            self.call(self.through, {name: value})
            if other and _written(other, name, value)
            else None
        )

    def call(self, function: str, options: Mapping[str, Any]) -> str:
        """Another command; what only Python has is named as such."""
        command = self._named(function)
        if command is None:
            return f"{PythonVerb().call(function, options)} in Python"
        places = [
            p.human_readable_name.upper()
            for p in command.params
            if isinstance(p, click.Argument) and p.required
        ]
        given = [_written(command, name, value) or "" for name, value in options.items()]
        return f"`{' '.join(['embstab', _name(function), *places, *filter(None, given)])}`"

    def _named(self, function: str) -> click.Command | None:
        command: click.Command | None = self.root
        for word in _name(function).split():
            command = command.commands.get(word) if isinstance(command, click.Group) else None
        return command if command is not self.root else None


def _name(function: str) -> str:
    return _NAMES.get(function, function.lower().replace(".", " "))


def _written(command: click.Command, name: str, value: Any) -> str | None:
    """An option of a command, None where it has none of that name (or no way to give that
    value).
    """
    option = next(
        (p for p in command.params if isinstance(p, click.Option) and p.name == name), None
    )
    if option is None:
        return None
    names = option.secondary_opts if value is False else option.opts
    flag = max(names, key=len, default=None)
    if flag is None or option.is_flag or value is None:
        return flag
    by_table = isinstance(value, Mapping)
    values = [f"{key}={one}" for key, one in value.items()] if by_table else [str(value)]
    return " ".join(f"{flag} {shlex.quote(one)}" for one in values)
