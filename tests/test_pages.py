"""What a stranger reads first stays short, and every page names files and public names that there
are.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import dask_embstab as es

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "ARCHITECTURE.md")
pytestmark = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="an installed package comes without its pages"
)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def texts() -> dict[str, str]:
    """Every page by its path."""
    pages = [ROOT / name for name in PAGES] + sorted((ROOT / "docs").rglob("*.md"))
    pages += sorted((ROOT / "examples").rglob("*.md"))
    return {str(page.relative_to(ROOT)): page.read_text() for page in pages}


def missing_files(text: str) -> set[str]:
    """Files that a text names and that are not in the source."""
    rooms = "tests|benchmarks|examples|docs|dask_embstab"
    named = set(re.findall(rf"(?<![\w/.-])(?:{rooms})/[\w/-]+\.(?:py|md|yml|svg|png)\b", text))
    modules = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)\b", text)) - named
    files = [
        path.as_posix()
        for path in (*(ROOT / "dask_embstab").rglob("*.py"), *(ROOT / "examples").rglob("*.py"))
    ]
    return {name for name in named if not (ROOT / name).exists()} | {
        name for name in modules if not any(file.endswith(f"/{name}") for file in files)
    }


def missing_names(text: str) -> set[str]:
    """Public names that a text uses and that are none: ``es.fit``, ``Series.add``."""
    public = {name: getattr(es, name) for name in es.__all__ if not name.endswith("Error")}
    classes = {name: one for name, one in public.items() if inspect.isclass(one)}
    functions = {f"es.{name}" for name in re.findall(r"\bes\.(\w+)", text) if not hasattr(es, name)}
    members = re.findall(rf"`({'|'.join(classes)})\.(\w+)", text)
    return functions | {f"{c}.{name}" for c, name in members if not hasattr(classes[c], name)}


def test_pages_name_files_and_public_names_that_there_are() -> None:
    wrong = (
        "`core/squareroot.py` `benchmarks/shard.py` `es.evaluat` `Series.foo` `core/tree.py:Node`"
    )
    assert missing_files(wrong) == {"core/squareroot.py", "benchmarks/shard.py"}
    assert missing_names(wrong) == {"es.evaluat", "Series.foo"}
    found = {page: missing_files(text) | missing_names(text) for page, text in texts().items()}
    assert not {page: names for page, names in found.items() if names}


@pytest.mark.parametrize("page", PAGES)  # those of docs/: tests/test_doc_pages.py
def test_links_lead_to_files(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing


def test_the_citation_names_the_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"version: {version[1]}\n" in (ROOT / "CITATION.cff").read_text()
