"""A small job imports what it needs, and Dask is asked for a client only where there can be one."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from dask import local, threaded

import dask_embstab as es
from dask_embstab import api
from dask_embstab.cli import common
from dask_embstab.cli.main import main
from dask_embstab.passes.engine import blas
from dask_embstab.passes.engine.cluster import local_scheduler
from dask_embstab.passes.fit import driver

HEAVY = (
    "distributed",
    "xarray",
    "pandas",
    "scipy.optimize",
    "scipy.special",
    "scipy.sparse",
    "dask_embstab.passes.evaluate",
    "dask_embstab.exchange",
    "dask_embstab.core.codes",
    "dask_embstab.passes.join.sample",
    "dask_embstab.tables.formats.columnar",
    "dask_embstab.tables.read.coded",
)
PROGRAM = """
import sys, json
from dask_embstab.cli.main import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def test_stabilize_imports_neither_a_cluster_nor_other_verbs(
    make_run: Callable[..., es.Run], tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).standard_normal((60, 4))
    run = make_run("a", rows, rows[:40])
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, "stabilize", run.path, str(tmp_path / "out.zarr")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    loaded = set(json.loads(ended.stderr.splitlines()[-1]))
    assert "dask_embstab.verbs.apply" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (None, threaded.get),
        ("threads", threaded.get),
        ("Synchronous", local.get_sync),
        ("distributed", None),
        (lambda *_, **__: None, None),
    ],
)
def test_a_local_scheduler_is_known_without_distributed(
    monkeypatch: pytest.MonkeyPatch, chosen: object, wanted: object
) -> None:
    monkeypatch.delitem(sys.modules, "distributed.client", raising=False)
    with dask.config.set(scheduler=chosen):
        assert local_scheduler() is wanted
    with dask.config.set({"scheduler": chosen, "scheduler-address": "tcp://127.0.0.1:1"}):
        assert local_scheduler() is None
    monkeypatch.setitem(sys.modules, "distributed.client", object())
    with dask.config.set(scheduler=chosen):
        assert local_scheduler() is None


@pytest.mark.parametrize(("d", "alone"), [(4, True), (129, False)])
def test_small_matrices_are_computed_on_one_thread(
    monkeypatch: pytest.MonkeyPatch, d: int, alone: bool
) -> None:
    depths: list[bool] = []

    def basis(*given: Any, **options: Any) -> Any:
        depths.append(blas._depth > 0)
        return scores_basis(*given, **options)

    scores_basis = driver.scores_basis
    monkeypatch.setattr(driver, "scores_basis", basis)
    rows = np.random.default_rng(0).standard_normal((2 * d, d))
    es.fit(rows, rows)
    assert depths == [alone]


def test_a_command_collects_seldom_and_leaves_the_collector_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    often, seen = gc.get_threshold(), []
    monkeypatch.setattr(common, "choose_kernels", lambda: seen.append(gc.get_threshold()[0]))
    CliRunner().invoke(main, ["inspect", str(tmp_path)])
    assert seen == [max(common._NEW_OBJECTS, often[0])]
    assert gc.get_threshold() == often


def test_a_command_that_is_done_ends_without_a_search_for_cycles(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., es.Run], tmp_path: Path
) -> None:
    at_exit: list[object] = []
    monkeypatch.setattr(common.atexit, "register", at_exit.append)
    assert CliRunner().invoke(main, ["inspect", str(tmp_path / "none")]).exit_code == 2
    assert not at_exit
    run = make_run("a", np.eye(4))
    assert CliRunner().invoke(main, ["inspect", run.path]).exit_code == 0
    assert at_exit == [gc.freeze]


def test_every_verb_has_its_topic() -> None:
    assert sorted(name for names in api._HOME.values() for name in names) == sorted(api.__all__)
    for name in api.__all__:
        assert callable(getattr(api, name))
    with pytest.raises(AttributeError, match="has no attribute 'stabilise'"):
        api.stabilise  # noqa: B018
