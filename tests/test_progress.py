"""`es.progress`: what passes report, and the bars of a notebook."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from oracle import world

import dask_embstab as es

T, W = world(0)


@pytest.mark.usefixtures("small_tasks")
def test_a_hook_is_told_of_every_task_of_every_pass(make_run: Any, tmp_path: Path) -> None:
    run = make_run("run", T, W)
    events: list[tuple[str, int, int]] = []
    with es.progress(lambda *step: events.append(step)), dask.config.set(scheduler="synchronous"):
        es.stabilize(run, tmp_path / "out")
    es.stabilize(run, tmp_path / "quiet")
    labels = list(dict.fromkeys(label for label, _, _ in events))
    assert labels[0] == "fit: reading"
    assert labels[-1] == "apply"
    for label in labels:
        steps = [done for name, done, _ in events if name == label]
        (total,) = {total for name, _, total in events if name == label}
        assert steps == [*range(total + 1), total], "when it begins, after a task, at the end"
    assert ("apply", 0, 4 + 6) in events, "one task per chunk"


def test_a_hook_that_raises_ends_the_pass() -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with es.progress(stop), pytest.raises(KeyboardInterrupt):
        es.fit(T)


def test_a_hook_is_a_function(refused: Any) -> None:
    with refused(es.InputError, "a progress hook is a function.*'bars' came"):
        es.progress("bars")


def test_bars_are_drawn_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with es.progress():
        es.fit(T)
    assert "fit: reading" in capsys.readouterr().err


def test_a_notebook_shows_bars_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By IPython's display of one object that is updated."""
    drawn: list[str] = []

    class Handle:
        def update(self, thing: Any) -> None:
            drawn.append(thing._repr_html_())
            assert repr(thing).startswith("fit: reading")

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=1)  # type: ignore[attr-defined]
    shown = types.ModuleType("IPython.display")
    shown.display = lambda *_, **__: Handle()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    with es.progress():
        es.fit(np.vstack([T] * 2))
    assert "<progress value='1' max='1'></progress> 1/1" in drawn[-1]
    assert not capsys.readouterr().err
