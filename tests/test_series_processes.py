"""Several processes, killed ones among them, a full disk, and a year of all that at once."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dask
import faults
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from oracle import refactored, world
from publishers import race
from test_series_faults import ended

import dask_embstab as es
from dask_embstab.series.log.thresholds import THRESHOLDS

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
PUBLISHER = Path(__file__).with_name("publishers.py")


def day_of(folder: Path, day: int, name: str) -> Path:
    """A small run of a world that changes."""
    T, W = world(0, 24, 30)
    U, V = world(day + 1, 24, 30)
    items, users = refactored(T + 0.1 * U, W + 0.1 * V, day)
    es.create_run(
        folder / f"{name}.zarr", items, users, item_ids=np.arange(24) + day % 3, chunk_rows=16
    )
    return folder / f"{name}.zarr"


# --- other processes


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.long)])
def test_kill_9_at_random_times(tmp_path: Path, record_property: Any, rounds: int) -> None:
    record_property("tried", rounds)
    inputs, place = tmp_path / "inputs", tmp_path / "series"
    inputs.mkdir()
    for day in range(3 * rounds):
        day_of(inputs, day, f"day-{day:03}")
    undisturbed = tmp_path / "undisturbed"
    for at in (place, undisturbed):
        es.Series.init(at, gates=dict.fromkeys(THRESHOLDS))
    chance, seen = random.Random(rounds), 0
    for _ in range(rounds):
        with subprocess.Popen(
            [sys.executable, PUBLISHER, place, inputs], stdout=subprocess.PIPE
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.0, 0.7))
            running.send_signal(signal.SIGKILL)
        published = len(ended(place)[0])
        assert published >= seen, "no version is lost"
        seen = published
    with dask.config.set(scheduler="synchronous"):
        for at in (place, undisturbed):
            for path in sorted(inputs.glob("*.zarr")):
                es.Series(at).add(path)
    es.Series(place).gc(grace=0)
    assert ended(place) == ended(undisturbed)
    assert {path.name for path in (place / "runs").iterdir()} == {
        path.name for path in inputs.iterdir()
    }


@pytest.mark.parametrize(
    ("n", "rounds"), [(2, 3), pytest.param(4, 100, marks=pytest.mark.long(minutes=30))]
)
def test_several_publishers_at_once(
    tmp_path: Path, record_property: Any, n: int, rounds: int
) -> None:
    record_property("tried", n * rounds)
    for turn in range(5):
        day_of(tmp_path, turn, str(turn))
    series = es.Series.init(tmp_path / "series", gates=dict.fromkeys(THRESHOLDS))
    retries = race(tmp_path / "series", tmp_path, rounds, n=n, seconds=900)
    assert [v.reference for v in series.log().versions] == [None, *range(1, n * rounds)]
    assert retries >= rounds // 2, "they did meet"
    assert not list((tmp_path / "series" / "candidates").iterdir())


@pytest.mark.parametrize("limit", [64, 300, 520, 800, 1500, 4000])
def test_a_full_disk(tmp_path: Path, record_property: Any, limit: int) -> None:
    """A limit of every file's size stands for it: writes end with an error in their midst."""
    place = tmp_path / "series"
    series = es.Series.init(place, gates=dict.fromkeys(THRESHOLDS))
    for day in range(2):
        series.add(day_of(tmp_path, day, f"day-{day}"))
    record_property("tried", 1)
    before, third = ended(place), day_of(tmp_path, 2, "day-2")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError):
            series.add(third)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ended(place) == before
    assert series.add(third).published
    series.gc(grace=0)
    assert {path.name for path in (place / "runs").iterdir()} == {
        f"day-{day}.zarr" for day in range(3)
    }
    assert not series.verify().damage


# --- a year


