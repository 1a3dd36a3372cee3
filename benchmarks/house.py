"""How is the house built? Sizes of modules and functions, and how many of them one call passes
through.

    python benchmarks/house.py [--package FOLDER] [--json] [--write]

The static figures are read off the source text: functions without their docstrings, tests left out.
The figures of a call (distinct functions, distinct files, longest chain of own frames, and how many
of the functions are longer than three lines: the others are properties and such) are counted by a
profiler on the synchronous scheduler while the main verbs run on two small runs; imports are done
before. ``--write`` puts them into docs/decisions.md, by what the functions are there for.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, cast

PACKAGE = Path(__file__).resolve().parent.parent / "dask_embstab"
_SHORT = 3
"""Lines up to which a function is a property, a name for an expression or a call handed on."""
PAGE = PACKAGE.parent / "docs" / "decisions.md"
BEGIN, END = "<!-- benchmarks/house.py -->", "<!-- end of benchmarks/house.py -->"
PURPOSES = {
    "verb, options, errors": ("verbs", "options", "errors.py", "repairs.py", "arguments.py"),
    "the mathematics": ("core",),
    "passes and their graphs": ("passes", "sklearn.py", "nouns.py", "display.py"),
    "joins by id": ("passes/join", "tables/ids"),
    "tables, runs, transforms": ("tables",),
    "chunk files, shards, views, checksums": ("tables/read/stored", "tables/read"),
    "bounded decoders and sizes": (
        *("tables/read/guarded.py", "tables/read/limits.py", "tables/read/bounded.py"),
        *("tables/read/chunk_layout.py", "tables/read/cf.py"),
    ),
    "inputs that change meanwhile": ("tables/inputs.py", "tables/identity.py"),
    "fingerprint of a space": ("tables/space.py", "passes/join/space.py"),
    "output written whole, resumed": ("tables/write", "tables/output.py", "tables/layout.py"),
    "files, locks, durability": ("files",),
    "URLs and object stores": ("files/remote.py", "files/place.py", "tables/stores"),
    "log, settings, places of a series": ("series",),
    "publish: gates, readback, consensus": ("series/publish",),
}
"""What functions are there for, by the longest beginning of their file's path."""
_LONG = 10
"""Lines from which a function is long enough to need a blank line or a comment."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: its text, its tree and its functions."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def n_lines(self) -> int:
        """Lines of the file."""
        return self.text.count("\n")

    @property
    def functions(self) -> list[Function]:
        """Functions and methods, nested ones too."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    def own_imports(self, package: str) -> set[str]:
        """Modules of the package that this one imports."""
        nodes = ast.walk(self.tree)
        imported = (
            node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module
        )
        return {name for name in imported if name.split(".")[0] == package}

    def body_lines(self, function: Function) -> list[str]:
        """The function's lines after its docstring, from its first statement on."""
        first = function.body[0]
        is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        body = function.body[1:] if is_doc and len(function.body) > 1 else function.body
        end = function.end_lineno or function.lineno
        return self.text.splitlines()[body[0].lineno - 1 : end]


def modules_of(package: Path) -> list[Module]:
    """Every module of the package but the ``__init__`` of folders that hold a docstring alone."""
    texts = {path: path.read_text() for path in sorted(package.rglob("*.py"))}
    parsed = [Module(path, text, ast.parse(text)) for path, text in texts.items()]
    return [
        module
        for module in parsed
        if module.path.name != "__init__.py" or len(module.tree.body) > 1
    ]


def figures_of_text(package: Path = PACKAGE) -> dict[str, Any]:
    """The static figures, by name."""
    modules = modules_of(package)
    sizes = [len(m.body_lines(f)) + 1 for m in modules for f in m.functions]
    public = [f for m in modules for f in _public(m.tree)]
    long_bodies = [
        body for m in modules for f in m.functions if len(body := m.body_lines(f)) >= _LONG
    ]
    breathing = [
        any(not line.strip() or line.lstrip().startswith("#") for line in b) for b in long_bodies
    ]
    n_lines = sum(m.n_lines for m in modules)
    folders = Counter(path.parent for path in package.rglob("*.py") if path.name != "__init__.py")
    return {
        "modules": len(modules),
        "lines": n_lines,
        "functions": len(sizes),
        "function_lines": _spread(sizes),
        "file_lines": _spread([m.n_lines for m in modules]),
        "public_docs_percent": round(
            100 * _share(ast.get_docstring(f) is not None for f in public)
        ),
        "parameters": _spread(
            [len(f.args.args) + len(f.args.kwonlyargs) for m in modules for f in m.functions]
        ),
        "own_imports_per_module": round(
            statistics.fmean(len(m.own_imports(package.name)) for m in modules), 1
        ),
        "functions_per_100_lines": round(100 * len(sizes) / n_lines, 1),
        "helpers_with_one_caller_percent": round(100 * _share(_called_once(modules))),
        "long_functions_that_breathe_percent": round(100 * _share(breathing)),
        "largest_folder": max(folders.values()),
    }


def _public(tree: ast.Module) -> Iterator[Function]:
    for node in tree.body:
        within = (
            node.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
            else [node]
        )
        yield from (f for f in within if isinstance(f, Function) and not f.name.startswith("_"))


