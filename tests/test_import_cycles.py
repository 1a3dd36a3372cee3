"""No module imports itself over others, not even for the type checker."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import dask_embstab

PACKAGE = Path(dask_embstab.__file__).parent


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """Modules of the package that a file imports anywhere, under ``TYPE_CHECKING`` too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                name if (name := f"{node.module}.{one.name}") in modules else node.module
                for one in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return found & modules


def test_no_module_imports_itself_over_others() -> None:
    files = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    assert len(modules) > 100
    graph = {name: imports_of(path, set(modules)) for name, path in modules.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules of a cycle
