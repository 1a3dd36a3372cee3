"""What ends a command from outside (a signal, a stream that takes nothing) is told in one line, and
what it left is true.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import hidden, vectors_of, world

import dask_embstab as es

SCRIPT = Path(sys.executable).with_name("embstab")
T, W = world(1)
SETUP = """
import os, signal, sys
number = getattr(signal, sys.argv.pop(1))
def strike():
    os.kill(os.getpid(), number)
def striking(function, when=lambda *_: True, after=False):
    def call(*arguments, **options):
        if after:
            result = function(*arguments, **options)
        if when(*arguments):
            strike()
        return result if after else function(*arguments, **options)
    return call
"""
RUN = "\nfrom dask_embstab.cli.main import main\nmain(prog_name='embstab')\n"
WRITING = """
from dask_embstab.tables.write.sink import Sink
Sink.writer = striking(Sink.writer)
"""


def struck(
    hook: str, number: str, *arguments: Any, **options: Any
) -> subprocess.CompletedProcess[str]:
    """A command that gets a signal where ``hook`` says; whoever runs the tests may ignore it."""
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    words = [sys.executable, "-c", SETUP + hook + RUN, number, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    ids = {"item_ids": np.arange(60), "user_ids": np.arange(90)}
    es.create_run(tmp_path / "a", T, W, **ids, chunk_rows=16)
    es.create_run(
        tmp_path / "b",
        *world(2),
        item_ids=np.arange(60)[::-1],
        user_ids=np.arange(90),
        chunk_rows=16,
    )
    return tmp_path


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_a_command_in_one_line_and_leaves_nothing(
    place: Path, number: str, code: int
) -> None:
    before = sorted(path.name for path in place.iterdir())
    ended = struck(WRITING, number, "stabilize", place / "a", place / "out")
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr == f"error: interrupted by {number}; nothing was published\n"
    assert sorted(path.name for path in place.iterdir()) == before


def test_what_stood_there_stays(place: Path) -> None:
    ended = struck(WRITING, "SIGTERM", "stabilize", place / "a", place / "b", "--overwrite")
    assert ended.returncode == 143
    np.testing.assert_array_equal(vectors_of(es.open_run(place / "b")), world(2)[0])
    assert not hidden(place)


def test_scratch_is_swept(place: Path) -> None:
    (place / "scratch").mkdir()
    rows, order = (
        np.random.default_rng(0).normal(size=(100_000, 4)),
        np.random.default_rng(1).permutation(100_000),
    )
    es.create_run(place / "long", rows, item_ids=order)
    es.create_run(place / "other", rows[order], item_ids=np.arange(100_000))
    hook = """
from dask_embstab.tables.ids.scratch import Scratch
Scratch.folder = striking(Scratch.folder, after=True)
"""
    arguments = (
        "--reference",
        place / "other",
        "--scratch",
        place / "scratch",
        "--join-memory",
        "1MiB",
    )
    ended = struck(hook, "SIGTERM", "stabilize", place / "long", place / "out", *arguments)
    assert (ended.returncode, ended.stderr) == (
        143,
        "error: interrupted by SIGTERM; nothing was published\n",
    )
    assert not list((place / "scratch").iterdir())


def test_another_signal_does_not_disturb_the_cleaning_up(place: Path) -> None:
    hook = (
        WRITING
        + """
from dask_embstab.files.owned import OwnedFolder
OwnedFolder.discard = striking(OwnedFolder.discard)
"""
    )
    ended = struck(hook, "SIGINT", "stabilize", place / "a", place / "out")
    assert (ended.returncode, ended.stderr) == (
        130,
        "error: interrupted by SIGINT; nothing was published\n",
    )
    assert not hidden(place)


def test_a_signal_that_was_ignored_stays_so(place: Path) -> None:
    ended = struck(
        WRITING,
        "SIGHUP",
        "stabilize",
        place / "a",
        place / "out",
        "--json",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert es.open_run(place / "out").items.n_rows == 60


PUTTING = """
from dask_embstab.tables.write import workplace
workplace.put = striking(workplace.put, after={after})
"""


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_while_a_run_is_published_says_that_it_was(
    place: Path, *, after: bool
) -> None:
    ended = struck(PUTTING.format(after=after), "SIGTERM", "stabilize", place / "a", place / "out")
    assert (ended.returncode, ended.stdout) == (143, "")
    assert ended.stderr == f"error: interrupted by SIGTERM; {place / 'out'} was published\n"
    assert es.open_run(place / "out").items.n_rows == 60


def test_an_interrupt_after_publishing_says_so(place: Path) -> None:
    hook = """
