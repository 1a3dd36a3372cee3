"""What can go wrong, as one tree; every class refines the builtin it is a kind of.

::

    EmbstabError
    ├── InputError (ValueError)                 what was given cannot be used; the message says what to do
    │   ├── NotFiniteError                      vectors with NaN or infinite values
    │   ├── NotARunError                        the path holds no run, or only half of one
    │   ├── IdError                             ids that are missing, duplicated or of another type
    │   │   └── TooFewMatchedError              fewer rows shared with the reference than the alignment needs
    │   ├── ConditionError                      a table beyond what the asked route can factorize
    │   └── OutputExistsError (FileExistsError) the output's place is taken
    ├── DamageError (OSError)                   stored bytes that cannot be read back as they were written
    ├── AccessError (OSError)                   a place out of reach: permissions, the network
    ├── HoldError (RuntimeError)                a run that was looked at and not published
    └── RetryError (RuntimeError)               another process was quicker, or the scheduler went away

    EmbstabWarning (UserWarning)                the answer is right, and there is something to know about it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class EmbstabError(Exception):
    """Base of every error that this library raises on purpose."""


class InputError(EmbstabError, ValueError):
    """What was given cannot be used; the message says what must hold, what came and what to do."""


class NotARunError(InputError):
    """The path holds no run, or a run whose writing was not finished."""


class IdError(InputError):
    """Ids that are missing, duplicated where rows are joined, or of another type than the reference's."""


class TooFewMatchedError(IdError):
    """Fewer rows are shared with the reference than the alignment needs."""


class NotFiniteError(InputError):
    """Vectors with NaN or infinite values, or that would become so where they land."""


class ConditionError(InputError):
    """A table too ill-conditioned for the route that was asked for."""


class OutputExistsError(InputError, FileExistsError):
    """Something stands where the output should go, and ``overwrite`` was not asked for."""


class DamageError(EmbstabError, OSError):
    """Stored bytes that are missing, truncated or fail their checksum."""


class AccessError(EmbstabError, OSError):
    """A place that this process cannot reach: permissions, the network, credentials. Nothing is known to be damaged."""


class HoldError(EmbstabError, RuntimeError):
    """A run was held: it was looked at, nothing was published, and the message says why; ``verdicts`` are the gates'."""

    def __init__(self, message: str, verdicts: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.verdicts = tuple(verdicts)


class RetryError(EmbstabError, RuntimeError):
    """Another process was quicker or is at work on the same thing, or a cluster's scheduler went away; call again."""


class EmbstabWarning(UserWarning):
    """The answer is right, and there is something about it that the user should know."""


def first_few(rows: Sequence[int] | Any, start: int = 0) -> str:
    """Row numbers as messages name them: the first five, and how many more there are."""
    named = ", ".join(str(start + int(row)) for row in rows[:5])
    return named + (f" and {len(rows) - 5} more near them" if len(rows) > 5 else "")
