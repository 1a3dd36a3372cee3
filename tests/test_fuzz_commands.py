"""Every command with every wrong text in every argument and option: exit 0, 2 or 3, one line, and
never a traceback.

Commands and their options are asked of the command line itself: a new command that is not called
here fails.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import click
import dask
import numpy as np
import pytest
from campaigns import EVERY
from click.testing import CliRunner, Result
from oracle import world

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.log.thresholds import THRESHOLDS

T, W = world(76)
T2, W2 = world(77)
IDS = {"item_ids": np.arange(60), "user_ids": np.arange(90)}
TEXTS = {
    "nothing": "",
    "a blank": " ",
    "a zero byte": "a\0b",
    "a long text": "x" * 5000,
    "a name that is too long": "x" * 252,
    "a lone surrogate": "\ud800",
    "bytes that are no UTF-8": "\udcff",
    "a new line": "a\nb",
    "a steering character": "a\x1b[31mb",
    "a negative number": "-5",
    "zero": "0",
    "not a number": "nan",
    "an infinite number": "1e999",
    "a number of many digits": "9" * 5000,
    "a number beyond int64": str(1 << 63),
    "words": "no such thing",
    "an unknown protocol": "foo://bucket/run",
    "a URL nobody answers at": "http://127.0.0.1:9/run.zarr",
    "an unknown option": "--no-such-option",
    "nothing there": "nothing-there.zarr",
    "an empty folder": "empty",
    "a text file": "file.txt",
    "a path through a file": "file.txt/run.zarr",
    "a link to nowhere": "link",
    "a NumPy file": "rows.npy",
    "a Parquet file": "rows.parquet",
    "a transform": "t.npz",
    "a series": "series",
    "a run": "a.zarr",
    "a table": "a.zarr/items",
    "an array": "a.zarr/items/vectors",
    "a folder above": "..",
    "here": ".",
}
CALLS: dict[str, list[str]] = {
    "apply": ["t.npz", "a.zarr", "new"],
    "check": ["a.zarr", "b.zarr"],
    "compress": ["a.zarr", "new"],
    "demo": ["new", "--users", "100", "--items", "100", "--days", "2", "--components", "3"],
    "detect": ["a.zarr", "--spaces", "series"],
    "doctor": ["a.zarr", "--disk-bytes", "1kB", "--seconds", "0.001"],
    "evaluate": ["a.zarr", "b.zarr"],
    "export": ["a.zarr", "new"],
    "fit": ["a.zarr", "new", "--reference", "b.zarr"],
    "frontier": ["a.zarr"],
    "import": ["a.zarr", "new"],
    "index build": ["a.zarr", "new", "--engine", "pgvector"],
    "index query": ["index", "a.zarr"],
    "index upgrade": ["index", "new", "--transform", "t.npz"],
    "inspect": ["a.zarr"],
    "lookup": ["a.zarr", "3"],
    "moments": ["a.zarr", "new", "--reference", "b.zarr"],
    "report": ["a.zarr", "b.zarr", "new"],
    "series acknowledge": ["series", "c"],
    "series add": ["series", "c.zarr"],
    "series apply": ["series", "c.zarr", "new"],
    "series diff": ["series", "1", "2"],
    "series export-manifest": ["series"],
    "series forget": ["series", "3", "--table", "items"],
    "series codes": ["series"],
    "series gc": ["series"],
    "series init": ["new"],
    "series log": ["series"],
    "series metrics": ["series"],
    "series promote": ["series", "2"],
    "series rebase": ["series", "--onto", "b.zarr"],
    "series replay": ["series", "new"],
    "series rollback": ["series", "1"],
    "series settings": ["series"],
    "series show": ["series"],
    "series skew": ["series"],
    "series status": ["series"],
    "series verify": ["series"],
    "serve": ["series", "--port", "99999"],
    "stabilize": ["a.zarr", "new", "--reference", "b.zarr"],
    "upgrade rollback": ["moving"],
    "upgrade run": ["index", "a.zarr", "b.zarr", "new"],
    "upgrade plan": ["a.zarr", "b.zarr"],
    "verify": ["a.zarr"],
}
"""By command, arguments that it takes; where fewer than it has, the last are optional."""
STEP = 1 if EVERY else 6
"""The long tier tries one in so many of all 15,000 lines."""


def commands(group: click.Group = main, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its name."""
    for name, result in group.commands.items():
        if isinstance(result, click.Group):
            yield from commands(result, f"{above}{name} ")
        else:
            yield f"{above}{name}", result


