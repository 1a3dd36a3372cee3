"""Which changes to the mathematics do the tests notice? Mutants of `core/` and of the routes of a
fit, run one by one.

    python benchmarks/mutation.py --limit 200 --markdown docs/mutation.md

A mutant is one changed constant, comparison, sign or truth value. The tests run once; what
functions each of them calls is noted, and every mutant runs only the tests that call it, quickest
first, in a fork whose code was exchanged in place.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import os
import random
import resource
import signal
import sys
import time
import types
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import command_line, parser, publish, table

ROOT = Path(__file__).parent.parent
PACKAGE = "dask_embstab"
CODE = ("core/*.py", "passes/fit/reread.py", "passes/fit/reductions.py")
TESTS = (
    "accuracy",
    "chance",
    "core",
    "core_laws",
    "inverse",
    "rank",
    "routes",
    "survivors",
    "width",
    "zero_rows",
)
QUIET = (
    "-q",
    "-n",
    "0",
    "-p",
    "no:cacheprovider",
    "-m",
    "not long",
    "-x",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)
CPU_SECONDS = 30
SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the module's tree with it, where it is, and the function (None: the module's
    constants) that has it.
    """

    module: str
    line: int
    change: str
    function: str | None
    tree: ast.Module = field(repr=False)


class Baseline:
    """A pytest plugin: the CPU seconds of each test, which are the same on a busy machine, and
    which functions of the package it calls.
    """

    def __init__(self) -> None:
        """Nothing was run yet."""
        self.seconds: dict[str, float] = {}
        self.callers: dict[tuple[str, str], list[str]] = defaultdict(list)

    def pytest_pyfunc_call(self, pyfuncitem: Any) -> None:
        """Note the functions from here on, until the report is made."""
        called: set[types.CodeType] = set()

        def note(frame: types.FrameType, event: str, _: Any) -> None:
            if event == "call":
                called.add(frame.f_code)

        pyfuncitem.stash_called, pyfuncitem.stash_began = called, time.process_time()
        sys.setprofile(note)

    def pytest_runtest_teardown(self, item: Any) -> None:
        """File the test under every function that it called."""
        sys.setprofile(None)
        self.seconds[item.nodeid] = time.process_time() - getattr(item, "stash_began", 0.0)
        for code in getattr(item, "stash_called", ()):
            if f"/{PACKAGE}/" in code.co_filename:
                self.callers[code.co_filename, code.co_qualname].append(item.nodeid)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the campaign, print the survivors, return every figure."""
    options = _parser().parse_args(argv)
    os.environ.setdefault("CI", "1")  # the same draws of hypothesis in every mutant
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "tests"))
    import dask
    import pytest

    dask.config.set(scheduler="synchronous")  # a fork of a process with threads would hang
    baseline = Baseline()
    files = [
        f"tests/test_{name}.py" for name in options.tests if Path(f"tests/test_{name}.py").exists()
    ]
    if pytest.main([*QUIET, *files], plugins=[baseline]):
        raise SystemExit("the tests must pass before anything is changed")

    mutants = [
        m
        for path in _paths(options.code)
        for m in mutants_of(path)
        if (options.match or "") in m.change
    ]
    chosen = mutants
    if options.limit and options.limit < len(mutants):
        chosen = random.Random(options.seed).sample(mutants, options.limit)
    rows = []
    for mutant in chosen:
        verdict = run(mutant, tests_of(mutant, baseline, options.seconds))
        rows.append(
            {
                "module": mutant.module,
                "line": mutant.line,
                "change": mutant.change,
                "verdict": verdict,
            }
        )
        if verdict != "killed":
            print(f"{verdict}: {mutant.module}:{mutant.line} {mutant.change}", flush=True)
    results = {"command": command_line("mutation", argv), "mutants": len(mutants), "rows": rows}
    return publish(results, markdown(results), options)


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every change of one module, each in a tree of its own."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    tree = ast.parse(path.read_text())
    for function, node, name in _places(tree):
        for change, new in changes(
            getattr(node, name) if isinstance(name, str) else getattr(node, name[0])[name[1]]
        ):
            changed = copy.deepcopy(tree)
            twin = _same_place(tree, node, changed)
            if isinstance(name, str):
                setattr(twin, name, new)
            else:
                getattr(twin, name[0])[name[1]] = new
            yield Mutant(
                module,
                getattr(node, "lineno", 0),
                change,
                function,
                ast.fix_missing_locations(changed),
            )


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What a piece of code may become, each with a short text."""
    for other in SWAPS.get(type(node), ()):
        yield f"{type(node).__name__} becomes {other.__name__}", other()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield f"{ast.unparse(node)} loses its sign", node.operand
    if isinstance(node, ast.Constant):
        value = node.value
        others: list[Any] = []
        if isinstance(value, bool):
            others = [not value]
        elif isinstance(value, int):
            others = [value + 1]
        elif isinstance(value, float):
            others = (
                [1.0]
                if value == 0
                else [value * 2]
                if 1e-2 <= abs(value) <= 1e2
                else [value * 1e20, value * 1e-6]
            )
        for other in others:
            yield f"{value!r} becomes {other!r}", ast.copy_location(ast.Constant(other), node)


def _places(tree: ast.Module) -> Iterator[tuple[str | None, ast.AST, Any]]:
    """Every field of the code that is executed, and the function it is in (None: the module's
    constants).
    """
    for top in tree.body:
        if isinstance(top, ast.Assign):
            yield from _fields(top, None)
        for member in top.body if isinstance(top, ast.ClassDef) else [top]:
            if isinstance(member, ast.FunctionDef):
                name = member.name if member is top else f"{top.name}.{member.name}"  # type: ignore[attr-defined]
                for statement in member.body:
                    yield from _fields(statement, name)


