"""Moments on the command line: what `es.moments` and `es.fit` of moments do, from files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from oracle import Array, assert_close
from test_moments import tables

import dask_embstab as es
from dask_embstab.cli.main import main

N, M = 120, 90


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, its two halves, and a reference that has most of its ids, where the shell stands."""
    monkeypatch.chdir(tmp_path)
    rows, theirs = tables(0, N, M), tables(1, N, M)
    ids = {"item_ids": np.arange(N), "user_ids": np.arange(M)}
    es.create_run("run", **rows, **ids)
    zarr.open_group("run")["items"].create_array("events", data=np.arange(N))
    for name, half in (("east", slice(0, 70)), ("west", slice(70, N))):
        es.create_run(name, rows["items"][half], item_ids=np.arange(N)[half])
    es.create_run("reference", **theirs, item_ids=np.arange(N) + 8, user_ids=np.arange(M))
    pd.DataFrame({"id": np.arange(40, N)}).to_csv("ids.csv", index=False)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *(() if code else ("--json",))])
    output = capsys.readouterr()
    assert ended.value.code == code, output.err
    return output.err if code else json.loads(output.out)


def fitted(path: str) -> Array:
    return es.load_transform(path).items


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        (("--counts", "events", "--min-count", "30"), {"counts": np.arange(N), "min_count": 30}),
        (("--only", "ids.csv"), {"only": np.arange(40, N)}),
        (("--weights", "events"), {"weights": np.arange(N)}),
        (("--anchors", "50", "--seed", "3"), {"anchors": 50, "seed": 3}),
    ],
)
def test_files_of_moments_are_fitted_as_the_run_is(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], options: Any
) -> None:
    output = said(capsys, "moments", "run", "items.npz", "--reference", "reference", *arguments)
    assert (output["rows"], output["components"], output["matched"]) == (N, 3, N - 8)
    said(capsys, "moments", "run", "users.npz", "--table", "users", "--reference", "reference")
    more = ("--method", "gram", "--balance", "gramians")
    said(capsys, "fit", "items.npz", "fit.npz", "--users", "users.npz", *more)
    wanted = es.fit(
        "run", reference="reference", method="gram", balance="gramians", keep="scores", **options
    )
    assert_close(fitted("fit.npz"), wanted.items, 1e-9)
    in_python = es.moments("run", reference="reference", **options)
    assert es.TableMoments.load("items.npz").digest() == in_python.digest()
    by_name = dict(zip(("counts", "weights", "only"), ("events", "events", "ids.csv"), strict=True))
    named = {name: by_name.get(name, value) for name, value in options.items()}
    assert es.moments("run", reference="reference", **named).digest() == in_python.digest()


@pytest.mark.usefixtures("place")
def test_parts_are_added_and_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("east", "west", "run"):
        said(capsys, "moments", name, f"{name}.npz", "--reference", "reference")
    both = said(
        capsys, "moments", "west", "both.npz", "--reference", "reference", "--add", "east.npz"
    )
    assert (both["rows"], both["matched"]) == (N, N - 8)
    left = said(capsys, "moments", "both.npz", "left.npz", "--subtract", "west.npz")
    assert left["rows"] == 70
    for ours, theirs in (("both", "run"), ("left", "east")):
        said(capsys, "fit", f"{ours}.npz", "a.npz", "--keep", "geometry")
        said(capsys, "fit", f"{theirs}.npz", "b.npz", "--keep", "geometry")
        assert_close(fitted("a.npz"), fitted("b.npz"), 1e-12)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("fit", "items.npz", "t", "--weights", "norm"),
            "--weights is about rows.*--weights` takes",
        ),
        (("fit", "items.npz", "t", "--unit-rows"), "--unit-rows needs another read"),
        (("fit", "items.npz", "t", "--method", "qr"), "--method qr needs another read"),
        (("fit", "run", "t", "--users", "items.npz"), "run"),
        (
            ("fit", "items.npz", "t", "--users", "t.npz"),
            r"t\.npz holds no moments.*embstab moments",
        ),
        (("fit", "items.npz", "t", "--users", "none.npz"), r"no moments at none\.npz"),
        (("moments", "items.npz", "t", "--only", "ids.csv"), "--only is about rows"),
        (("moments", "west", "t", "--add", "items.npz"), "reference is .* in"),
        (("moments", "run", "t", "--counts", "events"), "--min-count"),
        (("moments", "run", "t", "--weights", "no-such"), "no array stored"),
        (("moments", "east", "t", "--table", "users"), "users"),
    ],
)
def test_what_moments_cannot_do_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    es.moments("run", reference="reference").save("items.npz")
    es.fit("run").save("t.npz")
    output = said(capsys, *arguments, code=2)
    assert output.count("\n") == 1
    assert re.search(says, output), output
    assert not (place / "t").exists()


@pytest.mark.usefixtures("place")
def test_saved_files_are_known_for_what_they_are_wherever_a_path_is_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    es.moments("run", reference="reference").save("items.npz")
    es.moments("run", key="users", reference="reference").save("users.npz")
    fit = es.fit("run", reference="reference", method="gram")
    fit.save("t.npz")
    np.savez("table.npz", vectors=np.eye(12, 3))
    assert_close(es.fit("items.npz", "users.npz", method="gram").items, fit.items, 1e-9)
    assert es.space_of("t.npz") == es.space_of(fit)
    assert es.export("t.npz", "t.safetensors", format="safetensors", table="items")
    assert es.export("table.npz", "rows", format="npy")["items"]["rows"] == 12
    for verb in (es.open_run, es.fit, es.moments, lambda path: es.evaluate(path, "run")):
        with pytest.raises(es.NotARunError, match=r"t\.npz must hold rows; it holds a transform"):
            verb("t.npz")
    calls: list[Any] = [
        es.open_run,
        es.moments,
        lambda path: es.export(path, "out", format="npy"),
        lambda path: es.apply(fit, path, "out"),
    ]
    for call in calls:
        with pytest.raises(es.NotARunError, match=r"items\.npz must hold rows; it holds moments"):
            call("items.npz")
    for call in (es.space_of, es.load_transform):
        with pytest.raises(es.InputError, match=r"items\.npz holds no transform"):
            call("items.npz")
    assert "holds a transform" in said(capsys, "fit", "t.npz", "out", code=2)
    assert not Path("out").exists()