def lines(name: str, command: click.Command, text: str) -> Iterator[tuple[str, list[str]]]:
    """By the parameter that is wrong, what is called."""
    at = 0
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            whole = [*CALLS[name]]
            whole[at : at + 1] = [text]
            yield str(parameter.name), [*name.split(), *whole]
            at += 1
        elif not getattr(parameter, "is_flag", False) and not isinstance(
            parameter.type, click.Choice
        ):
            yield str(parameter.name), [*name.split(), *CALLS[name], parameter.opts[-1], text]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pandas as pd

    folder = tmp_path_factory.mktemp("commands")
    first = es.create_run(folder / "a.zarr", T, W, **IDS)
    second = es.create_run(folder / "b.zarr", T2, W2, **IDS)
    es.create_run(folder / "c.zarr", T + 0.1 * T2, W + 0.1 * W2, **IDS)
    es.fit(first).save(folder / "t.npz")
    series = es.Series.init(folder / "series", gates=dict.fromkeys(THRESHOLDS))
    series.add(first)
    series.add(second, shadow=True)
    es.export(first, folder / "index", format="usearch")
    es.begin_backfill(folder / "moving", folder / "index", first, second)
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("nowhere")
    (folder / "file.txt").write_text("a,b\n1,2\n")
    np.save(folder / "rows.npy", T)
    pd.DataFrame(T, columns=list("abcd")).to_parquet(folder / "rows.parquet")
    return folder


@pytest.fixture
def fresh(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Everything as it was, in the working directory."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)

    def stands() -> dict[str, tuple[int, int]]:
        seen = {path: path.lstat() for path in tmp_path.rglob("*")}
        return {str(path): (of.st_mtime_ns, of.st_ino) for path, of in seen.items()}

    fresh_ones: dict[str, tuple[int, int]] = {}

    def again() -> None:
        if fresh_ones and stands() == fresh_ones:
            return  # the command before this one has changed nothing
        for path in tmp_path.iterdir():
            if path != place:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(template, place, symlinks=True, dirs_exist_ok=True)
        fresh_ones.clear()
        fresh_ones.update(stands())

    return again


def fault(ended: Result) -> str:
    """What is wrong with how a command ended; nothing where it is one clear line and the contract's
    exit code.
    """
    message = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    if ended.exit_code not in (0, 2, 3) or "Traceback" in ended.stderr or len(message) > 1:
        return f"exit {ended.exit_code}: {ended.stderr[-300:]} {ended.exception!r}"[:400]
    if ended.exit_code == 2 and not message and "Error: " not in ended.stderr:
        return f"no word of an error: {ended.stderr[-300:]}"
    return ""


def test_every_command_is_called() -> None:
    assert set(CALLS) == {name for name, _ in commands()}


@pytest.mark.parametrize("step", [64, pytest.param(STEP, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", sorted(CALLS))
def test_no_command_ends_with_anything_but_a_clear_error(
    fresh: Callable[[], None], name: str, step: int
) -> None:
    command, faults = dict(commands())[name], dict[str, str]()
    # Some texts are ports, which it would serve for ever.
    served = mock.patch("uvicorn.Server.run", lambda _, sockets: sockets[0].close())
    with dask.config.set(scheduler="synchronous"), served:
        for kind, text in TEXTS.items():
            for parameter, line in lines(name, command, text):
                if not zlib.crc32(f"{name} {parameter} {kind}".encode()) % step:
                    fresh()
                    ended = CliRunner().invoke(main, line)
                    if failure := fault(ended):
                        faults[f"{parameter}: {kind}"] = failure
    assert not faults
