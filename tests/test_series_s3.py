"""A series below an S3 URL, by Python and by commands, against a server of this machine."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from cloud_stand_ins import Amazon, serving
from fault_proxy import before, error
from faults import recorded
from publishers import publish_one, race
from s3_server import Bucket, bucket, s3_server
from test_series_processes import day_of

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.files.remote import Url
from dask_embstab.series.log.thresholds import THRESHOLDS

__all__ = ["bucket", "s3_server"]
NO_GATES: dict[str, Any] = {"gates": dict.fromkeys(THRESHOLDS)}


@pytest.fixture(autouse=True)
def one_task_at_a_time() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def told(capsys: pytest.CaptureFixture[str], bucket: Bucket, *words: Any) -> tuple[int, Any]:
    """A command's exit code and the JSON that it prints (else its error)."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), *bucket.arguments, "--json"])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), json.loads(out) if out else err


def test_commands_and_verbs_take_its_url(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = bucket.url("team/series")
    first, second = (day_of(tmp_path, day, f"day-{day}") for day in (0, 1))
    gates = [f"--gate={name}=off" for name in THRESHOLDS]
    assert told(capsys, bucket, "series", "init", url, *gates)[0] == 0
    assert told(capsys, bucket, "series", "add", url, first)[0] == 0
    series = es.Series(url, storage_options=bucket.options)
    assert series.add(second).published
    assert not series.verify().damage
    assert len(told(capsys, bucket, "series", "log", url)[1]["versions"]) == 2
    assert told(capsys, bucket, "series", "metrics", url)[1]["out"] == f"{url}/metrics.prom"
    space = es.space_of(f"{url}@2", storage_options=bucket.options)
    assert space.origin == series.space(2).origin
    assert told(capsys, bucket, "series", "log", bucket.url("none"))[0] == 2
    assert bucket.options["secret_access_key"] not in repr(series.manifest())
    assert pickle.loads(pickle.dumps(series)).head() == series.head()
    assert series.gc(grace=0).removed == []


def test_a_server_that_drops_the_condition_is_refused(bucket: Bucket) -> None:
    with before(bucket.endpoint) as proxy:
        proxy.drop = ("If-None-Match",)
        options = bucket.at(proxy.endpoint).options
        with pytest.raises(es.InputError, match=r"If-None-Match.*it did 8 and not one"):
            es.Series.init(bucket.url("series"), storage_options=options)
    assert es.Series.init(bucket.url("series"), storage_options=bucket.options).head() is None


def at(place: Bucket, key: str = "series", **more: Any) -> Url:
    """The URL of a series, with the options that reach it."""
    return Url(place.url(key), {**place.options, **more})


@pytest.mark.long(minutes=30)
def test_two_publishers_at_once(bucket: Bucket, tmp_path: Path, record_property: Any) -> None:
    """Four series of 25 rounds: every add reads the whole log."""
    rounds, retries = 25, 0
    record_property("tried", 8 * rounds)
    for turn in range(5):
        day_of(tmp_path, turn, str(turn))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["publishers", "obstore", "dask_embstab.series.objects.prefix"])
    for key in "abcd":
        series = es.Series.init(at(bucket, key), policy="first", **NO_GATES)
        retries += race(at(bucket, key), tmp_path, rounds, context=context)
        assert series.store.names("locks") == []
    assert retries >= rounds, "they did meet"


def started(bucket: Bucket, tmp_path: Path) -> tuple[es.Series, Path, Any]:
    """A series of one day, the next day, and what a reader is to see once that is added."""
    first, second = (day_of(tmp_path, day, f"day-{day}") for day in (0, 1))
    series = es.Series.init(at(bucket), **NO_GATES)
    series.add(first)
    series.add(second)
    wanted = seen(series)
    emptied(series)
    return series, second, wanted


def seen(series: es.Series) -> Any:
    """The log, and every row of the head."""
    assert not series.verify().damage
    rows = [np.asarray(series.open().table(key).vectors).tobytes() for key in ("items", "users")]
    return recorded(series), rows


def emptied(series: es.Series) -> None:
    """The series as it was before the last version."""
    store = series.store
    store.remove("versions/2.json")
    for folder in ("runs", "references", "candidates"):
        for name in store.names(folder):
            if "day-1" in name:
                store.remove(f"{folder}/{name}")


@pytest.mark.long
@pytest.mark.parametrize("act", ["cut", "lost", "500"])
def test_an_add_of_which_every_other_request_fails(
    bucket: Bucket, tmp_path: Path, record_property: Any, act: str
) -> None:
    """So that of each the first try does. What fails at the n-th request and is not tried again is
    struck in `test_series_object_faults.py`.
    """
    failure = error(500, "InternalError") if act == "500" else act
    series, day, wanted = started(bucket, tmp_path)
    with before(bucket.endpoint) as proxy:
        proxy.after(lambda n, *_: failure if n % 2 else None)
        assert es.Series(at(bucket.at(proxy.endpoint))).add(day).published
        record_property("tried", proxy.struck)
        assert proxy.struck > 100
    assert seen(series) == wanted
    assert series.store.names("locks") == []


@pytest.mark.long
@pytest.mark.parametrize("first", [1, 11, 21])
def test_a_publisher_that_is_killed_at_its_nth_request(
    tmp_path: Path, record_property: Any, first: int
) -> None:
    """Its lease is taken over at once: its process is dead."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["publishers", "obstore", "dask_embstab.series.objects.prefix"])
    with serving(Amazon) as server:
        bucket = Bucket("bucket", server.endpoint)
        series, day, wanted = started(bucket, tmp_path)
        objects, number, tried, alive = dict(server.objects), first, 0, True
        while alive:
            server.objects = dict(objects)
            child, asked = context.Process(target=publish_one, args=(at(bucket), day)), count()

            def strike(*_: str) -> str | None:
                if next(asked) < number - 1:  # noqa: B023 (asked in this turn)
                    return None
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)  # noqa: B023
                return "cut"

            server.refuse = strike
            child.start()
            child.join(300)
            server.refuse = lambda *_: None
            alive = child.exitcode == -signal.SIGKILL
            if len(series.log().versions) == 1:
                assert alive
                series.add(day)
            assert seen(series) == wanted
            series.gc(grace=0)  # of one that was killed once it had published
            assert seen(series) == wanted
            assert series.store.names("locks") == []
            number, tried = number + 30, tried + 1
    record_property("tried", tried)
    assert tried > 5


def test_nobody_but_a_series_writes_below_its_url(bucket: Bucket, tmp_path: Path) -> None:
    es.Series.init(at(bucket), **NO_GATES)
    run = es.open_run(day_of(tmp_path, 0, "day-0"))
    with pytest.raises(es.InputError, match=r"lies in the series s3://.* by its own verbs alone"):
        es.stabilize(run, at(bucket, "series/runs/day-0.zarr"))
