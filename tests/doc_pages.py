"""The pages of the documentation, as what can be run: blocks of Python and of the shell.

A page is run from its first block to its last, in a folder of its own. All blocks of Python share
their names. Marks are comments of Markdown on the line above a block:

- ``<!-- prints -->``: what the block before has printed (``...`` stands for anything)
- ``<!-- not run: REASON -->``: the block is shown alone
- ``<!-- file: NAME -->``: the block is a program that the reader saves under this name

and anywhere in the page

- ``<!-- world -->``: the folder holds the runs of the examples in docstrings, and their names
- ``<!-- s3 -->``: the environment has a bucket, ``BUCKET``, and what reaches it
- ``<!-- needs PACKAGE -->``: the page is skipped where this is not installed
- ``<!-- setup ... -->``: Python that a reader does not see
"""

from __future__ import annotations

import base64
import contextlib
import copy
import doctest
import io
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import doctest_world
from browser import Browser, chromium

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = tuple(sorted(DOCS.rglob("*.md")))
RUNS = ("python", "pycon", "bash")
SHOWN = ("text", "json", "yaml", "sql")
FENCE = re.compile(r"^( *)```(\w*)(.*)$")
FILE = re.compile(r"<!-- file: ([\w.]+) -->")
RECIPE = "<!-- recipe:"
"""Above blocks that tests/test_export_recipes.py runs."""
LIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One block of a page: its language, the number of its first line, the mark above it."""

    language: str
    code: str
    line: int
    mark: str

    @property
    def reason(self) -> str | None:
        """Why it is not run; None where it is."""
        match = re.fullmatch(r"<!-- not run: (.+) -->", self.mark)
        return match[1] if match else None


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in order, its hidden setup among them."""
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        if lines[number] == "<!-- setup":
            end = lines.index("-->", number)
            yield Block("python", "\n".join(lines[number + 1 : end]), number + 2, "")
            number = end
        elif opened:
            indent = opened[1]
            end = lines.index(f"{indent}```", number + 1)
            code = "\n".join(line.removeprefix(indent) for line in lines[number + 1 : end])
            mark = next(filter(None, reversed(lines[:number])), "").strip()
            yield Block(opened[2], code, number + 2, mark)
            number = end
        number += 1


def run_page(page: Path, folder: Path, template: Path) -> int:
    """Run all blocks of a page in ``folder``; how many were run."""
    names: dict[str, Any] = {"__name__": "page"}
    if "<!-- world -->" in page.read_text():
        names |= doctest_world.names(template, folder)
    output = ""
    n_run = 0
    with contextlib.chdir(folder), configuration_kept():
        for block in blocks(page):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            if block.mark == "<!-- prints -->":
                likes = doctest.OutputChecker().check_output(block.code + "\n", output, LIKE)
                assert likes, f"{where}: the block before printed\n{output}"
            elif saved := FILE.fullmatch(block.mark):
                Path(saved[1]).write_text(block.code + "\n")
            elif block.language in RUNS and not block.reason and RECIPE not in block.mark:
                output = _run(block, where, names)
                n_run += 1
    return n_run


@contextlib.contextmanager
def configuration_kept() -> Iterator[None]:
    """What a page configures ends with it; the defaults of packages that it imports stay."""
    import distributed  # noqa: F401  # registers its defaults, once in a process

    before = copy.deepcopy(dask.config.config)
    try:
        yield
    finally:
        dask.config.config.clear()
        dask.config.config.update(before)


def _run(block: Block, where: str, names: dict[str, Any]) -> str:
    """What a block prints; an assertion where it fails."""
    if block.language == "bash":
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        paths = {"PATH": path, "PYTHONPATH": str(ROOT), "EXAMPLES": str(ROOT / "examples")}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.code],
            env=os.environ | paths,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{where}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout
    if block.language == "pycon":
        test = doctest.DocTestParser().get_doctest(block.code + "\n", names, where, where, 0)
        seen: list[str] = []
        doctest.DocTestRunner(optionflags=LIKE).run(test, out=seen.append, clear_globs=False)
        assert not seen, "".join(seen)
        names.update(test.globs)
        return ""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * (block.line - 1) + block.code, where, "exec"), names)
    return printed.getvalue()


def screenshots(folder: Path) -> None:
    """``report.png``: the first screen of the report that docs/start.md makes."""
    work = folder / "work"
    work.mkdir()
    run_page(DOCS / "start.md", work, work)
    with Browser(chromium(), folder / "profile") as browser:
        browser.open(work / "report.html", width=900, scheme="light")
        clip = {"x": 0, "y": 0, "width": 900, "height": 760, "scale": 1}
        taken = browser.call("Page.captureScreenshot", clip=clip)
    (folder / "report.png").write_bytes(base64.b64decode(taken["data"]))


def png_facts(file: Path) -> tuple[tuple[int, int], int]:
    """Width and height of a PNG, and how many different runs of four bytes its pixels have."""
    data = file.read_bytes()
    size = struct.unpack(">II", data[16:24])
    at, packed = 8, b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += length + 12
    pixels = zlib.decompress(packed)
    return size, len({pixels[n : n + 4] for n in range(0, len(pixels), 4)})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        screenshots(Path(made))
        (DOCS / "screenshots").mkdir(exist_ok=True)
        for picture in Path(made).glob("*.png"):
            (DOCS / "screenshots" / picture.name).write_bytes(picture.read_bytes())
