"""A series in an Icechunk repository on an S3 server of this machine: whole or not at all, by one
commit for each publish.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from campaigns import EVERY
from fault_proxy import Act, before, error
from publishers import publish_one, race
from s3_server import Bucket, bucket, s3_server
from test_series_processes import day_of

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.files.remote import Url, client
from dask_embstab.files.remote_options import flat
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.repository.address import require_on_objects, storage_of
from dask_embstab.series.repository.home import InRepository

icechunk: Any = pytest.importorskip("icechunk", reason="icechunk is an extra")
__all__ = ["bucket", "s3_server"]
CHUNK = 16 * 4 * 8 + 4
"""Bytes of a chunk of vectors, which whole chunks alone have."""
NO_GATES: dict[str, Any] = {"gates": dict.fromkeys(THRESHOLDS)}


@pytest.fixture(autouse=True)
def one_task_at_a_time() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def at(place: Bucket, **more: Any) -> Url:
    """The URL of a series, with the options that reach it."""
    return Url(f"icechunk+{place.url('team/series')}", {**place.options, **more})


def repository(place: Bucket, *, make: bool = False) -> Any:
    """The same, as whoever knows Icechunk alone opens it."""
    storage = icechunk.s3_storage(
        bucket=place.name,
        prefix="team/series",
        endpoint_url=place.endpoint,
        allow_http=True,
        force_path_style=True,
        **{name: place.options[name] for name in ("access_key_id", "secret_access_key", "region")},
    )
    return (icechunk.Repository.create if make else icechunk.Repository.open)(storage)


def rows(series: es.Series, version: int | None = None) -> list[bytes]:
    """Every row of a version."""
    run = series.open(version)
    return [np.asarray(run.table(key).vectors).tobytes() for key in ("items", "users")]


def test_commands_and_verbs_publish_by_one_commit(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (day_of(tmp_path, day, f"day-{day}") for day in (0, 1))
    series, local = (es.Series.init(home, **NO_GATES) for home in (at(bucket), tmp_path / "local"))
    for one in (series, local):
        assert one.add(first).published
    repo = repository(bucket)
    assert repr(es.Series(repo)) == repr(series)
    assert rows(es.Series(repo)) == rows(local)
    assert pickle.loads(pickle.dumps(series)).head() == series.head()

    publish = [one for one in repo.ancestry(branch="main") if "versions/1.json" in one.message]
    assert len(publish) == 1
    before, after = (
        repo.readonly_session(snapshot_id=one).store
        for one in (publish[0].parent_id, publish[0].id)
    )
    assert names(before, "runs") == names(before, "versions") == []
    assert names(after, "runs") == ["day-0.zarr"]
    assert names(after, "versions") == ["1.json"]

    for words, code in ((("add", str(second)), 0), (("verify",), 0), (("log",), 0)):
        with pytest.raises(SystemExit) as ended:
            main(["series", words[0], str(at(bucket)), *words[1:], *bucket.arguments, "--json"])
        out, _ = capsys.readouterr()
        assert ended.value.code == code
    assert [one["run"] for one in json.loads(out)["versions"]] == ["day-0", "day-1"]
    assert bucket.options["secret_access_key"] not in out

    store = client(Url(bucket.url("team/series"), bucket.options))
    chunks = [one["path"] for one in store.list(prefix="chunks").collect() if one["size"] == CHUNK]
    store.put(chunks[0], bytes(store.get(chunks[1]).bytes()))
    opened = [es.Series(at(bucket)).open(version) for version in (1, 2)]
    tables = [run.table(key) for run in opened for key in ("items", "users")]
    with pytest.raises(es.DamageError, match="is not the chunk that was published"):
        dask.compute([table.vectors for table in tables])


def names(store: Any, folder: str) -> list[str]:
    """What is in a group."""
    return sorted(name for name, _ in zarr.open_group(store, path=folder, mode="r").members())


def fail_while_another_publishes(home: InRepository, change: Any) -> None:
    """A transaction that is interrupted after another publisher has committed."""

    def work() -> None:
        with home.transaction() as changed:
            change(changed)
            n = len(home.names("versions")) + 1
            InRepository(home.given).create(f"versions/{n}.json", b"needs digests/left.json")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()


def test_what_fails_takes_away_nothing_that_was_published_meanwhile(bucket: Bucket) -> None:
    home = InRepository(at(bucket))
    home.made()
    home.create("digests/left.json", b"left by a publish")
    for change in (
        lambda store: store.remove("digests/left.json"),
        lambda store: store.replace("digests/left.json", b"other bytes"),
    ):
        fail_while_another_publishes(home, change)
        assert home.read("digests/left.json") == b"left by a publish"
    fail_while_another_publishes(home, lambda store: store.replace("digests/new.json", b"outrun"))
    assert home.names("digests") == ["left.json", "new.json"]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_repository_that_loses_commits_is_refused(kind: str, tmp_path: Path) -> None:
    storage = (
        icechunk.in_memory_storage()
        if kind == "memory"
        else icechunk.local_filesystem_storage(str(tmp_path / "repository"))
    )
    repo = icechunk.Repository.create(storage)
    for home in (es.Series.init, es.Series):
        with pytest.raises(es.InputError, match=r"2\.3\.0 lost 7 to 11 of 32 acknowledged commits"):
            home(repo)
    with pytest.raises(es.InputError, match=r"lost 7 to 11 of 32 acknowledged commits"):
        es.Series.init(f"icechunk+file://{tmp_path}/other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("icechunk+s3://b/p", {"region": "eu-west-1", "key": "k", "secret": "s"}),
        ("icechunk+s3://b/p", {"skip_signature": "true", "endpoint_url": "http://127.0.0.1:9"}),
        ("icechunk+gs://b/p", {"skip_signature": True}),
        ("icechunk+az://b/p", {"account_name": "a", "account_key": "aGVsbG8="}),
    ],
)
def test_urls_name_repositories_of_every_object_store(url: str, options: dict[str, Any]) -> None:
    inside = Url(url.removeprefix("icechunk+"), options)
    made = storage_of(inside, flat(options))

    class Opened:
        storage = made

    assert require_on_objects(Opened()) == url
    with pytest.raises(es.InputError, match="max_retries, which Icechunk knows; colour came"):
        storage_of(inside, {"colour": "red"})


@pytest.mark.parametrize(
    ("url", "options", "why"),
    [
        ("icechunk+http://host/p", {}, "must be followed by the URL of an object store"),
        ("icechunk+s3://", {}, "must name a bucket"),
        ("icechunk+s3://key:secret@b/p", {}, "may hold no user, password or query"),
        ("icechunk+s3://b/p", {"colour": "red"}, "which Icechunk knows; colour came"),
        ("icechunk+s3://b/p", {"max_retries": "many"}, "max_retries must be a number"),
    ],
)
def test_a_place_that_is_none_is_bad_input_for_every_verb(
    url: str, options: dict[str, Any], why: str
) -> None:
    for verb in (es.Series.init, lambda place: es.Series(place).log()):
        with pytest.raises(es.InputError, match=why):
            verb(Url(url, options))


def test_the_url_of_a_repository_names_no_run() -> None:
    with pytest.raises(es.InputError, match="of an Icechunk repository names a series; give"):
        es.open_run("icechunk+s3://b/p")
    with pytest.raises(es.InputError, match="of an Icechunk repository names a series; give"):
        es.create_run("icechunk+s3://b/p", np.ones((4, 2)))


@pytest.mark.parametrize("verb", [es.Series.init, lambda place: es.Series(place).log()])
def test_without_the_package_one_line_names_the_extra(
    verb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(es.EmbstabError, match=r"dask_embstab\[icechunk\]"):
        verb("icechunk+s3://b/p")


def test_a_store_that_drops_conditions_is_refused(bucket: Bucket) -> None:
    config = icechunk.RepositoryConfig.default()
    config.storage = icechunk.StorageSettings(
        unsafe_use_conditional_update=False, unsafe_use_conditional_create=False
    )
    storage = repository(bucket, make=True).storage
    with pytest.raises(es.InputError, match="of 8 that began at one snapshot"):
        es.Series.init(icechunk.Repository.open(storage, config=config))
    with pytest.raises(es.InputError, match="there is no series"):
        es.Series(at(bucket)).log()


def test_arrays_of_another_program_are_not_built_on(bucket: Bucket) -> None:
    session = repository(bucket, make=True).writable_session("main")
    zarr.open_group(session.store, mode="a").create_array("runs", shape=(3,), dtype="i4")
    session.commit("theirs")
    with pytest.raises(es.InputError, match="runs is an array there"):
        es.Series.init(at(bucket))


# --- campaigns


@pytest.mark.long
def test_two_publishers_at_once(bucket: Bucket, tmp_path: Path, record_property: Any) -> None:
    rounds = 30
    record_property("tried", 2 * rounds)
    for turn in range(5):
        day_of(tmp_path, turn, str(turn))
    es.Series.init(at(bucket), **NO_GATES)
    assert race(at(bucket), tmp_path, rounds) >= rounds // 2, "they did meet"


def started(bucket: Bucket, tmp_path: Path) -> tuple[es.Series, Path, Any]:
    """A series of one day, the next day, and what a reader is to see once that is added."""
    first, second = (day_of(tmp_path, day, f"day-{day}") for day in (0, 1))
    local = es.Series.init(tmp_path / "local", **NO_GATES)
    series = es.Series.init(at(bucket), **NO_GATES)
    for run in (first, second):
        local.add(run)
    series.add(first)
    return series, second, rows(local, 2)


def emptied(series: es.Series, snapshot: str) -> None:
    """The series as it was."""
    series.store.repository.reset_branch("main", snapshot)  # type: ignore[attr-defined]


@pytest.mark.long
@pytest.mark.parametrize("struck", ["cut", "lost", "500"])
def test_an_add_whose_nth_request_fails(
    bucket: Bucket, tmp_path: Path, record_property: Any, struck: str
) -> None:
    """A client that does not try again: the call fails or gets by, and nothing is lost. Each
    request in one of the three ways, and in each with ``EMBSTAB_EVERY=1``.
    """
    step, first = (1, 1) if EVERY else (3, 1 + ["cut", "lost", "500"].index(struck))
    act = error(500, "InternalError") if struck == "500" else struck
    series, day, wanted = started(bucket, tmp_path)
    start = repository(bucket).lookup_branch("main")
    with before(bucket.endpoint) as proxy:
        place = at(bucket.at(proxy.endpoint), max_retries=0)
        number, tried = first, 0
        while True:
            proxy.after(lambda n, *_: act if n == number else None)  # noqa: B023 (asked in this turn)
            published = False
            with contextlib.suppress(OSError, es.EmbstabError):
                published = es.Series(place).add(day).published
            n_struck = proxy.struck
            if len(series.log().versions) == 1:
                assert n_struck
                assert not published
                series.add(day)
            assert rows(series, 2) == wanted
            if not n_struck or tried % 10 == 0:
                assert not series.verify().damage
            if not n_struck:
                break
            emptied(series, start)
            number, tried = number + step, tried + 1
    record_property("tried", tried)
    assert tried > 20 // step


@pytest.mark.long
def test_a_publisher_that_is_killed_at_its_nth_request(
    bucket: Bucket, tmp_path: Path, record_property: Any
) -> None:
    series, day, wanted = started(bucket, tmp_path)
    start = repository(bucket).lookup_branch("main")
    context, alive, number = multiprocessing.get_context("spawn"), True, 1
    with before(bucket.endpoint) as proxy:
        place = at(bucket.at(proxy.endpoint))
        while alive:
            child = context.Process(target=publish_one, args=(place, day))

            def strike(n: int, *_: str) -> Act | None:
                if n < number:  # noqa: B023 (asked in this turn)
                    return None
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)  # noqa: B023
                return "cut"

            proxy.after(strike)
            child.start()
            child.join(300)
            alive = child.exitcode == -signal.SIGKILL
            if len(series.log().versions) == 1:
                assert alive
                assert series.store.names("runs") == ["day-0.zarr"], "nothing is left of it"
                series.add(day)
            assert rows(series, 2) == wanted
            assert not series.verify().damage
            emptied(series, start)
            number += 10
    record_property("tried", number // 10)
    assert number > 20