def _called_once(modules: list[Module]) -> Iterator[bool]:
    """For every private function of a module: whether its name stands once in it besides its
    definition.
    """
    for module in modules:
        used = Counter(_names(module.tree))
        yield from (
            used[f.name] <= 1 for f in module.functions if f.name[0] == "_" and f.name[:2] != "__"
        )


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _spread(values: list[int]) -> dict[str, int]:
    ordered = sorted(values)
    return {
        "median": ordered[len(ordered) // 2],
        "p90": ordered[int(0.9 * len(ordered))],
        "max": ordered[-1],
    }


def _share(flags: Any) -> float:
    listed = list(flags)
    return sum(listed) / len(listed) if listed else 0.0


@dataclass(slots=True)
class Profile:
    """Own functions and files that a call went through, and the longest chain of own frames."""

    package: str
    functions: set[tuple[str, int]] = field(default_factory=set)
    deepest: int = 0

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """What `sys.setprofile` calls."""
        code = frame.f_code
        if (
            event != "call"
            or not code.co_filename.startswith(self.package)
            or code.co_name[0] == "<"
        ):
            return
        self.functions.add((code.co_filename, code.co_firstlineno))
        depth, at = 0, cast("FrameType | None", frame)
        while at is not None:
            depth += at.f_code.co_filename.startswith(self.package) and at.f_code.co_name[0] != "<"
            at = at.f_back
        self.deepest = max(self.deepest, depth)

    def purposes(self) -> Counter[str]:
        """Functions by what they are there for."""
        begin = {start: purpose for purpose, starts in PURPOSES.items() for start in starts}
        paths = (Path(name).relative_to(self.package).as_posix() for name, _ in self.functions)
        known = ([one for one in begin if path.startswith(one)] for path in paths)
        return Counter(begin[max(starts, key=len)] if starts else "others" for starts in known)

    def figures(self) -> dict[str, Any]:
        """By name."""
        sizes = {
            (str(module.path), min([f.lineno, *(d.lineno for d in f.decorator_list)])): len(
                module.body_lines(f)
            )
            for module in modules_of(Path(self.package))
            for f in module.functions
        }
        return {
            "functions": len(self.functions),
            "files": len({name for name, _ in self.functions}),
            "deepest_chain": self.deepest,
            "longer_than_three_lines": sum(sizes.get(key, 0) > _SHORT for key in self.functions),
            "purposes": dict(self.purposes()),
        }


def profiled(call: Callable[[], object]) -> dict[str, Any]:
    """What one call passes through, on every thread that it starts."""
    profile = Profile(str(PACKAGE))
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return profile.figures()


def figures_of_calls(folder: Path) -> dict[str, dict[str, Any]]:
    """Two runs that share most ids, in other orders; every verb is called once before it is
    counted.
    """
    import dask
    import numpy as np

    import dask_embstab as es

    rng = np.random.default_rng(0)
    items, users, ids = rng.normal(size=(400, 8)), rng.normal(size=(600, 8)), rng.permutation(400)
    a = es.create_run(
        folder / "a.zarr", items, users, item_ids=np.arange(400), user_ids=np.arange(600)
    )
    b = es.create_run(
        folder / "b.zarr", items[ids] + 0.01, users, item_ids=ids, user_ids=np.arange(600)
    )
    c = es.create_run(
        folder / "c.zarr", items[ids] + 0.02, users, item_ids=ids, user_ids=np.arange(600)
    )
    with dask.config.set(scheduler="synchronous"):
        reference = es.stabilize(a, folder / "reference.zarr")
        transform = es.fit(b, reference=reference)
        es.apply(transform, b, folder / "b-stable.zarr")
        es.evaluate(reference, folder / "b-stable.zarr")
        series = es.Series.init(folder / "series")
        series.add(a)
        series.add(b)
        return {
            "stabilize": profiled(lambda: es.stabilize(b, folder / "s.zarr", reference=reference)),
            "fit": profiled(lambda: es.fit(b, reference=reference)),
            "apply": profiled(lambda: es.apply(transform, b, folder / "d.zarr")),
            "evaluate": profiled(lambda: es.evaluate(reference, folder / "b-stable.zarr")),
            "Series.add": profiled(lambda: series.add(c)),
        }


def table_of_calls(calls: dict[str, dict[str, Any]]) -> str:
    """Markdown: what each call passes through, and what the functions are there for."""
    rows = [
        ["", *(f"`{name}`" for name in calls)],
        ["---"] * (len(calls) + 1),
        *(
            [name.replace("_", " "), *(str(of[name]) for of in calls.values())]
            for name in ("functions", "files", "deepest_chain", "longer_than_three_lines")
        ),
        *(
            [purpose, *(str(of["purposes"].get(purpose, 0)) for of in calls.values())]
            for purpose in (*PURPOSES, "others")
            if any(purpose in of["purposes"] for of in calls.values())
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_page(calls: dict[str, dict[str, Any]]) -> None:
    """Put the table between its marks in docs/decisions.md."""
    before, _, rest = PAGE.read_text().partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not end:
        raise SystemExit(f"{PAGE} must have a line {BEGIN!r} and one {END!r}")
    PAGE.write_text(f"{before}{BEGIN}\n\n{table_of_calls(calls)}\n\n{END}\n{after}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--package",
        type=Path,
        default=PACKAGE,
        help="another package's folder: static figures only",
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="into docs/decisions.md too")
    options = parser.parse_args()
    figures: dict[str, Any] = {"text": figures_of_text(options.package)}
    if options.package == PACKAGE:
        with tempfile.TemporaryDirectory() as folder:
            figures["calls"] = figures_of_calls(Path(folder))
        if options.write:
            write_page(figures["calls"])
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in [*figures["text"].items(), *figures.get("calls", {}).items()]:
        parts = value.values() if isinstance(value, dict) else [value]
        shown = " / ".join(str(part) for part in parts if not isinstance(part, dict))
        print(f"{name:40} {shown}")


if __name__ == "__main__":
    main()
