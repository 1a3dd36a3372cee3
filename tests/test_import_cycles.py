"""No module imports itself over others, not even for the type checker."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import dask_embstab

PACKAGE = Path(dask_embstab.__file__).parent


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """Modules of the package that a file imports anywhere, under ``TYPE_CHECKING`` too."""
    seen = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            seen |= {
                name if (name := f"{node.module}.{one.name}") in modules else node.module
                for one in node.names
            }
        elif isinstance(node, ast.Import):
            seen |= {one.name for one in node.names}
    return seen & modules


def graph_of_modules() -> dict[str, set[str]]:
    files = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    return {name: imports_of(path, set(modules)) for name, path in modules.items()}


def test_no_module_imports_itself_over_others() -> None:
    graph = graph_of_modules()
    assert len(graph) > 100
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules of a cycle


def test_no_room_reaches_back_into_a_sibling_that_imports_it() -> None:
    """In every package the rooms and modules right below it are in an order, imports within
    functions and for the type checker counted.
    """
    graph = graph_of_modules()
    packages = {name.rpartition(".")[0] for name in graph if "." in name}
    assert len(packages) > 20
    for package in packages:
        start, depth = f"{package}.", package.count(".") + 1
        siblings: dict[str, set[str]] = {}
        for name, imports in graph.items():
            if name.startswith(start):
                own = name.split(".")[depth]
                theirs = {other.split(".")[depth] for other in imports if other.startswith(start)}
                siblings.setdefault(own, set()).update(theirs - {own})
        TopologicalSorter(siblings).prepare()


def test_no_module_imports_a_private_name_of_another() -> None:
    private = [
        f"{path.relative_to(PACKAGE)}: {node.module}.{one.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dask_embstab")
        for one in node.names
        if one.name.startswith("_") and not one.name.startswith("__")
    ]
    assert not private
