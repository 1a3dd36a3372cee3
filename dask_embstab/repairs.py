"""How does a message name an option? In the language of whoever called: ``width=8`` in Python,
``--width 8`` on a shell.

An error is raised deep below the verb that was called, perhaps in a worker process, and does not
know that verb. So its texts hold marks (`option`, `call`), and the outermost verb (``errors.verb``,
or a command) says how to render them. A repair that names an option which that verb does not have
is left out. Words for tables are those that the user chose (`nouns`). Only the standard library is
imported.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from dask_embstab.nouns import Names, spoken

_MARK = re.compile("\x02([^\x02\x03]*)\x03")
_LINES = re.compile(r"\s*[\r\n]\s*")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def option(name: str = "", /, **value: Any) -> str:
    """A mark for an option of the verb that was called: ``option("width")``, or with a value
    ``option(width=8)``.
    """
    ((name, given),) = value.items() if value else ((name, None),)
    return _marked([name, given])


def call(function: str, **options: Any) -> str:
    """A mark for another verb, such as ``create_run`` or ``Series.change``, with options of it
    (None: any value).
    """
    return _marked([function, options, "call"])


def printable(text: str) -> str:
    r"""The text with what steers a terminal escaped: control characters (C0, C1), separators,
    overrides of direction.

    >>> printable("a\x1b[31m\x9bb\nc")
    'a\\x1b[31m\\x9bb\\x0ac'
    """
    return _CONTROLS.sub(_escape, text)


class Caller(Protocol):
    """The verb that was called, and the language it was called in."""

    def mention(self, name: str, value: Any) -> str:
        """An option as it is written in this language."""

    def option(self, name: str, value: Any) -> str | None:
        """The same as a thing to do; None where neither this verb nor one that sets options for it
        has the option.
        """

    def call(self, function: str, options: Mapping[str, Any]) -> str:
        """Another verb as it is called in this language."""


@dataclass(frozen=True, slots=True)
class PythonVerb:
    """A function and the names of its options; what it does not take itself, another verb may set
    ``through`` which.
    """

    options: frozenset[str] = frozenset()
    through: str = ""
    settings: frozenset[str] = frozenset()

    def mention(self, name: str, value: Any) -> str:
        """``name=value``."""
        return f"{name}={'' if value is None else repr(value)}"

    def option(self, name: str, value: Any) -> str | None:
        """``name=value``, or a call of the verb that sets it."""
        if name in self.options:
            return self.mention(name, value)
        return self.call(self.through, {name: value}) if name in self.settings else None

    def call(self, function: str, options: Mapping[str, Any]) -> str:
        """``es.function(..., name=value)``, ``series.method(name=value)``."""
        given = [
            f"{name}={'...' if value is None else repr(value)}" for name, value in options.items()
        ]
        if function.startswith("Series.") and function != "Series.init":
            return f"series.{function.removeprefix('Series.')}({', '.join(given)})"
        return f"es.{function}({', '.join(['...', *given])})"


_ANY = PythonVerb()
_caller: ContextVar[Caller | None] = ContextVar("embstab_caller", default=None)


@contextlib.contextmanager
def called_by(caller: Caller) -> Iterator[Caller]:
    """Messages of the block are put to ``caller``, unless it lies in the block of another one."""
    outer = _caller.get()
    if outer is not None:
        yield outer
        return
    token = _caller.set(caller)
    try:
        yield caller
    finally:
        _caller.reset(token)


def current_caller() -> Caller | None:
    """The outermost verb that is at work in this thread."""
    return _caller.get()


def format_message(
    message: str,
    repairs: Iterable[str] = (),
    caller: Caller | None = None,
    names: Names | None = None,
) -> str:
    """A message and the repairs that the caller can make, as one printable line; with the ``names``
    of tables that were chosen. Another verb's option that the caller's own verb has is no repair of
    its own.
    """
    to = caller or _caller.get() or _ANY
    possible, offered = list[str](), set[str]()
    for repair in repairs:
        own, of_calls = _options_in(repair)
        is_offered = bool(of_calls) and of_calls <= offered
        text = None if is_offered else _rendered(repair, to.option, to, names)
        if text is not None:
            possible.append(text)
            offered |= own
    text = _rendered(message, to.mention, to, names)
    whole = f"{text}; {', or '.join(possible)}" if possible else str(text)
    return printable(_LINES.sub(" ", whole))


def _options_in(text: str) -> tuple[set[str], set[str]]:
    """Names of the options that a repair names: of the verb that was called, of other verbs."""
    own, of_calls = set[str](), set[str]()
    for mark in _MARK.finditer(text):
        if (known := _parsed(mark)) is not None:
            name, value, is_call = known
            of_calls.update(value) if is_call else own.add(name)
    return own, of_calls


def _parsed(mark: re.Match[str]) -> tuple[str, Any, bool] | None:
    """Name, value and whether it is a call; None of what somebody's name only looks like."""
    try:
        name, value, *is_call = json.loads(mark[1])
    except (ValueError, TypeError):
        return None
    is_mark = isinstance(name, str) and (not is_call or isinstance(value, dict))
    return (name, value, bool(is_call)) if is_mark else None


def _rendered(
    text: str,
    option_text: Callable[[str, Any], str | None],
    caller: Caller,
    names: Names | None,
) -> str | None:
    """The text without marks; None where it names an option that there is not."""
    missing = False

    def replaced(mark: re.Match[str]) -> str:
        nonlocal missing
        if (known := _parsed(mark)) is None:
            return mark[0]
        name, value, is_call = known
        written = caller.call(name, value) if is_call else option_text(name, value)
        missing = missing or written is None
        return written or ""

    # A mark stands between texts: what it becomes is no prose.
    parts, at = list[str](), 0
    for mark in _MARK.finditer(text):
        parts += [spoken(text[at : mark.start()], names), replaced(mark)]
        at = mark.end()
    rendered = "".join([*parts, spoken(text[at:], names)])
    return None if missing else rendered


def _marked(values: list[Any]) -> str:
    return f"\x02{json.dumps(values, default=str)}\x03"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
