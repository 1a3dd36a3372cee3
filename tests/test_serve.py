"""The service: every answer is of one published version, names it, and equals what that version
says.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from oracle import Array
from seriesworlds import drifting

import dask_embstab as es
from dask_embstab.cli.main import main

pytest.importorskip("starlette", reason="the service needs starlette (the extra serve)")
from starlette.testclient import TestClient

from dask_embstab.serving.app import Service, application


def week(folder: Path, number: int) -> es.Run:
    made = drifting(number, n_items=60, n_users=80, d=4, size=0.02)
    ids = {"item_ids": made.item_ids, "user_ids": made.user_ids}
    return es.create_run(folder / f"w{number}.zarr", made.items, made.users, **ids)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    made = es.Series.init(folder / "s")
    for number in range(2):
        made.add(week(folder, number))
    return folder / "s"


@pytest.fixture
def series(published: Path, tmp_path: Path) -> es.Series:
    return es.Series(shutil.copytree(published, tmp_path / "s"))


@pytest.fixture
def client(series: es.Series) -> Iterator[TestClient]:
    with es.Live(series, every=0) as live:
        yield TestClient(application(Service(live, None, 1 << 16)))


def post(client: TestClient, what: str, **asked: Any) -> dict[str, Any]:
    response = client.post(f"/{what}", json=asked)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_answers_are_those_of_the_version_that_they_name(
    client: TestClient, series: es.Series
) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 4))
    for pinned in (None, 1, 2):
        result = post(client, "transform", vectors=rows.tolist(), version=pinned or "head")
        assert result["version"] == (pinned or 2)
        made = series.transform_for(version=result["version"])
        np.testing.assert_array_equal(result["vectors"], made.transform_users(rows))
        assert result["space"] == series.space().origin
    run = series.open()
    ids = run.items.ids[:3].compute().tolist()
    stored = post(client, "lookup", table="items", ids=ids)["vectors"]
    np.testing.assert_array_equal(stored, run.items.rows_of(ids))
    for asked in ({"vectors": rows.tolist()}, {"ids": ["u3", "u7"]}):
        queries: Any = rows if "vectors" in asked else run.users.rows_of(asked["ids"])
        scores, names = es.search(es.table(queries), run, 5, metric="dot")
        result = post(client, "search", k=5, space=series.space().origin, **asked)
        assert result["ids"] == names.tolist()
        np.testing.assert_array_equal(result["scores"], scores)


def test_a_publish_is_seen_by_the_next_request(
    client: TestClient, series: es.Series, tmp_path: Path
) -> None:
    assert client.get("/health").json() == {"status": "ok", "version": 2, "error": None}
    series.add(week(tmp_path, 2))
    about = client.get("/version").json()
    assert (about["version"], about["run"]) == (3, "w2")
    assert about["fingerprint"] == es.space_of(series).to_dict()
    assert "embstab_serve_reloads_total 1" in client.get("/metrics").text


def test_vectors_of_a_model_are_transformed_by_its_own_version_alone(
    client: TestClient, series: es.Series
) -> None:
    """Those of another model, those that say nothing, and those that were transformed before."""
    models = [
        client.post("/transform", json={"vectors": [[1, 2, 3, 4]], "version": n}) for n in (1, 2)
    ]
    assert [result.status_code for result in models] == [200, 200]
    about = client.get("/version").json()
    space = about["model"]["space"]
    assert (about["model"]["name"], space != about["space"]) == ("w1", True)
    asked: dict[str, Any] = {"vectors": [[1.0, 2, 3, 4]]}
    assert client.post("/transform", json=asked).status_code == 400
    assert client.post("/transform", json={**asked, "space": space}).status_code == 200
    assert (
        client.post("/transform", json={**asked, "space": space, "version": 1}).status_code == 409
    )
    assert client.post("/transform", json={**asked, "space": about["space"]}).status_code == 409
    assert series.transform_for().diagnostics["source"]["space"] == space


def test_vectors_of_another_space_are_refused(client: TestClient, series: es.Series) -> None:
    asked = {"vectors": [[1.0, 2, 3, 4]], "space": "0" * 32}
    assert client.post("/search", json=asked).status_code == 409
    asked["space"] = series.space().origin
    assert client.post("/search", json=asked).status_code == 200


@pytest.mark.parametrize(
    ("what", "asked", "status"),
    [
        ("transform", {"vectors": [[1, 2, 3]], "version": "head"}, 400),
        ("transform", {"vectors": [[1, 2, 3, 4]], "version": "tail"}, 400),
        ("transform", {"vectors": "x", "version": 2}, 400),
        ("transform", {"vectors": [[1, 2, 3, None]], "version": 2}, 400),
        ("transform", {"vectors": [[1, 2, 3, 4]], "table": "songs", "version": 2}, 400),
        ("transform", {"vectors": [[1, 2, 3, 4]], "version": 99}, 400),
        ("transform", {"vectors": [[1, 2, 3, 4]], "version": True}, 400),
        ("transform", {"vectors": [[1, 2, 3, 4]], "more": 1, "version": 2}, 400),
        ("lookup", {"table": "items", "ids": [10**6]}, 404),
        ("lookup", {"table": "items", "ids": []}, 400),
        ("lookup", {"table": "users", "ids": [{}]}, 404),
        ("search", {"ids": ["u1"], "vectors": [[1, 2, 3, 4]]}, 400),
        ("search", {"ids": ["u1"], "k": 0}, 400),
        ("search", {"ids": ["u1"], "k": 61}, 400),
        ("search", {"ids": ["u1"], "metric": "l2"}, 400),
        ("search", [1], 400),
        ("search", {"vectors": [[1, 2, 3, 4]]}, 400),
        ("transform", {"vectors": [["1", "2", "3", "4"]], "version": 2}, 400),
        ("transform", {"vectors": [[True, 2, 3, 4]], "version": 2}, 400),
        ("transform", {"vectors": [[10**400, 2, 3, 4]], "version": 2}, 400),
    ],
)
def test_what_cannot_be_answered_is_one_clear_error(
    client: TestClient, what: str, asked: Any, status: int
) -> None:
    response = client.post(f"/{what}", json=asked)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 60_000, b'{"vectors": [[NaN, 1, 2, 3]]}'])
def test_a_body_that_is_no_json_is_refused(client: TestClient, body: bytes) -> None:
    assert client.post("/transform", content=body).status_code == 400


def test_a_body_beyond_the_limit_is_not_read(client: TestClient) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * (1 << 14)

    assert client.post("/transform", content=body()).status_code == 413
    assert client.post("/transform", content=b" " * (1 << 16 | 1)).status_code == 413


def test_a_token_is_asked_for_everywhere_but_by_health(series: es.Series) -> None:
    with es.Live(series) as live:
        client = TestClient(application(Service(live, "secret", 1 << 16)))
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "secret"}):
            assert client.post("/lookup", json={}, headers=headers).status_code == 401
            assert client.get("/metrics", headers=headers).status_code == 401
        right = {"authorization": "Bearer secret"}
        assert client.get("/version", headers=right).status_code == 200
        assert client.get("/health").status_code == 200


def test_a_head_that_cannot_be_opened_leaves_the_last_good_one(
    client: TestClient, series: es.Series, tmp_path: Path
) -> None:
    series.add(week(tmp_path, 2))
    (tmp_path / "s/runs/w2.zarr/zarr.json").write_text("{")
    health = client.get("/health").json()
    assert (health["status"], health["version"]) == ("stale", 2)
    assert "embstab_serve_stale 1" in client.get("/metrics").text
    assert post(client, "lookup", ids=["u1"])["version"] == 2


def test_what_is_served_is_pinned_against_gc(series: es.Series, tmp_path: Path) -> None:
    with es.Live(series, every=0) as live:
        held = live.at(1)
        pins = tmp_path / "s/pins"
        assert len(list(pins.iterdir())) == 2
        assert held.run.items.n_rows == 60
    assert not list(pins.iterdir())


def load(series: es.Series, folder: Path, publishes: int, requests: int) -> None:
    """Ask while runs are published; every answer must equal its version's, bit by bit."""
    rows = np.random.default_rng(0).normal(size=(2, 4))
    seen: list[tuple[int, Array]] = []
    done = threading.Event()
    with es.Live(series, every=0) as live:
        client = TestClient(application(Service(live, None, 1 << 16)))

        def ask(number: int) -> None:
            if number % 3:
                result = post(client, "transform", vectors=rows.tolist(), version="head")
                seen.append((result["version"], np.asarray(result["vectors"])))
            else:
                result = post(client, "lookup", ids=["u1", "u2"])
                seen.append((-result["version"], np.asarray(result["vectors"])))

        def publish() -> None:
            for number in range(2, 2 + publishes):
                series.add(week(folder, number))
            done.set()

        with ThreadPoolExecutor(4) as pool:
            publishing = threading.Thread(target=publish)
            publishing.start()
            count = itertools.count()
            while not done.is_set() or next(count) < requests // 100:
                list(pool.map(ask, range(100)))
            publishing.join()

    versions = {abs(version) for version, _ in seen}
    assert len(seen) >= requests
    assert max(versions) == publishes + 2
    expected = {v: series.transform_for(version=v).transform_users(rows) for v in versions}
    stored = {v: series.open(v).users.rows_of(["u1", "u2"]) for v in versions}
    for version, result in seen:
        np.testing.assert_array_equal(
            result, expected[version] if version > 0 else stored[-version]
        )


