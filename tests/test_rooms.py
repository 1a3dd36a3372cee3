"""The rooms of the package keep what they promise: `core/` is mathematics, only `cli/` speaks of
the command line, and kinds of sources are asked through their protocols. Import-linter holds the
floors and that no package has a cycle between siblings.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import dask_embstab

PACKAGE = Path(dask_embstab.__file__).parent
TREES = {
    path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))
}
IN_CORE = ("numpy", "scipy", "dask_embstab.core", "dask_embstab.errors", "dask_embstab.repairs")
ABOVE_TABLES = ("passes", "series", "render", "diagnose", "demo", "cli", "api.py", "verbs")
CSS = re.compile(r"var\(--\w*|--\w+:")
"""Custom properties of a style sheet, which are no options."""
OPTION = re.compile(r"(?:^|[\s(`'\"])--[a-z]")


def trees(*rooms: str) -> Iterator[tuple[Path, ast.Module]]:
    return ((path, tree) for path, tree in TREES.items() if path.parts[0] in rooms)


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_core_imports_numpy_scipy_and_the_errors_alone() -> None:
    allowed = (*sys.stdlib_module_names, *IN_CORE)
    seen = {
        f"{path}: {name}"
        for path, tree in trees("core")
        for name in imported(tree)
        if not any(name == root or name.startswith(f"{root}.") for root in allowed)
    }
    assert seen <= {"core/tile_kernel.py: llvmlite"}
    files = {"os", "io", "pathlib", "tempfile", "shutil", "zipfile", "json"}
    assert not files & {name for _, tree in trees("core") for name in imported(tree)}


def test_only_the_command_line_names_its_options() -> None:
    """Texts of other rooms mark an option (`repairs.option`), which is rendered for the caller;
    `options/` is where their spelling is written, and `demo/` ends with commands to type.
    """
    apart = ("cli", "demo", "options", "repairs.py", "__init__.py")
    trees_ = {path: tree for path, tree in TREES.items() if path.parts[0] not in apart}
    imports = []
    for path, tree in trees_.items():
        nodes = list(ast.walk(tree))
        docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        imports += [
            f"{path}:{node.lineno}"
            for node in nodes
            if isinstance(node, ast.Constant)
            and id(node) not in docs
            and OPTION.search(CSS.sub("", str(node.value)))
        ]
    assert len(trees_) > 100
    assert not imports


def kinds() -> set[str]:
    """Classes that stand for a kind of source, index or ids."""
    rooms = [tree for path, tree in trees("tables") if path.parts[1] in ("read", "ids")]
    return {
        node.name
        for tree in rooms
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and {"open", "block", "gather", "take"} & {getattr(part, "name", "") for part in node.body}
    }


def test_kinds_of_sources_are_asked_through_their_protocols() -> None:
    known = kinds()
    assert {"DirectSource", "ZarrSource", "DaskSource", "FileIndex", "RowNumberIds"} <= known
    asserted, asked = set(), []
    for path, tree in trees(*ABOVE_TABLES):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):  # for the type checker
                asserted |= {id(part) for part in ast.walk(node)}
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                names = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                if names & known and id(node) not in asserted:
                    asked.append(f"{path}:{node.lineno}")
    assert not asked


def test_tests_import_public_names_from_the_package_and_no_private_ones() -> None:
    """A deep import says what a test tests: a part that only the inside has."""
    wrong = []
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dask_embstab."):
                inside = importlib.import_module(str(node.module))
                wrong += [
                    f"{path.name}: {name.name}"
                    for name in node.names
                    if (name.name.startswith("_") and not name.name.startswith("__"))
                    or (
                        name.name in dask_embstab.__all__
                        and getattr(dask_embstab, name.name) is getattr(inside, name.name, None)
                    )
                ]
    assert not wrong


def test_a_folder_has_at_most_16_files() -> None:
    files = Counter(str(path.parent) for path in TREES if path.name != "__init__.py")
    assert len(files) > 10
    assert not {folder: n for folder, n in files.items() if n > 16}


def test_a_file_has_at_most_350_lines() -> None:
    lengths = {path: (PACKAGE / path).read_text().count("\n") for path in TREES}
    assert not {str(path): n for path, n in lengths.items() if n > 350}


def test_the_map_names_files_that_there_are() -> None:
    """Where the map is at hand: an installed package comes without it."""
    page = PACKAGE.parent / "ARCHITECTURE.md"
    if not page.exists():
        pytest.skip("no source tree")
    text = page.read_text()
    rooms = "|".join(sorted(path.name for path in PACKAGE.iterdir() if path.is_dir()))
    named = set(re.findall(rf"\b(?:{rooms})/[\w/]+(?:\.py)?", text))
    paths = [PACKAGE / name.removesuffix(".py") for name in named]
    missing = [path for path in paths if not (path.is_dir() or path.with_suffix(".py").exists())]
    assert not missing
    assert len(text.splitlines()) < 80


def pages_of_the_source() -> list[Path]:
    """The map and the pages, where they are at hand: an installed package comes without them."""
    root = PACKAGE.parent
    if not (root / "ARCHITECTURE.md").exists():
        pytest.skip("no source tree")
    return [root / "ARCHITECTURE.md", root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def test_pages_name_functions_that_there_are() -> None:
    """``engine/graph.py:Graph`` is a file that defines that name."""
    files = {path.as_posix() for path in TREES}
    named = {
        (page.name, match[1], match[2])
        for page in pages_of_the_source()
        for match in re.finditer(r"\b(?!tests/)([\w/]+/\w+\.py):([A-Za-z_]+)\b", page.read_text())
    }
    missing = []
    for page, file, name in sorted(named):
        texts = [(PACKAGE / one).read_text() for one in files if f"/{one}".endswith(f"/{file}")]
        definition = re.compile(rf"^ *(?:def |class |async def |){name}\b", re.MULTILINE)
        if not any(definition.search(text) for text in texts):
            missing.append(f"{page}: {file}:{name}")
    assert len(named) > 20
    assert not missing


def test_pages_name_tests_that_there_are() -> None:
    tests = PACKAGE.parent / "tests"
    named = {
        (page.name, match[1], match[2] or "")
        for page in pages_of_the_source()
        for match in re.finditer(r"\btests/(\w+)\.py(?:::?(\w+))?", page.read_text())
    }
    assert len(named) > 100
    assert not [
        f"{page}: {file}::{name}"
        for page, file, name in sorted(named)
        if not (tests / f"{file}.py").exists()
        or (name and f"def {name}(" not in (tests / f"{file}.py").read_text())
    ]
