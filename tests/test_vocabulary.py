"""One vocabulary: names are words of SciPy, scikit-learn, Dask, Zarr or the papers, and a result is
named after what it is. Words that were replaced do not come back.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dask_embstab

PACKAGE = Path(dask_embstab.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
REPLACED = {
    *("land", "landed", "landing", "graft", "lifted", "advanced", "joining", "beside"),
    *("picked", "placed", "told", "said", "found", "how", "pull"),
}
"""Words of which no name is made any more: a result is called by its own name."""
PHRASES = re.compile(
    r"\b(?:land(?:s|ed|ing)? in|landed|landing|graft\w*|in step with|made whole|moved on to)\b"
)

EXAMPLE = re.compile(r"^ *(?:>>> )?(?:found|told|said|picked|how) *(?:=|\.[a-z])", re.MULTILINE)
"""In a block of a page, or in the example of a docstring."""


def bound_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that a module gives to something, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def words(name: str) -> set[str]:
    """The words of a name, in whatever case it is written."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


def test_no_name_is_made_of_a_word_that_was_replaced() -> None:
    assert words("_TOLD_bins") & words("isFound") | words("toldIt") == {"told", "it"}
    names = [
        (f"{path.relative_to(PACKAGE)}:{line}", name)
        for path in FILES
        for line, name in bound_names(ast.parse(path.read_text()))
    ]
    assert len(names) > 10_000
    assert not [f"{place}: {name}" for place, name in names if words(name) & REPLACED]


def test_texts_are_in_the_words_of_the_field() -> None:
    """Docstrings, comments and messages of the package, the map and the pages."""
    root = PACKAGE.parent
    pages = [root / "ARCHITECTURE.md", root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    if not pages[0].exists():
        pytest.skip("no source tree")
    matches = [
        f"{path.name}: {match[0]}"
        for path in [*FILES, *pages]
        for pattern in (PHRASES, EXAMPLE)
        for match in pattern.finditer(path.read_text())
    ]
    assert not matches
