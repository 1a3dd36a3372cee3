"""A series below an S3 URL, by Python and by commands, against a server of this machine."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from fault_proxy import before
from s3_server import Bucket, bucket, s3_server
from test_series_processes import day_of

import dask_embstab as es
from dask_embstab.cli.main import main
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
    assert told(capsys, bucket, "series", "init", url)[0] == 2
    assert told(capsys, bucket, "series", "add", url, first)[0] == 0
    series = es.Series(url, storage_options=bucket.options)
    assert series.add(second).published
    folder = es.Series.init(tmp_path / "series", **NO_GATES)
    for day in (first, second):
        folder.add(day)
    for key in ("items", "users"):
        ours, theirs = (made.open().table(key).vectors for made in (series, folder))
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))

    assert told(capsys, bucket, "series", "verify", url)[1]["damage"] == []
    assert len(told(capsys, bucket, "series", "log", url)[1]["versions"]) == 2
    assert told(capsys, bucket, "series", "metrics", url)[1]["out"] == f"{url}/metrics.prom"
    compared = told(capsys, bucket, "evaluate", f"{url}@1", f"{url}@2")[1]
    assert compared["items"] == series.diff(1, 2).to_dict()["items"]
    found = es.space_of(f"{url}@2", storage_options=bucket.options)
    assert found.origin == series.space(2).origin
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
