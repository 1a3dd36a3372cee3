"""Requests to a bucket that fail, are cut off or late: nothing is lost, and a run is whole or
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import fault_proxy
import numpy as np
import pytest
from fault_proxy import Act, Faults
from oracle import world
from s3_server import Bucket

import dask_embstab as es
from dask_embstab.files.remote import Url, client

T, W = world(8)
IDS = np.arange(len(T))
SECRET = "s3cr3t-k3y"
ACTS: dict[str, Act] = {
    "500": fault_proxy.error(500, "InternalError"),
    "503": fault_proxy.error(503, "SlowDown"),
    "429": fault_proxy.error(429, "TooManyRequests"),
    "cut": "cut",
    "lost": "lost",
}


@pytest.fixture
def proxy(s3_server: str) -> Iterator[Faults]:
    with fault_proxy.before(s3_server) as faults:
        yield faults


class Walk:
    """Apply a transform to a run of the bucket, by way of the proxy, into a new place of it."""

    def __init__(self, bucket: Bucket, proxy: Faults) -> None:
        self.bucket, self.proxy, self.made = bucket, proxy, 0
        self.run = bucket.url("in.zarr")
        es.create_run(self.run, T, item_ids=IDS, chunk_rows=32, storage_options=bucket.options)
        self.transform = es.fit(T)
        self.expected = self.objects(self.write())
        self.n_requests = len(proxy.asked)

    def write(self, strike: Any = lambda *_: None, *, retries: int = 3, **options: Any) -> str:
        self.made += 1
        out = self.bucket.url(f"out-{self.made}.zarr")
        self.proxy.after(strike)
        self.apply(out, retries, **options)
        return out

    def apply(self, out: str, retries: int = 3, **options: Any) -> None:
        given = {**self.bucket.at(self.proxy.endpoint).options, "max_retries": retries}
        es.apply(self.transform, self.run, out, storage_options=given, **options)

    def objects(self, out: str) -> dict[str, bytes]:
        store = client(Url(out, self.bucket.options))
        names = [one["path"] for one in store.list().collect() if "/c/" in one["path"]]
        return {name: bytes(store.get(name).bytes()) for name in names}

    def is_whole(self, out: str) -> bool:
        """Whether a run stands there, whose files are all that were written; else it is refused."""
        try:
            es.open_run(out, verify=True, storage_options=self.bucket.options)
        except es.NotARunError:
            return False
        return True

    def strike_each(self, n: int, act: Act) -> int:
        """With retries the n-th request is made up for; without, the run is whole or refused, and
        another call writes it. How often it was struck: the number of requests varies by one.
        """

        def once(number: int, *_: str) -> Act | None:
            return act if number == n else None

        out = self.write(once)
        n_struck = self.proxy.struck
        assert n_struck == 1 or n > len(self.proxy.asked)
        assert self.objects(out) == self.expected
        place = self.bucket.url(f"once-{n}-{self.made}.zarr")
        self.proxy.after(once)
        failed = None
        try:
            self.apply(place, retries=0)
        except es.EmbstabError as error:
            failed = str(error)
        if failed is not None and not self.is_whole(place):
            assert "\n" not in failed
            self.proxy.after(lambda *_: None)
            self.apply(place, overwrite=True)
        assert self.objects(place) == self.expected
        assert self.is_whole(place)
        return n_struck


@pytest.fixture
def walk(bucket: Bucket, proxy: Faults) -> Walk:
    return Walk(bucket, proxy)


def test_a_request_that_fails_loses_nothing(walk: Walk) -> None:
    """Three of them; the long test strikes every one in every way."""
    for act, n in (("503", 1), ("lost", walk.n_requests // 2), ("cut", walk.n_requests - 2)):
        walk.strike_each(n, ACTS[act])


@pytest.mark.long
@pytest.mark.parametrize("act", ACTS)
def test_every_request_fails_once(walk: Walk, act: str) -> None:
    n_struck = sum(walk.strike_each(n, ACTS[act]) for n in range(1, walk.n_requests + 1))
    print(f"{act}: {n_struck} of {walk.n_requests} requests struck")  # noqa: T201
    assert n_struck >= walk.n_requests - 1


REFUSED = {
    "expired credentials": (403, "ExpiredToken", ("GET", "PUT", "HEAD")),
    "a skewed clock": (403, "RequestTimeTooSkewed", ("GET", "PUT", "HEAD")),
    "a bucket that is read only": (403, "AccessDenied", ("PUT",)),
    "no such bucket": (404, "NoSuchBucket", ("GET", "PUT", "HEAD")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_store_that_refuses_is_one_clear_error(walk: Walk, kind: str) -> None:
    status, code, of = REFUSED[kind]

    def strike(_: int, method: str, __: str) -> Act | None:
        return fault_proxy.error(status, code) if method in of else None

    with pytest.raises(es.AccessError, match=code) as caught:
        walk.write(strike)
    assert "\n" not in str(caught.value)
    assert len(walk.proxy.asked) < 12, "what will never do is not tried again and again"
    left = client(Url(walk.bucket.url(f"out-{walk.made}.zarr"), walk.bucket.options))
    assert not left.list().collect()


def test_a_store_that_answers_too_late_is_one_clear_error(walk: Walk) -> None:
    options = {**walk.bucket.at(walk.proxy.endpoint).options, "timeout": "200ms", "max_retries": 1}
    walk.proxy.after(lambda *_: "late")
    with pytest.raises(es.AccessError, match="cannot be reached"):
        es.open_run(walk.run, storage_options=options)
    walk.proxy.after(lambda n, *_: "late" if n == 1 else None)
    assert es.open_run(walk.run, storage_options=options).items.n_rows == len(T)


def test_secrets_are_in_no_error_text_or_record(bucket: Bucket, tmp_path: Any) -> None:
    options = {**bucket.options, "secret_access_key": SECRET}
    out = bucket.url("out.zarr")
    run = es.stabilize(T, out, users=W, storage_options=options)
    es.fit(run, reference=run).save(tmp_path / "t.npz")
    texts = [repr(run), str(run.attrs), str(run.group), repr(run.group.store), str(run)]
    texts += [str(run.transform.diagnostics), repr(Url(out, options)), f"{Url(out, options)}"]
    store = client(Url(out, options))
    texts += [str(bytes(store.get(o["path"]).bytes())) for o in store.list().collect()]
    texts.append(str((tmp_path / "t.npz").read_bytes()))
    for bad in ({"nonsense": SECRET}, {"timeout": SECRET}, {"max_retries": SECRET}):
        with pytest.raises(es.InputError) as caught:
            es.open_run(out, storage_options={**options, **bad})
        texts.append(str(caught.value))
    for url in (f"s3://user:{SECRET}@b/x", f"https://h/x?sig={SECRET}", f"ftp://u:{SECRET}@h/x"):
        with pytest.raises(es.InputError, match="no user, password or query") as caught:
            es.open_run(url)
        texts.append(str(caught.value))
    assert not [text for text in texts if re.search(SECRET, text)]


def test_the_profiles_of_aws_are_read(
    walk: Walk, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """One that is named, by an option or the environment, or the default one."""
    pytest.importorskip("boto3", reason="profiles are read by boto3: the extra aws")
    sections = [
        f"[{name}]\naws_access_key_id = key-{name}\naws_secret_access_key = {SECRET}\n"
        for name in ("default", "named", "chosen")
    ]
    (tmp_path / "credentials").write_text("".join(sections))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", walk.proxy.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name, profile, options in (
        ("default", None, None),
        ("named", "named", None),
        ("chosen", "named", {"profile": "chosen"}),
    ):
        if profile is not None:
            monkeypatch.setenv("AWS_PROFILE", profile)
        es.open_run(walk.run, storage_options=options)
        assert f"Credential=key-{name}/" in walk.proxy.signed[-1]
    with pytest.raises(es.InputError, match="none of them"):
        es.open_run(walk.run, storage_options={"profile": "none of them"})
