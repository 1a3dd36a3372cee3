"""In which order are partial results added, so that the bits do not depend on how a table was
chunked?

Rows are cut into micro-blocks on a fixed grid anchored at row 0. A binary tree stands over the
block numbers: node ``(level, index)`` covers blocks ``index * 2**level`` up to ``(index + 1) *
2**level``. A chunk hands on the complete subtree roots that it covers, never one sum of its own, so
any chunking into whole micro-blocks meets in the same nodes and every float64 addition has the same
two operands. What is left at the end of a table (the roots of the binary representation of its
number of blocks) is folded from the right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")

_BY_WIDTH = ((8, 32768), (16, 16384), (32, 8192), (1024, 4096))
"""Widest d, and rows of its micro-block: about 2 MiB of float64 for narrow tables (the Python cost
of a panel is spread over more bytes), 4096 rows where the product itself is long; a constant table,
never timed at run time.
"""


def micro_block_rows(d: int) -> int:
    """Rows of a micro-block (and of a panel) for tables of ``d`` components: a power of two."""
    return next((rows for width, rows in _BY_WIDTH if d <= width), 2048)


@dataclass(frozen=True, slots=True)
class Node(Generic[V]):
    """A complete subtree: its level, its index within the level, and what was reduced over its
    rows.
    """

    level: int
    index: int
    value: V


Forest = tuple[Node[V], ...]
"""Subtree roots in row order, no two of which are siblings."""


class Roots(Generic[V]):
    """Subtree roots that grow at the right end: siblings merge as soon as both are there, and so do
    their parents.
    """

    def __init__(self, merge: Callable[[V, V], V]) -> None:
        self._merge = merge
        self._roots: list[Node[V]] = []

    def push(self, node: Node[V]) -> None:
        """Add the root of the rows that follow."""
        while self._roots:
            left = self._roots[-1]
            if (left.level, left.index) != (node.level, node.index - 1) or left.index % 2:
                break
            self._roots.pop()
            node = Node(left.level + 1, left.index // 2, self._merge(left.value, node.value))
        self._roots.append(node)

    def forest(self) -> Forest[V]:
        """The roots so far."""
        return tuple(self._roots)


def merge_forests(forests: Iterable[Sequence[Node[V]]], merge: Callable[[V, V], V]) -> Forest[V]:
    """Join forests over adjacent rows (in row order)."""
    roots = Roots(merge)
    for forest in forests:
        for node in forest:
            roots.push(node)
    return roots.forest()


def fold(forest: Sequence[Node[V]], merge: Callable[[V, V], V]) -> V:
    """One value for the whole table: the roots that are left, merged from the right."""
    value = forest[-1].value
    for node in reversed(forest[:-1]):
        value = merge(node.value, value)
    return value