from dask_embstab.cli import common
common.write_line = striking(common.write_line)
"""
    ended = struck(hook, "SIGTERM", "fit", place / "a", place / "t.npz")
    assert (ended.returncode, ended.stderr) == (
        143,
        f"error: interrupted by SIGTERM; {place / 't.npz'} was published\n",
    )
    assert es.Transform.load(place / "t.npz").items.shape == (4, 4)


def test_a_run_of_a_series_is_published_by_its_version_alone(place: Path) -> None:
    es.Series.init(place / "series")
    ended = struck(
        PUTTING.format(after=True), "SIGTERM", "series", "add", place / "series", place / "a"
    )
    assert (ended.returncode, ended.stderr) == (
        143,
        "error: interrupted by SIGTERM; nothing was published\n",
    )
    assert es.Series(place / "series").head() is None
    hook = """
from dask_embstab.series.store import Folder
Folder.create = striking(Folder.create, lambda self, key, data: key == "versions/1.json",
    after=True)
"""
    ended = struck(hook, "SIGTERM", "series", "add", place / "series", place / "a")
    assert (ended.returncode, ended.stderr) == (
        143,
        "error: interrupted by SIGTERM; version 1 was published\n",
    )
    assert es.Series(place / "series").head().run == "a"


# --- streams


def into(stdout: Any, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in (SCRIPT, *arguments)]
    kinds = {"stdout": stdout, "stderr": subprocess.PIPE} | options
    return subprocess.run(words, text=True, check=False, **kinds)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_full_stdout_is_no_failed_run(place: Path, flags: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = into(full, "stabilize", place / "a", place / "out", *flags)
        assert ended.returncode == 0
        says = (
            rf"warning: the result could not be printed \(No space left on device\); {place}/out"
            r" was published\n"
        )
        assert re.fullmatch(says, ended.stderr)
        ended = into(full, "inspect", place / "out", *flags)
        assert ended.returncode == 1, (
            "where nothing is published, what it prints is all that it does"
        )
        assert re.fullmatch(
            r"error: the result could not be printed .*; nothing was published\n", ended.stderr
        )


def test_a_reader_that_has_left_is_no_failed_run(place: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as left:
        ended = into(left, "stabilize", place / "a", place / "out")
        assert (ended.returncode, ended.stderr) == (0, "")
        ended = into(left, "inspect", place / "out")
        assert (ended.returncode, ended.stderr) == (1, "")


def test_a_full_stderr_changes_nothing(place: Path) -> None:
    arguments = ("--reference", place / "b", "--balance", "gramians")
    es.stabilize(place / "b", place / "reference")
    with Path("/dev/full").open("w") as full:
        ended = into(
            subprocess.PIPE,
            "stabilize",
            place / "a",
            place / "out",
            "--reference",
            place / "reference",
            *arguments[2:],
            stderr=full,
        )
        assert ended.returncode == 0, "its warning went nowhere"
        assert into(subprocess.PIPE, "inspect", place / "none", stderr=full).returncode == 2


def test_a_name_that_stdout_cannot_encode(place: Path) -> None:
    es.Series.init(place / "series")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ended = into(
        subprocess.PIPE,
        "series",
        "add",
        place / "series",
        place / "a",
        "--name",
        "Zürich",
        "--model",
        "\x1b[31mx\x9b",
        env=environment,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert r"run: Z\xfcrich" in ended.stdout
    assert r"model: \x1b[31mx\x9b" in ended.stdout
    assert es.Series(place / "series").head().run == "Zürich"
