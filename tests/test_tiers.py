"""What the short tier does not do: assert times, wait by sleeping, compare peaks of memory. A busy
machine makes such a test fail where nothing is wrong. And its small tables reach the whole tree.
"""

from __future__ import annotations

import ast
import functools
import importlib
import sys
import types
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

from conftest import small_panels

import dask_embstab
from dask_embstab.core import tree

TESTS = Path(__file__).parent
CLOCKS = {"perf_counter", "monotonic", "process_time", "time", "time_ns"}
PEAKS = {"peak", "peak_of", "rss", "VmHWM", "ru_maxrss", "maxrss"}
DELAYS = {
    ("test_kills.py", "test_overwriting_writers"): "a process is killed at a random time",
    ("test_series_processes.py", "test_kill_9_at_random_times"): "the same",
    ("test_cluster.py", "later"): "a worker that is slow: chunks are left when its cluster goes",
    ("test_cluster.py", "test_a_scheduler_started_elsewhere"): "asks again until it is so",
    ("test_kills.py", "struck"): "a process is killed at any time",
    ("test_visibility.py", "writer"): "tasks end one after another, before and after a failure",
}
"""Where a sleep makes something slow, is between two looks, or strikes at random; nothing hangs on
its length.
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


def names(node: ast.AST) -> set[str]:
    """Names and attributes within."""
    parts = [part for part in ast.walk(node) if isinstance(part, ast.Name | ast.Attribute)]
    return {part.id if isinstance(part, ast.Name) else part.attr for part in parts}


def made_of(sources: set[str], nodes: list[ast.AST]) -> set[str]:
    """The ``sources``, and the variables of a function that were made of them, over others too."""
    assigned = [n for n in nodes if isinstance(n, ast.Assign | ast.AugAssign | ast.NamedExpr)]
    known: set[str] = set()
    while True:
        more = {
            target.id
            for node in assigned
            if (called(node.value) & sources) or (names(node.value) & known)
            for target in ast.walk(node)
            if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
        }
        if more <= known:
            return known
        known |= more


def called(node: ast.AST) -> set[str]:
    """Names of what is called within."""
    calls = (part.func for part in ast.walk(node) if isinstance(part, ast.Call))
    return {func.attr if isinstance(func, ast.Attribute) else ast.unparse(func) for func in calls}


def timed(nodes: list[ast.AST]) -> list[int]:
    """Lines of a function that assert something of a clock, or of what was read off one."""
    if not any(called_by(node) in CLOCKS for node in nodes if isinstance(node, ast.Call)):
        return []
    times = made_of(CLOCKS, nodes)
    asserts = [node for node in nodes if isinstance(node, ast.Assert)]
    return [n.lineno for n in asserts if called(n.test) & CLOCKS or names(n.test) & times]


def sleeps(nodes: list[ast.AST]) -> bool:
    """Whether a function sleeps, for however long."""
    return any(called_by(node) == "sleep" for node in nodes if isinstance(node, ast.Call))


def called_by(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)


def compared_peaks(nodes: list[ast.AST]) -> list[int]:
    """Lines of a function that assert a multiple or a share of a peak."""
    return [
        node.lineno
        for node in nodes
        if isinstance(node, ast.Assert)
        for part in ast.walk(node.test)
        if isinstance(part, ast.BinOp)
        and isinstance(part.op, ast.Div | ast.Mult)
        and PEAKS & names(part)
    ]


def test_a_test_that_times_sleeps_or_compares_peaks_is_noticed() -> None:
    text = """
    def direct(): assert perf_counter() - start < 1
    def stored():
        start = time.monotonic(); run(); took = time.monotonic() - start; assert took < 5
    def both(): (a := time.time()); b = a + 1; assert b
    def asleep(): time.sleep(chance.random())
    def peaks(): assert usage.ru_maxrss < 2 * usage.maxrss
    def other(): seconds = time.time(); assert run(seconds=3)
    """
    parts = {function.name: nodes for function, nodes in parts_of(ast.parse(cleandoc(text)))}
    found = {name for name, nodes in parts.items() if timed(nodes)}
    assert found == {"direct", "stored", "both"}
    assert [name for name, nodes in parts.items() if sleeps(nodes)] == ["asleep"]
    assert [name for name, nodes in parts.items() if compared_peaks(nodes)] == ["peaks"]


def test_nothing_is_asserted_of_a_clock() -> None:
    assert not [f"{file}:{line}" for file, _, nodes in short() for line in timed(nodes)]


def test_nothing_waits_by_sleeping() -> None:
    assert {(file, name) for file, name, nodes in short() if sleeps(nodes)} == DELAYS.keys()


def test_peaks_are_compared_in_the_long_tier() -> None:
    assert not [f"{file}:{line}" for file, _, nodes in short() for line in compared_peaks(nodes)]


def test_small_tasks_reach_every_module_that_asks_for_the_size_of_a_panel() -> None:
    """One that is first imported within the fixture as well, and none keeps it."""
    package = Path(dask_embstab.__file__).parent
    modules = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for path in sorted(package.rglob("*.py"))
        if "micro_block_rows" in path.read_text()
    ]
    assert len(modules) > 4
    for name in modules:
        assert hasattr(importlib.import_module(name), "micro_block_rows"), f"{name}: as itself"
    late = types.ModuleType("dask_embstab.late")
    sys.modules[late.__name__] = late
    try:
        with small_panels():
            late.micro_block_rows = tree.micro_block_rows  # type: ignore[attr-defined]
            sizes = {sys.modules[name].micro_block_rows(64) for name in [*modules, late.__name__]}
            assert sizes == {16}
        kept = {sys.modules[name].micro_block_rows(64) for name in [*modules, late.__name__]}
        assert len(kept) == 1
        assert kept != {16}
    finally:
        del sys.modules[late.__name__]
