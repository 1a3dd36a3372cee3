"""Writers are killed at random times, what they leave is damaged, inputs change: what is published
is right.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from oracle import data_of, hidden, world

import dask_embstab as es

pytestmark = pytest.mark.usefixtures("small_tasks")
T, W = world(8, 400, 300)
LONG = pytest.param(100, marks=pytest.mark.long)


@pytest.fixture
def chance() -> random.Random:
    """Another one each time: what is asserted holds whatever is struck."""
    return random.Random()


@pytest.fixture(autouse=True)
def _plainly() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def struck(work: Callable[[], Any], seconds: float) -> int:
    """A child that does this and is killed after so many seconds; its exit code, or minus the
    signal's number.
    """
    child = forked(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return ended(child)


def forked(work: Callable[[], Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 (the child ends here, and says why)
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def took(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    assert ended(forked(work)) == 0
    return time.perf_counter() - began


def left_of(out: Path) -> list[Path]:
    return [place for place in hidden(out.parent) if place.name.startswith(f".{out.name}.")]


def require_reclaimed(out: Path, write: Callable[[], Any]) -> None:
    """The next write takes away all that was left; a folder that was just being made, once it is a
    minute old.
    """
    for place in left_of(out):
        os.utime(place, (time.time() - 120,) * 2)
    write()
    assert left_of(out) == []


def zero(path: Path, _: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path, _: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path, _: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def exchange(path: Path, other: Path) -> None:
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def lose(path: Path, _: Path) -> None:
    path.unlink()


HARM = (zero, empty, cut, flip, exchange, lose)


@pytest.mark.parametrize("rounds", [5, LONG])
def test_resumed_writes(
    tmp_path: Path, make_run: Any, record_property: Any, chance: random.Random, rounds: int
) -> None:
    run, out, tried = (
        make_run("in", T, W, item_ids=np.arange(400)),
        tmp_path / "out.zarr",
        Counter[str](),
    )
    path, transform = Path(run.path), es.fit(run)
    limit = took(lambda: es.apply(transform, path, tmp_path / "once.zarr", resume=True, sync=False))
    for number in range(rounds):
        for _ in range(chance.randrange(1, 4)):
            done = struck(
                lambda: es.apply(transform, path, out, resume=True, sync=False),
                chance.random() * limit,
            )
            tried["killed" if done < 0 else "ended"] += 1
            if done == 0:
                break
            left = [
                file
                for file in tmp_path.glob(".out.zarr.*/run/*/vectors/c/*/*")
                if file.stat().st_size
            ]
            if left and chance.random() < 0.6:
                harm = chance.choice(HARM)
                harm(chance.choice(left), chance.choice(left))
                tried[harm.__name__] += 1
            if chance.random() < 0.3:
                zarr.open_group(path, mode="r+")["items/vectors"][16:32] = number + T[16:32]
                tried["input written in place"] += 1
        # One that was killed behind its publish leaves what it was removing to the next write.
        by_the_dead = out.exists()
        if not by_the_dead:
            es.apply(transform, path, out, resume=True)
            whole = es.apply(transform, path, tmp_path / "whole.zarr", overwrite=True)
            assert data_of(out) == data_of(whole.path)
        es.open_run(out, verify=True)
        assert by_the_dead or all(place.suffix == ".new" for place in left_of(out))
        shutil.rmtree(out)
    require_reclaimed(out, lambda: es.apply(transform, path, out))
    record_property("tried", tried.total() - tried["ended"])
    record_property("ended", dict(tried))


@pytest.mark.parametrize("rounds", [2, LONG])
@pytest.mark.parametrize("renameat2", [True, False], ids=["renameat2", "two renames"])
def test_overwriting_writers(
    tmp_path: Path,
    make_run: Any,
    record_property: Any,
    monkeypatch: pytest.MonkeyPatch,
    chance: random.Random,
    renameat2: bool,
    rounds: int,
) -> None:
    """Three at one place, one of which is killed, while another process reads all of what stands
    there.
    """
    if not renameat2:
        monkeypatch.setattr("dask_embstab.files.swap._renameat2", lambda *_: False)
    out = tmp_path / "out.zarr"
    inputs = [make_run(f"in-{number}", T * (number + 1), W) for number in range(3)]
    transform = es.fit(inputs[0])
    wanted = [
        data_of(es.apply(transform, run, tmp_path / "whole.zarr", overwrite=True).path)
        for run in inputs
    ]
    es.apply(transform, inputs[0], out)
    limit = took(lambda: es.apply(transform, inputs[0], out, overwrite=True, sync=False))
    for _ in range(rounds):
        writers = [
            forked(lambda run=run: es.apply(transform, run, out, overwrite=True, sync=False))
            for run in inputs
        ]
        reader = forked(lambda: read_whole(out))
        time.sleep(chance.random() * 3 * limit)
        victim = chance.choice(writers)
        os.kill(victim, signal.SIGKILL)
        codes = {child: ended(child) for child in [*writers, reader]}
        assert all(code == 0 for child, code in codes.items() if child != victim), codes
        assert codes[victim] in (0, -signal.SIGKILL)
        es.open_run(out, verify=True)
        vectors = {name: data for name, data in data_of(out).items() if "vectors" in name}
        assert vectors in [
            {name: data for name, data in one.items() if "vectors" in name} for one in wanted
        ]
    require_reclaimed(out, lambda: es.apply(transform, inputs[0], out, overwrite=True))
    record_property("tried", rounds)


def read_whole(out: Path) -> None:
    """Open and read again and again: a run that is replaced meanwhile is told, damage never."""
    for _ in range(5):
        try:
            es.create_run(
                out.with_name(f"copy-{os.getpid()}.zarr"), out, overwrite=True, sync=False
            )
        except es.InputChangedError:
            continue
