"""The documentation is tested like code: every block of every page runs, links lead somewhere, the
words are those of the vocabulary, and the site builds without a warning.
"""

from __future__ import annotations

import html
import inspect
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import dask
import doc_pages
import doctest_world
import pytest
from browser import chromium
from doc_pages import DOCS, PAGES, ROOT, RUNS, SHOWN, blocks

import dask_embstab as es

NAV = re.compile(r"[\w./-]+\.md")
OLD_WORDS = (
    r"landing|landed|graft\w*|in step with|made whole|moved on to"
    r"|easily|obviously|powerful|seamless\w*|utili[sz]e\w*"
)
"""Words that HOUSE's vocabulary replaced, and words that say nothing."""


def names(pages: tuple[Path, ...]) -> list[str]:
    return [str(page.relative_to(DOCS)) for page in pages]


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert sorted(NAV.findall(nav)) == sorted(names(PAGES))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_blocks_say_what_they_are(page: Path) -> None:
    """Fenced, in a language that is known; what follows a list item belongs to it."""
    for block in blocks(page):
        assert block.language in (*RUNS, *SHOWN), f"{page.name}:{block.line}"
        if block.mark == "<!-- prints -->":
            assert block.language == "text"
    outside = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    loose = re.findall(r"(?<=\n)\n    (?![-|\d ])(.*)", re.sub(r"<!--.*?-->", "", outside))
    in_lists = re.search(r"^\d\. ", page.read_text(), re.MULTILINE)
    assert not loose or in_lists, f"{page.name}: indented code is not run: {loose[0]}"


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    reasons = [block.reason for page in PAGES for block in blocks(page) if block.reason is not None]
    ran = sum(block.language in RUNS for page in PAGES for block in blocks(page)) - len(reasons)
    assert all(len(reason) > 15 for reason in reasons)
    assert len(reasons) <= 12
    assert ran >= 6 * len(reasons)


def test_programs_that_a_reader_saves_are_those_of_the_examples() -> None:
    found = [
        (doc_pages.FILE.fullmatch(block.mark), block.code)
        for page in PAGES
        for block in blocks(page)
    ]
    shown = {match[1]: code + "\n" for match, code in found if match}
    assert shown == {file.name: file.read_text() for file in ROOT.glob("examples/pipelines/*.py")}


