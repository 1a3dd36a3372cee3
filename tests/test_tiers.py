"""What the short tier does not do: assert times, wait by sleeping, compare peaks of memory. A busy
machine makes such a test fail where nothing is wrong.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
CLOCKS = {"perf_counter", "monotonic", "process_time", "time", "time_ns"}
PEAKS = {"peak", "peak_of", "rss", "VmHWM", "ru_maxrss", "maxrss"}
DELAYS = {
    ("test_cluster.py", "later"): "a worker that is slow: chunks are left when its cluster goes",
    ("test_cluster.py", "test_a_scheduler_started_elsewhere"): "asks again until it is so",
    ("test_kills.py", "struck"): "a process is killed at any time",
    ("test_visibility.py", "writer"): "tasks end one after another, before and after a failure",
}
"""Where a sleep makes something slow, or is between two looks; nothing hangs on its length. (Those
of a random length strike at random.)
"""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_long(node: ast.AST) -> bool:
    """Whether a function, or an assignment to ``pytestmark``, has the mark."""
    parts = node.decorator_list if isinstance(node, Function) else [node]
    return any(
        "mark.long" in ast.unparse(part) for part in parts if "param" not in ast.unparse(part)
    )


def parts_of(tree: ast.AST) -> Iterator[tuple[Function, list[ast.AST]]]:
    """Every function, with its nodes but for those of functions in it."""
    waiting: list[tuple[ast.AST, list[ast.AST]]] = [(tree, [])]
    while waiting:
        node, nodes = waiting.pop()
        if isinstance(node, Function):
            nodes = []
            yield node, nodes
        nodes.append(node)
        waiting += [(child, nodes) for child in ast.iter_child_nodes(node)]


@functools.cache
def short() -> list[tuple[str, str, list[ast.AST]]]:
    """File, name and nodes of every function that runs in the short tier."""
    shown = []
    for path in sorted(TESTS.glob("*.py")):
        tree = ast.parse(path.read_text())
        whole = any(
            is_long(node)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        )
        # A list of nodes is filled while its function's parts are walked.
        for function, nodes in [] if whole else list(parts_of(tree)):
            if not is_long(function):
                shown.append((path.name, function.name, nodes))
    assert len(shown) > 1000
    return shown


def called(node: ast.AST) -> set[str]:
    """Names of what is called within."""
    calls = (part.func for part in ast.walk(node) if isinstance(part, ast.Call))
    return {func.attr if isinstance(func, ast.Attribute) else ast.unparse(func) for func in calls}


def test_nothing_is_asserted_of_a_clock() -> None:
    timed = [
        f"{file}:{node.lineno}"
        for file, _, nodes in short()
        for node in nodes
        if isinstance(node, ast.Assert) and called(node.test) & CLOCKS
    ]
    assert not timed


def test_nothing_waits_by_sleeping() -> None:
    asleep = {
        (file, name)
        for file, name, nodes in short()
        for node in nodes
        if isinstance(node, ast.Call) and called(node) == {"sleep"}
    }
    assert asleep == DELAYS.keys()


def test_peaks_are_compared_in_the_long_tier() -> None:
    compared = [
        f"{file}:{node.lineno}"
        for file, _, nodes in short()
        for node in nodes
        if isinstance(node, ast.Assert)
        for part in ast.walk(node.test)
        if isinstance(part, ast.BinOp)
        and isinstance(part.op, ast.Div | ast.Mult)
        and PEAKS & {name.id for name in ast.walk(part) if isinstance(name, ast.Name)}
    ]
    assert not compared
