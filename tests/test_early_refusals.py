"""Where an output cannot stand, it is said before anything is read for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracle import world
from rich.progress import Progress

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.passes.engine import graph
from dask_embstab.render.bars import bars

MakeRun = Callable[..., es.Run]
T, W = world(84)
COMMANDS: dict[str, Callable[[str, str], list[str]]] = {
    "fit": lambda run, out: ["fit", run, f"{out}/t.npz"],
    "moments": lambda run, out: ["moments", run, f"{out}/m.npz"],
    "report": lambda run, out: ["report", run, run, f"{out}/r.html"],
    "compress": lambda run, out: ["compress", run, f"{out}/c.zarr", "--budget", "bytes=9"],
    "export": lambda run, out: ["export", run, f"{out}/parquet"],
    "stabilize": lambda run, out: ["stabilize", run, f"{out}/s.zarr"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_is_missing_is_an_error_before_a_row_is_read(
    name: str,
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run("run", T, W)

    def read(*_: Any, **__: Any) -> Any:
        raise AssertionError("rows were read")

    monkeypatch.setattr(graph.dask, "compute", read)
    with pytest.raises(SystemExit) as ended:
        main(COMMANDS[name](str(run.path), str(tmp_path / "nowhere")))
    assert ended.value.code == 2
    assert "does not exist; create it first" in capsys.readouterr().err


def test_a_bar_is_drawn_where_there_is_something_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    add_task = Progress.add_task
    monkeypatch.setattr(
        Progress,
        "add_task",
        lambda self, label, **more: (drawn.append(label), add_task(self, label, **more))[1],
    )
    with bars() as hook:
        hook("a few rows", 0, 0)
        hook("a pass", 0, 3)
        hook("a pass", 3, 3)
        hook("a few rows", 0, 0)
    assert drawn == ["a pass"]