def headings(page: Path) -> set[str]:
    """Anchors as MkDocs makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    matches = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", h.lower())).strip("-") for h in matches}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{page.name}: {target}"
        assert DOCS in linked.resolve().parents, f"{page.name}: {target} is not part of the site"
        if anchor:
            assert anchor in headings(linked), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_pages_use_the_words_of_the_vocabulary(page: Path) -> None:
    match = re.search(rf"\b({OLD_WORDS})\b", page.read_text(), re.IGNORECASE)
    assert match is None, f"{page.name}: {match and match[0]}"


EXTRA_OF = {"pyarrow": "parquet", "onnx": "onnx", "sklearn": "sklearn", "moto": "s3"}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_pages_say_where_what_they_use_comes_from(page: Path) -> None:
    """Runs that a page does not make, the folder of examples, and packages beyond the core; a page
    that makes its own hides nothing of it.
    """
    text = page.read_text()
    assert "<!-- setup" not in text or "<!-- world -->" in text
    shown = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    if "<!-- world -->" in text or "/" in shown.partition("$EXAMPLES")[2][:1]:
        assert "index.md#the-runs-of-the-examples" in shown
    extras = set(",".join(re.findall(r"pip install '?dask_embstab\[([\w,]+)\]", shown)).split(","))
    needed = set(re.findall(r"^<!-- needs (\w+) -->$", text, re.MULTILINE))
    assert {EXTRA_OF[package] for package in needed & set(EXTRA_OF)} <= extras


def public_callables() -> list[tuple[str, object]]:
    """Everything public, with the public methods of its classes."""
    exported = [(name, getattr(es, name)) for name in es.__all__]
    for name, one in list(exported):
        if inspect.isclass(one):
            methods = inspect.getmembers(one, inspect.isroutine)
            exported += [(f"{name}.{n}", m) for n, m in methods if not n.startswith("_")]
    return exported


def loose_lines(one: object) -> list[str]:
    """Lines of the section Parameters that name no parameter: text that needs a heading."""
    text = inspect.getdoc(one) or ""
    section = re.search(
        r"^Parameters\n-+\n(.*?)(?=\n\n\w[\w ]*\n-+\n|\Z)", text, re.DOTALL | re.MULTILINE
    )
    lines = re.findall(r"^\S.*", section[1], re.MULTILINE) if section else []
    known = set(inspect.signature(one).parameters) if lines else set()  # type: ignore[arg-type]
    named = (re.split(r"\s*,\s*", line.partition(" :")[0].replace("*", "")) for line in lines)
    return [line for line, result in zip(lines, named, strict=True) if not set(result) <= known]


def test_what_follows_the_parameters_of_a_docstring_has_a_heading() -> None:
    """Else the site takes it for parameters, and warns."""

    def wrong(x: int) -> None:
        """Do.

        Parameters
        ----------
        x
            A number.

        And what else is to be said.

        Examples
        --------
        >>> wrong(1)
        """

    assert loose_lines(wrong) == ["And what else is to be said."]
    loose = {name: loose_lines(one) for name, one in public_callables()}
    assert {name: lines for name, lines in loose.items() if lines} == {}


def test_the_python_page_has_every_public_name() -> None:
    listed = re.findall(r"^::: dask_embstab\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(set(listed) - {"xarray"}) == sorted(es.__all__)
    assert len(listed) == len(set(listed))


def test_a_page_that_is_wrong_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doc_pages, "ROOT", tmp_path)
    page, folder = tmp_path / "page.md", tmp_path / "folder"
    folder.mkdir()
    for text, error in (
        ("```python\nprint(1)\n```\n\n<!-- prints -->\n```text\n2\n```\n", AssertionError),
        ("```python\n1 / 0\n```\n", ZeroDivisionError),
        ("```bash\nexit 2\n```\n", AssertionError),
        ("```pycon\n>>> 1 + 1\n3\n```\n", AssertionError),
    ):
        page.write_text(text)
        with pytest.raises(error):
            doc_pages.run_page(page, folder, folder)
    page.write_text(
        "```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n<!-- prints -->\n```text\n1\n```"
    )
    assert doc_pages.run_page(page, folder, folder) == 2
    assert dask.config.get("distributed"), "the next page may need its defaults"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    doctest_world.build(folder)
    return folder


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_block_runs(
    page: Path,
    template: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in sorted(
        set(re.findall(r"^<!-- needs (\w+) -->$", page.read_text(), re.MULTILINE))
    ):
        pytest.importorskip(package, reason=f"{page.name} shows it")
    if "<!-- s3 -->" in page.read_text():
        bucket = request.getfixturevalue("bucket")
        for name, value in {**bucket.environment, "BUCKET": bucket.url("embeddings")}.items():
            monkeypatch.setenv(name, value)
    doc_pages.run_page(page, tmp_path, template)


def lost_links(site: Path) -> list[str]:
    """Links and anchors of built pages that lead nowhere, and pages that no link leads to."""
    texts = {file.resolve(): file.read_text() for file in site.rglob("*.html")}
    anchors = {file: set(re.findall(r'\bid="([^"]+)"', text)) for file, text in texts.items()}
    lost, reached = [], {(site / "index.html").resolve(), (site / "404.html").resolve()}
    for file, text in texts.items():
        if file.name == "404.html":  # its links are those of the server's root
            continue
        for link in set(re.findall(r'\b(?:href|src)="(?![a-z]+:|//)([^"]*)"', text)):
            path, _, anchor = unquote(html.unescape(link)).partition("#")
            target = (file.parent / path).resolve() if path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (anchor and anchor not in anchors.get(target, {anchor})):
                lost.append(f"{file.relative_to(site.resolve())}: {link}")
            reached |= {target} - {file}
    return sorted(lost) + [f"no page leads to {file.name}" for file in set(texts) - reached]


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<h1 id="a"></h1><a href="#a"></a><a href="b.html#c">')
    (tmp_path / "b.html").write_text('<a href=".">')
    (tmp_path / "d.html").write_text('<img src="e.png">')
    assert lost_links(tmp_path) == [
        "d.html: e.png",
        "index.html: b.html#c",
        "no page leads to d.html",
    ]


@pytest.mark.long
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install 'dask_embstab[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "api.html").read_text().count('class="doc ') > len(es.__all__)
    assert lost_links(tmp_path / "site") == []
    for file in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(r'(?:src|href)="(https?:[^"]+\.(?:js|css|woff2?))"', file.read_text())
        assert not fetched, f"{file.name} asks another server for {fetched}"


@pytest.mark.long
def test_the_screenshots_are_those_of_the_report(tmp_path: Path) -> None:
    """``python tests/doc_pages.py`` writes them anew, as `screenshots` makes them here."""
    chromium()
    doc_pages.screenshots(tmp_path)
    for kept in (DOCS / "screenshots").iterdir():
        size, colours = doc_pages.png_facts(tmp_path / kept.name)
        assert size == doc_pages.png_facts(kept)[0], kept.name
        assert colours > 50, f"{kept.name} is nearly blank"
