"""Runs and series on Google Cloud Storage and Azure Blob Storage, whose conditions, listings and
removals are others than those of S3: against small servers of this machine that speak them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import obstore
import pytest
from cloud_stand_ins import Amazon, Azure, Google, serving
from oracle import world

import dask_embstab as es
from dask_embstab.files.remote import Url, client
from dask_embstab.files.remote_options import of_service
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.objects.prefix import ObjectPrefix
from dask_embstab.tables.read.stored import objects
from dask_embstab.tables.write import object_writer

T, W = world(5)
B, V = world(6)
IDS = np.arange(len(T))
NO_GATES = dict.fromkeys(THRESHOLDS)
SERVICES: dict[str, tuple[Any, str, dict[str, str]]] = {
    "google": (Google, "gs", {"bearer_token": "t0ken"}),
    "azure": (Azure, "az", {"account_name": "team", "access_key": "c2VjcmV0"}),
}
S3 = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}


@dataclass
class Cloud:
    """A service, and how its URLs are reached."""

    server: Any
    scheme: str
    credentials: dict[str, str]

    def at(self, key: str) -> Url:
        """The URL of a place."""
        options = {"endpoint": self.server.endpoint, "max_retries": 0, **self.credentials}
        return Url(f"{self.scheme}://bucket/{key}", options)


@pytest.fixture(params=SERVICES)
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    kind, scheme, credentials = SERVICES[request.param]
    with serving(kind) as server, dask.config.set(scheduler="synchronous"):
        yield Cloud(server, scheme, credentials)


def test_runs_are_whole_or_not_at_all(cloud: Cloud, tmp_path: Path) -> None:
    """The bits of a local disk; a place that is taken, or another's, is refused."""
    there = es.create_run(cloud.at("a.zarr"), T, W, item_ids=IDS, chunk_rows=16)
    here = es.create_run(tmp_path / "a.zarr", T, W, item_ids=IDS, chunk_rows=16)
    first = es.stabilize(there, cloud.at("first.zarr"), reference=here)
    theirs = es.stabilize(here, tmp_path / "first.zarr", reference=here)
    for key in ("items", "users"):
        ours = np.asarray(first.table(key).vectors)
        assert ours.tobytes() == np.asarray(theirs.table(key).vectors).tobytes()
    es.open_run(first.path, verify=True, storage_options=cloud.at("").options)
    np.testing.assert_array_equal(first.items.rows_of([7, 3]), theirs.items.rows_of([7, 3]))
    with pytest.raises(es.OutputExistsError, match="exists already"):
        es.create_run(cloud.at("a.zarr"), T)
    cloud.server.refuse = lambda _, key: (
        (403, b"<Error><Code>AccessDenied</Code></Error>") if "vectors/c/2" in key else None
    )
    with pytest.raises(es.AccessError, match="AccessDenied"):
        es.apply(es.fit(here), here, cloud.at("b.zarr"))
    cloud.server.refuse = lambda *_: None
    with pytest.raises(es.NotARunError, match="not finished"):
        es.open_run(cloud.at("b.zarr"))
    again = es.apply(es.fit(here), here, cloud.at("b.zarr"))
    assert again.items.n_rows == len(T)