def test_every_answer_during_publishes_is_of_one_version(series: es.Series, tmp_path: Path) -> None:
    load(series, tmp_path, publishes=1, requests=200)


@pytest.mark.long
def test_ten_thousand_requests_over_twenty_publishes(series: es.Series, tmp_path: Path) -> None:
    load(series, tmp_path, publishes=20, requests=10_000)


def test_the_command_serves_until_it_is_interrupted(series: es.Series, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dask_embstab", "serve", str(tmp_path / "s"), "--port", "0"]
    server = subprocess.Popen([*command, "--json"], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stderr is not None
    line = server.stderr.readline().decode()
    url = re.search(r"http://\S+", line)
    assert url is not None, line
    try:
        with urllib.request.urlopen(f"{url[0]}/version", timeout=30) as response:
            assert json.loads(response.read())["version"] == series.head().version  # type: ignore[union-attr]
    finally:
        server.send_signal(signal.SIGINT)
        out, _ = server.communicate(timeout=30)
    assert server.returncode == 0
    assert json.loads(out)["version"] == 2


def test_other_hosts_are_let_in_with_a_token_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBSTAB_TOKEN", raising=False)
    call = ["serve", os.fspath(tmp_path), "--host", "0.0.0.0"]
    refused = CliRunner().invoke(main, call)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "token" in refused.stderr


def test_what_was_opened_before_a_rebase_or_after_the_end_is_not_served(
    series: es.Series, tmp_path: Path
) -> None:
    onto = es.stabilize(week(tmp_path, 3), tmp_path / "onto")
    with es.Live(series, every=0) as live:
        before = live.at(1).space.origin
        series.rebase(onto)
        assert live.at(1).space.origin == live.now().space.origin == series.space().origin != before
    with pytest.raises(es.InputError, match="closed"):
        live.at(1)
    assert not list((tmp_path / "s/pins").iterdir())


def test_scores_beyond_the_largest_number_are_refused(
    client: TestClient, series: es.Series
) -> None:
    asked = {"vectors": [[1e308] * 4], "space": series.space().origin, "metric": "dot"}
    response = client.post("/search", json=asked)
    assert response.status_code in (200, 400), response.text


def test_a_token_may_hold_any_character(series: es.Series) -> None:
    with es.Live(series) as live:
        client = TestClient(application(Service(live, "schl\u00fcssel", 1 << 16)))
        right = {"authorization": "Bearer schl\u00fcssel".encode()}
        assert client.get("/version", headers=right).status_code == 200
