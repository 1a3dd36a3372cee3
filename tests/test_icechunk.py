"""Icechunk's sessions as input and output; a series is in a repository, not in a session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import StorePath

import dask_embstab as es

icechunk: Any = pytest.importorskip("icechunk", reason="icechunk is an extra")

RNG = np.random.default_rng(0)
T, W, A = (RNG.normal(size=shape) for shape in ((120, 4), (80, 4), (4, 4)))
IDS: dict[str, Any] = {"item_ids": [f"i{n}" for n in range(120)], "user_ids": np.arange(80)}


def test_runs_are_read_and_written_in_sessions_that_the_user_commits(tmp_path: Path) -> None:
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repo.writable_session("main")
    es.create_run(StorePath(session.store, "monday"), T, W, chunk_rows=32, **IDS)
    with pytest.raises(es.EmbstabError):  # nothing is seen by others before the commit
        es.open_run(StorePath(repo.readonly_session("main").store, "monday"))
    session.commit("monday")

    tuesday = es.create_run(tmp_path / "tuesday", T @ A, W @ np.linalg.inv(A).T, **IDS)
    monday = es.open_run(StorePath(repo.readonly_session("main").store, "monday"))
    local = es.create_run(tmp_path / "monday", T, W, chunk_rows=32, **IDS)
    fitted = es.fit(tuesday, reference=monday)
    np.testing.assert_array_equal(fitted.items, es.fit(tuesday, reference=local).items)

    session = repo.writable_session("main")
    es.apply(fitted, tuesday, StorePath(session.store, "tuesday"))
    session.commit("tuesday")
    made = es.open_run(StorePath(repo.readonly_session("main").store, "tuesday"))
    expected = es.apply(fitted, tuesday, tmp_path / "out")
    for key in ("items", "users"):
        ours, theirs = (np.asarray(run.table(key).vectors) for run in (made, expected))
        np.testing.assert_array_equal(ours, theirs)
    assert made.transform is not None
    assert "Icechunk session of " in made.where

    with pytest.raises(es.InputError, match="open for writing"):
        es.apply(fitted, tuesday, StorePath(repo.readonly_session("main").store, "again"))
    with pytest.raises(es.OutputExistsError):
        es.apply(fitted, tuesday, StorePath(repo.writable_session("main").store, "tuesday"))


def test_a_session_is_no_home_of_a_series() -> None:
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    store = repo.writable_session("main").store
    for home in (store, StorePath(store, "series")):
        with pytest.raises(es.InputError, match=r"must be given the icechunk\.Repository"):
            es.Series.init(home)


def test_what_icechunk_logs_is_not_printed_between_the_json_of_a_command() -> None:
    code = """if True:
        import contextlib
        from dask_embstab.cli.main import main
        with contextlib.suppress(SystemExit):
            main(["inspect", "nowhere"])
        import icechunk, zarr
        repository = icechunk.Repository.create(icechunk.in_memory_storage())
        ours, theirs = (repository.writable_session("main") for _ in range(2))
        for session in (theirs, ours):
            zarr.create_group(session.store).create_array("x", shape=(2,), dtype="i4")
        theirs.commit("theirs")
        with contextlib.suppress(icechunk.RebaseFailedError):
            ours.rebase(icechunk.ConflictDetector())
            raise AssertionError("they do not conflict")
    """
    environment = {name: value for name, value in os.environ.items() if name != "ICECHUNK_LOG"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout == ""
    assert "nowhere" in ended.stderr
