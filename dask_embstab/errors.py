"""What can go wrong, as one tree; every class refines the builtin it is a kind of.

::

    EmbstabError
    ├── InputError (ValueError)                 what was given cannot be used; the message says
    │   │                                       what to do
    │   ├── NotFiniteError                      vectors with NaN or infinite values
    │   ├── NotARunError                        the path holds no run, or only half of one
    │   ├── IdError                             ids that are missing, duplicated or of another type
    │   │   └── TooFewMatchedError              fewer rows shared with the reference than the
    │   │                                       alignment needs
    │   ├── SpaceError                          vectors of two spaces, which must not meet
    │   ├── ConditionError                      a table beyond what the asked route can factorize
    │   └── OutputExistsError (FileExistsError) the output's place is taken
    ├── DamageError (OSError)                   stored bytes that cannot be read back as they were
    │                                           written
    ├── AccessError (OSError)                   a place out of reach: permissions, the network
    ├── InputChangedError (InputError, RetryError)  an input that was written while it was read
    ├── HoldError (RuntimeError)                a run that was looked at and not published
    └── RetryError (RuntimeError)               another process was quicker, or the scheduler went
                                                away

    EmbstabWarning (UserWarning)                the answer is right, and there is something to know
                                                about it
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, Self, TypeVar

from dask_embstab import nouns
from dask_embstab.arguments import mismatch
from dask_embstab.repairs import Caller, PythonVerb, called_by, current_caller, format_message

P = ParamSpec("P")
R = TypeVar("R")


class EmbstabError(Exception):
    """Base of every error that this library raises on purpose.

    ``message`` says what must hold and what came, each of the ``repairs`` one thing to do. Both
    name options by marks (`repairs.option`); the text is that of the verb that was called, and
    leaves out repairs which that verb cannot make.
    """

    def __init__(self, message: str, *repairs: str) -> None:
        super().__init__(message)
        self.args = (message, *repairs)
        self.caller: Caller | None = None
        self.names: nouns.Names | None = None

    @property
    def message(self) -> str:
        """What must hold and what came, as it was raised."""
        return str(self.args[0])

    @property
    def repairs(self) -> tuple[str, ...]:
        """What could be done about it, as it was raised."""
        return tuple(map(str, self.args[1:]))

    def __str__(self) -> str:
        return format_message(self.message, self.repairs, self.caller, self.names)


class InputError(EmbstabError, ValueError):
    """What was given cannot be used; the message says what must hold, what came and what to do."""


class NotARunError(InputError):
    """The path holds no run, or a run whose writing was not finished."""


class IdError(InputError):
    """Ids that are missing, duplicated where rows are joined, or of another type than the
    reference's.
    """


class TooFewMatchedError(IdError):
    """Fewer rows are shared with the reference than the alignment needs."""


class NotFiniteError(InputError):
    """Vectors with NaN or infinite values, or that would become so when transformed."""


class SpaceError(InputError):
    """Vectors of two spaces, which must not be compared or mixed."""


class ConditionError(InputError):
    """A table too ill-conditioned for the route that was asked for."""


class OutputExistsError(InputError, FileExistsError):
    """Something stands where the output should go, and ``overwrite`` was not asked for."""

    def __new__(cls, *arguments: Any) -> Self:
        """By the class whose memory it has: what pickles by ``__new__`` would take ValueError's."""
        return FileExistsError.__new__(cls, *arguments)


class DamageError(EmbstabError, OSError):
    """Stored bytes that are missing, truncated or fail their checksum."""


class AccessError(EmbstabError, OSError):
    """A place that this process cannot reach: permissions, the network, credentials. Nothing is
    known to be damaged.
    """


class HoldError(EmbstabError, RuntimeError):
    """A run was held: it was looked at, nothing was published, and the message says why;
    ``verdicts`` are the gates'.
    """

    def __init__(
        self, message: str, *repairs: str, verdicts: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        super().__init__(message, *repairs)
        self.verdicts = tuple(verdicts)


class RetryError(EmbstabError, RuntimeError):
    """Another process was quicker or is at work on the same thing, or a cluster's scheduler went
    away; call again.
    """


class InputChangedError(InputError, RetryError):
    """An input was written or replaced while it was read: what was made of it is of no use, and
    nothing was published.
    """


class EmbstabWarning(UserWarning):
    """The answer is right, and there is something about it that the user should know."""

    def __init__(self, message: str, *repairs: str) -> None:
        super().__init__(message, *repairs)
        self.caller, self.names = current_caller(), nouns.chosen()

    def __str__(self) -> str:
        return format_message(str(self.args[0]), map(str, self.args[1:]), self.caller, self.names)


def verb(
    *also: Callable[..., Any],
    through: str = "",
    settings: Iterable[str] = (),
    around: Callable[..., AbstractContextManager[None]] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A public function whose errors name its own options, in Python, unless another verb or a
    command called it.

    It also takes the options of ``also``; ``settings`` are what ``through`` (another verb) sets for
    it. ``around`` is called with the same arguments, of whatever kind, and sees every error.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = {
            name for known in (function, *also) for name in inspect.signature(known).parameters
        }
        called = PythonVerb(frozenset(names), through, frozenset(settings))

        @functools.wraps(function)
        def call(*arguments: P.args, **options: P.kwargs) -> R:
            context = around(*arguments, **options) if around else contextlib.nullcontext()
            with called_by(called) as caller, context:
                try:
                    if wrong := mismatch(function, arguments, options):
                        raise InputError(wrong)
                    return function(*arguments, **options)
                except EmbstabError as error:
                    error.caller, error.names = caller, nouns.chosen()
                    raise

        call.__signature__ = _signature(function, also)  # type: ignore[attr-defined]
        return call

    return decorate


def _signature(
    function: Callable[..., Any], also: Iterable[Callable[..., Any]]
) -> inspect.Signature:
    """The function's own, its ``**options`` written out as what ``also`` takes besides."""
    own = inspect.signature(function)
    named = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
    if not also or len(named) == len(own.parameters):
        return own
    taken = {one.name for one in named}
    for known in also:
        for one in inspect.signature(known).parameters.values():
            if one.name not in taken and one.default is not one.empty:
                named.append(one.replace(kind=one.KEYWORD_ONLY))
                taken.add(one.name)
    return own.replace(parameters=named)


def first_few(rows: Sequence[int] | Any, start: int = 0) -> str:
    """Row numbers as messages name them: the first five, and how many more there are."""
    named = ", ".join(str(start + int(row)) for row in rows[:5])
    return named + (f" and {len(rows) - 5} more near them" if len(rows) > 5 else "")