def test_large_objects_are_sent_in_parts(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (objects, object_writer):
        monkeypatch.setattr(module, "PART_BYTES", 1000)
    run = es.create_run(cloud.at("a.zarr"), T, item_ids=IDS, chunk_rows=64)
    assert any("comp=blocklist" in path or "uploadId" in path for _, path, _ in cloud.server.asked)
    np.testing.assert_array_equal(run.items.vectors, T)
    np.testing.assert_array_equal(es.fit(run).items, es.fit(T).items)


def test_a_series_lives_there(cloud: Cloud, tmp_path: Path) -> None:
    runs = []
    for day, (items, users) in enumerate(((T, W), (B, V))):
        path = tmp_path / f"day-{day}.zarr"
        runs.append(es.create_run(path, items, users, item_ids=IDS, chunk_rows=32).path)
    series = es.Series.init(cloud.at("series"), gates=NO_GATES)
    local = es.Series.init(tmp_path / "series", gates=NO_GATES)
    for run in runs:
        assert series.add(run).published
        local.add(run)
    for version in (1, 2):
        ours, theirs = series.open(version), local.open(version)
        assert (
            np.asarray(ours.items.vectors).tobytes() == np.asarray(theirs.items.vectors).tobytes()
        )
    series.rebase(1, rewrite=True)
    assert "runs/day-1.zarr" in series.gc(grace=0).removed
    assert not series.verify().damage
    assert series.store.names("locks") == []


def test_a_server_that_drops_the_condition_is_refused(cloud: Cloud) -> None:
    handler = cloud.server.RequestHandlerClass

    class Careless(handler):  # type: ignore[misc, valid-type]
        def handle_any(self) -> None:
            for name in ("If-None-Match", "x-goog-if-generation-match"):
                del self.headers[name]
            super().handle_any()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    cloud.server.RequestHandlerClass = Careless
    with pytest.raises(es.InputError, match=r"If-None-Match.*it did 8 and not one"):
        es.Series.init(cloud.at("series"))


def test_what_another_process_removes_meanwhile_is_no_error(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google and Azure tell that there was nothing to remove; S3 does not."""
    place = ObjectPrefix(cloud.at("series"))
    for name in "abc":
        place.create(f"runs/x.zarr/{name}", b"1")
    listed = place._below("runs/x.zarr")
    obstore.delete(place.store, "runs/x.zarr/b")
    monkeypatch.setattr(ObjectPrefix, "_below", lambda *_: listed)
    place.remove("runs/x.zarr")
    assert not cloud.server.objects


def test_an_option_of_another_service_is_one_line(cloud: Cloud) -> None:
    other = Url(cloud.at("a.zarr"), {**cloud.at("").options, "secret_access_key": "s3cr3t"})
    with pytest.raises(es.InputError, match=r"must be what obstore knows") as caught:
        client(other)
    assert "s3cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n_parts", [1, 4])
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "XAmzContentSHA256Mismatch"),
        ({"checksum_algorithm": "SHA256", "unsigned_payload": "true"}, "BadDigest"),
    ],
    ids=["signed", "checksum"],
)
def test_s3_refuses_what_arrives_otherwise_than_it_was_sent(
    monkeypatch: pytest.MonkeyPatch, n_parts: int, options: dict[str, str], code: str
) -> None:
    if n_parts > 1:
        for module in (objects, object_writer):
            monkeypatch.setattr(module, "PART_BYTES", 1000)
    with serving(Amazon) as server, dask.config.set(scheduler="synchronous"):
        known = {"endpoint": server.endpoint, "max_retries": 0, **S3, **options}
        run = es.create_run(Url("s3://bucket/a.zarr", known), T, item_ids=IDS)
        np.testing.assert_array_equal(run.items.vectors, T)
        server.garble = lambda key, body: (
            bytes([body[0] ^ 1]) + body[1:] if "vectors/c" in key and body else body
        )
        with pytest.raises(es.AccessError, match=code):
            es.create_run(Url("s3://bucket/b.zarr", known), T, item_ids=IDS)
        with pytest.raises(es.NotARunError, match="not finished"):
            es.open_run(Url("s3://bucket/b.zarr", known))


def test_amazon_keeps_a_checksum_and_others_where_they_are_asked() -> None:
    sha = {"checksum_algorithm": "SHA256"}
    assert of_service("S3Store", {}) == sha
    assert of_service("S3Store", {"aws_checksum_algorithm": "none"}) == {}
    elsewhere = {"endpoint": "http://127.0.0.1:9000"}
    assert of_service("S3Store", dict(elsewhere)) == elsewhere
    assert of_service("S3Store", elsewhere | sha) == elsewhere | sha
    assert of_service("GCSStore", dict(elsewhere)) == {"base_url": elsewhere["endpoint"]}