def _fields(node: ast.AST, function: str | None) -> Iterator[tuple[str | None, ast.AST, Any]]:
    """Not of errors, texts, annotations and defaults."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.arguments):
        return
    for name, value in ast.iter_fields(node):
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST) and name not in (
                "annotation",
                "returns",
                "decorator_list",
            ):
                yield function, node, (name, index) if isinstance(value, list) else name
                yield from _fields(child, function)


def _same_place(tree: ast.AST, node: ast.AST, twin: ast.AST) -> ast.AST:
    return next(b for a, b in zip(ast.walk(tree), ast.walk(twin), strict=True) if a is node)


def tests_of(mutant: Mutant, baseline: Baseline, seconds: float) -> list[str]:
    """The tests that call the changed function (or any of the module), quickest first, as many as
    the time allows.
    """
    path = str(ROOT / Path(*mutant.module.split(".")).with_suffix(".py"))
    callers = {
        test
        for (file, name), tests in baseline.callers.items()
        if file == path and mutant.function in (None, name, name.split(".<locals>")[0])
        for test in tests
    }
    chosen: list[str] = []
    spent = 0.0
    for test in sorted(callers, key=baseline.seconds.__getitem__):
        spent += baseline.seconds[test]
        if spent > seconds and chosen:
            break
        chosen.append(test)
    return chosen


def run(mutant: Mutant, tests: list[str]) -> str:
    """Killed, survived, or not reached by any test."""
    if not tests:
        return "not reached"
    child = os.fork()
    if not child:
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + CPU_SECONDS, used + CPU_SECONDS + 1))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        with contextlib.suppress(BaseException):
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            exchange(mutant)
            import pytest

            os._exit(int(pytest.main([*QUIET, *tests])))
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return "survived" if status == 0 else "killed"


def exchange(mutant: Mutant) -> None:
    """Put the changed code into the functions that everybody holds, or the changed constant
    wherever it was taken.
    """
    module = importlib.import_module(mutant.module)
    code = compile(mutant.tree, module.__file__ or "", "exec")
    if mutant.function is not None:
        codes = dict(_codes(code))
        for function in _functions(module):
            if function.__qualname__ in codes:
                function.__code__ = codes[function.__qualname__]
        return
    before = dict(vars(module))
    here = [
        node
        for node in mutant.tree.body
        if node.lineno <= mutant.line <= (node.end_lineno or node.lineno)
    ]
    constants = [node for node in here if isinstance(node, ast.Assign)]
    exec(compile(ast.Module([*constants], []), "constants", "exec"), vars(module))
    names = {
        name.id
        for node in constants
        for name in ast.walk(node.targets[0])
        if isinstance(name, ast.Name)
    }
    for name in names:
        new, old = vars(module)[name], before[name]
        for other in [m for key, m in sys.modules.items() if key.startswith(PACKAGE)]:
            if vars(other).get(name) is old:
                vars(other)[name] = new


def _codes(code: types.CodeType) -> Iterator[tuple[str, types.CodeType]]:
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield inner.co_qualname, inner
            yield from _codes(inner)


def _functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    for thing in vars(module).values():
        members = list(vars(thing).values()) if isinstance(thing, type) else [thing]
        for member in members:
            bare = getattr(member, "fget", None) or getattr(member, "__func__", None) or member
            bare = getattr(bare, "__wrapped__", bare)
            if isinstance(bare, types.FunctionType) and bare.__module__ == module.__name__:
                yield bare


def markdown(results: dict[str, Any]) -> str:
    """The score by module, and what no test noticed."""
    rows = results["rows"]
    killed = sum(row["verdict"] == "killed" for row in rows)
    lines = [
        (
            f"Made by `{results['command']}`: {len(rows)} of {results['mutants']} mutants, {killed}"
            f" killed ({killed / max(1, len(rows)):.0%})."
        ),
        "",
    ]
    modules = sorted({row["module"] for row in rows})
    score = [
        [
            f"`{module.removeprefix(PACKAGE + '.')}`",
            *(
                sum(row["module"] == module and row["verdict"] == verdict for row in rows)
                for verdict in VERDICTS
            ),
        ]
        for module in modules
    ]
    lines += table(("module", *VERDICTS), [[str(cell) for cell in row] for row in score])
    left = [row for row in rows if row["verdict"] != "killed"]
    lines += [
        "",
        "What no test noticed within its time:",
        "",
    ]
    lines += [
        f"- `{row['module']}:{row['line']}` {row['change']} ({row['verdict']})" for row in left
    ]
    return "\n".join([*lines, ""])


VERDICTS = ("killed", "survived", "not reached")


def _paths(patterns: list[str]) -> list[Path]:
    return [
        path
        for pattern in patterns
        for path in sorted((ROOT / PACKAGE).glob(pattern))
        if path.stem != "__init__"
    ]


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__, folder=False)
    options.add_argument(
        "--code", nargs="+", default=list(CODE), help="modules, as patterns below the package"
    )
    options.add_argument(
        "--tests", nargs="+", default=list(TESTS), help="names of the test files without test_"
    )
    options.add_argument(
        "--limit", type=int, help="so many of the mutants, drawn with --seed; all by default"
    )
    options.add_argument("--match", help="only changes whose text has this")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="CPU time of the tests of one mutant, as they are without it",
    )
    return options


if __name__ == "__main__":
    main()
