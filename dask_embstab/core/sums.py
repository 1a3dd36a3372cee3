"""Values that are sums over rows: those of two parts, added field by field, are those of
the whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from functools import reduce
from operator import add
from typing import Any, Self, TypeVar

V = TypeVar("V", bound=Any)


class Sums:
    """A dataclass of numbers, arrays and other sums."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        """Over the rows of both."""
        names = (field.name for field in fields(self))  # type: ignore[arg-type]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))

    def __sub__(self, other: Self) -> Self:
        """Over the rows of this that are not in ``other``."""
        names = (field.name for field in fields(self))  # type: ignore[arg-type]
        return type(self)(*(getattr(self, name) - getattr(other, name) for name in names))


def total(parts: Iterable[V]) -> V:
    """The sum of parts, in their order; there is at least one."""
    return reduce(add, parts)
