"""What other processes do to a series in the tests."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import dask

import dask_embstab as es


def publish_all(place: Path, folder: Path) -> None:
    """Publish every run of a folder that is not published yet, in order of their names, and gc now
    and then.
    """
    with dask.config.set(scheduler="synchronous"):
        series = es.Series(place)
        known = series.log().runs
        for path in sorted(folder.glob("*.zarr")):
            if path.stem not in known:
                series.add(path)
                series.gc(grace=0)


def publish_one(place: Any, run: Path) -> None:
    """Publish one run."""
    with dask.config.set(scheduler="synchronous"):
        es.Series(place).add(run)


def publish_in_step(
    number: int, place: Any, folder: Path, rounds: int, barrier: Any, message: Any
) -> None:
    """Publish a run of one's own in every round, all at once with others, again and again until it
    is in.
    """
    retries = 0
    with dask.config.set(scheduler="synchronous"):
        series = es.Series(place)
        for turn in range(rounds):
            barrier.wait(120)
            while True:
                try:
                    assert series.add(
                        folder / f"{turn % 5}.zarr", name=f"p{number}-{turn}"
                    ).published
                    break
                except es.RetryError:
                    retries += 1
    message.put(retries)


def race(
    place: Any, folder: Path, rounds: int, *, n: int = 2, context: Any = None, seconds: float = 3600
) -> int:
    """Publish from ``n`` processes in step; how often one was told to call again. All runs are
    versions then, each on the one before.
    """
    context = context or multiprocessing.get_context("spawn")
    barrier, retries = context.Barrier(n), context.Queue()
    arguments = (place, folder, rounds, barrier, retries)
    others = [context.Process(target=publish_in_step, args=(i, *arguments)) for i in range(n)]
    for other in others:
        other.start()
    total = sum(retries.get(timeout=seconds) for _ in others)
    for other in others:
        other.join(60)
        assert other.exitcode == 0

    require_all(es.Series(place), n, rounds)
    return total


def require_all(series: es.Series, n: int, rounds: int) -> None:
    """Every run of ``n`` publishers is a version, each on the one before."""
    versions = series.log().versions
    assert sorted(str(v.run) for v in versions) == sorted(
        f"p{i}-{turn}" for i in range(n) for turn in range(rounds)
    )
    assert [v.parent for v in versions] == [None, *range(1, n * rounds)], "none is torn off"
    assert not series.verify().damage


if __name__ == "__main__":
    print("ready", flush=True)  # noqa: T201
    publish_all(Path(sys.argv[1]), Path(sys.argv[2]))
