"""In which order are partial results added, so that the bits do not depend on how a table was chunked?

Rows are cut into micro-blocks on a fixed grid anchored at row 0. A binary tree stands over the block numbers: node
``(level, index)`` covers blocks ``index * 2**level`` up to ``(index + 1) * 2**level``. A chunk hands on the complete
subtree roots that it covers, never one sum of its own, so any chunking into whole micro-blocks meets in the same nodes
and every float64 addition has the same two operands. What is left at the end of a table (the roots of the binary
representation of its number of blocks) is folded from the right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")

_BY_WIDTH = ((8, 32768), (16, 16384), (32, 8192), (1024, 4096))
"""Widest d, and rows of its micro-block: about 2 MiB of float64 for narrow tables (the Python cost of a panel is
spread over more bytes), 4096 rows where the product itself is long; a constant table, never timed at run time."""


def micro_block_rows(d: int) -> int:
    """Rows of a micro-block (and of a panel) for tables of ``d`` components: a power of two."""
    return next((rows for width, rows in _BY_WIDTH if d <= width), 2048)


@dataclass(frozen=True, slots=True)
class Node(Generic[V]):
    """A complete subtree: its level, its index within the level, and what was reduced over its rows."""

    level: int
    index: int
    value: V


Forest = tuple[Node[V], ...]
"""Subtree roots in row order, no two of which are siblings."""


def graft(forests: Iterable[Sequence[Node[V]]], merge: Callable[[V, V], V]) -> Forest[V]:
    """Join forests over adjacent rows (in row order): siblings merge, and so do their parents."""
    roots: list[Node[V]] = []
    for forest in forests:
        for node in forest:
            roots.append(node)
            while len(roots) > 1 and _are_siblings(roots[-2], roots[-1]):
                right, left = roots.pop(), roots.pop()
                roots.append(Node(left.level + 1, left.index // 2, merge(left.value, right.value)))
    return tuple(roots)


def fold(forest: Sequence[Node[V]], merge: Callable[[V, V], V]) -> V:
    """One value for the whole table: the roots that are left, merged from the right."""
    value = forest[-1].value
    for node in reversed(forest[:-1]):
        value = merge(node.value, value)
    return value


def _are_siblings(left: Node[V], right: Node[V]) -> bool:
    return left.level == right.level and left.index % 2 == 0 and left.index + 1 == right.index