@pytest.mark.parametrize("n_days", [6, pytest.param(365, marks=pytest.mark.long(minutes=35))])
def test_a_year_of_daily_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any, n_days: int
) -> None:
    """With faults, kills, power cuts, rollbacks and gc, and the same without: equal in the end."""
    disk, chance = faults.install(monkeypatch), random.Random(n_days)
    places = {name: tmp_path / name / "series" for name in ("disturbed", "undisturbed")}
    for place in places.values():
        es.Series.init(place, gates=dict.fromkeys(THRESHOLDS))
    inputs, struck = tmp_path / "inputs", 0
    inputs.mkdir()
    with dask.config.set(scheduler="synchronous"):
        for day in range(n_days):
            path = day_of(inputs, day, f"day-{day:03}")
            back = chance.randrange(1, day) if day > 2 and chance.random() < 0.1 else None
            disturbed = es.Series(places["disturbed"])
            for _ in range(chance.randrange(3)):
                at, mode = chance.randrange(1, 450), chance.choice(faults.MODES)
                dead = contextlib.suppress(faults.Killed, OSError, es.EmbstabError)
                with dead, disk.armed(places["disturbed"], at, mode):
                    disturbed.add(path)
                struck += disk.struck
                if chance.random() < 0.3:
                    disturbed.gc(pin_age=0.0, grace=0)
            for place in places.values():
                es.Series(place).add(path)
                if back is not None:
                    es.Series(place).rollback(back)
            shutil.rmtree(path)
    es.Series(places["disturbed"]).gc(grace=0)
    assert struck >= n_days // 2
    record_property("tried", struck)
    assert ended(places["disturbed"]) == ended(places["undisturbed"])
    runs = [{path.name for path in (place / "runs").iterdir()} for place in places.values()]
    assert runs[0] == runs[1]


# --- a model


class SeriesMachine(RuleBasedStateMachine):
    """A series is a list of runs; adding appends, a rollback appends an old one, nothing else
    changes it.
    """

    folder: Path
    inputs: list[Path]
    disk: faults.Faults
    count = 0

    def __init__(self) -> None:
        super().__init__()
        SeriesMachine.count += 1
        self.place = self.folder / str(SeriesMachine.count) / "series"
        self.place.parent.mkdir()
        self.series = es.Series.init(self.place, gates=dict.fromkeys(THRESHOLDS))
        self.model: list[str] = []

    @rule(day=st.integers(0, 3))
    def add(self, day: int) -> None:
        name = self.inputs[day].stem
        assert self.series.add(self.inputs[day]).published == (name not in self.model)
        if name not in self.model:
            self.model.append(name)

    @rule(day=st.integers(0, 3), at=st.integers(1, 450), mode=st.sampled_from(faults.MODES))
    def add_and_be_struck(self, day: int, at: int, mode: str) -> None:
        with (
            contextlib.suppress(faults.Killed, OSError, es.EmbstabError),
            self.disk.armed(self.place, at, mode),
        ):
            self.series.add(self.inputs[day])
        versions = self.series.log().versions
        if len(versions) > len(self.model):
            self.model.append(self.inputs[day].stem)

    @rule(back=st.integers(1, 6))
    def rollback(self, back: int) -> None:
        if back > len(self.model):
            with pytest.raises(es.InputError):
                self.series.rollback(back)
        elif self.series.rollback(back).published:
            assert self.model[back - 1] != self.model[-1]
            self.model.append(self.model[back - 1])

    @rule()
    def gc(self) -> None:
        self.series.gc(pin_age=0.0, grace=0)
        runs = {path.name for path in (self.place / "runs").iterdir()}
        assert runs == {f"{name}.zarr" for name in self.model}
        assert not list((self.place / "candidates").iterdir())

    @invariant()
    def reads_as_the_model(self) -> None:
        log = es.Series(self.place).log()
        assert [v.run for v in log.versions] == self.model
        assert (log.head.run if log.head else None) == (self.model[-1] if self.model else None)

    def teardown(self) -> None:
        assert not self.series.verify().damage
        shutil.rmtree(self.place.parent)


@pytest.mark.parametrize(
    ("examples", "steps"), [(5, 8), pytest.param(60, 25, marks=pytest.mark.long)]
)
def test_a_series_is_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: int, steps: int
) -> None:
    SeriesMachine.folder, SeriesMachine.disk = tmp_path, faults.install(monkeypatch)
    SeriesMachine.inputs = [day_of(tmp_path, day, f"day-{day}") for day in range(4)]
    with dask.config.set(scheduler="synchronous"):
        run_state_machine_as_test(
            SeriesMachine, settings=settings(max_examples=examples, stateful_step_count=steps)
        )
