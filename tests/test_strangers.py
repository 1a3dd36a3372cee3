"""Stores by strangers: nothing of theirs is run or waited for."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crc32c
import numcodecs
import numpy as np
import pytest
from oracle import foreign_run, world

import dask_embstab as es
from dask_embstab.cli.main import main

T, W = world(97)
ROWS, D = 16, 4


@pytest.fixture(autouse=True)
def _nothing_is_waited_for() -> Iterator[None]:
    def give_up(*_: Any) -> None:
        raise AssertionError("this call hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def embstab(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"], prog_name="embstab")
    return int(ended.value.code or 0)


# --- object codecs


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def by_objects(path: Path, array: str, codec: dict[str, Any], where: str, chunk: bytes) -> Path:
    """A version 2 run with an object codec as compressor or filter of its vectors or ids."""
    foreign_run(path, {"items": (T, np.arange(60)), "users": (W, None)}, zarr_format=2)
    file = path / "items" / array / ".zarray"
    values = json.loads(file.read_text()) | {"compressor": None, "filters": None}
    values |= {where: codec if where == "compressor" else [codec]}
    if array == "id" and where == "filters":
        values |= {"dtype": "|O", "fill_value": None}
    file.write_text(json.dumps(values))
    for name in file.parent.iterdir():
        if not name.name.startswith("."):
            name.write_bytes(chunk)
    return path


@pytest.mark.parametrize("where", ["compressor", "filters"])
@pytest.mark.parametrize("array", ["vectors", "id"])
@pytest.mark.parametrize("name", ["pickle", "json2", "msgpack2", "categorize", "vlen-array"])
def test_object_codecs_are_refused_before_a_chunk_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, array: str, where: str
) -> None:
    """Even where numcodecs was told to run what a store holds."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True)
    more = {"categorize": {"labels": [], "dtype": "|O"}, "vlen-array": {"dtype": "<f8"}}.get(
        name, {}
    )
    evil = pickle.dumps(Evil(tmp_path / "evil"))
    run = by_objects(tmp_path / "in.zarr", array, {"id": name, **more}, where, evil)
    good = es.create_run(tmp_path / "good.zarr", T, W, item_ids=np.arange(60))
    series = es.Series.init(tmp_path / "series")
    calls: tuple[Callable[[], Any], ...] = (
        lambda: es.open_run(run),
        lambda: es.stabilize(run, tmp_path / "out.zarr"),
        lambda: es.stabilize(good, tmp_path / "out.zarr", reference=run),
        lambda: es.evaluate(good, run),
        lambda: series.add(run),
    )
    for call in calls:
        with pytest.raises(es.EmbstabError):
            call()
    assert embstab("inspect", run) == 2
    assert embstab("lookup", run, "3") == 2
    assert not (tmp_path / "evil").exists()


def test_the_library_asks_for_a_numcodecs_that_refuses() -> None:
    with pytest.raises(Exception, match="can execute arbitrary code"):
        numcodecs.Pickle().decode(pickle.dumps(1))


# --- what is no file


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def named_socket(path: Path) -> None:
    path.unlink()
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


NO_FILES = {made.__name__: made for made in (pipe, device, named_socket)}
FILES = [
    "zarr.json",
    "items/zarr.json",
    "items/vectors/zarr.json",
    "items/vectors/c/1/0",
    "items/id/c/1",
    "users/id/c/1",
]
STABILIZED = ["transform/zarr.json", "transform/items/zarr.json", "transform/items/c/0/0"]


@pytest.mark.parametrize("what", NO_FILES)
@pytest.mark.parametrize("file", [*FILES, *STABILIZED])
def test_pipes_devices_and_sockets_are_not_waited_for(tmp_path: Path, file: str, what: str) -> None:
    ids: dict[str, Any] = {"item_ids": np.arange(60), "user_ids": [f"u{n}" for n in range(90)]}
    raw = es.create_run(tmp_path / "raw.zarr", T, W, chunk_rows=ROWS, **ids)
    run = es.stabilize(raw, tmp_path / "in.zarr").path
    NO_FILES[what](Path(run) / file)
    calls: list[Callable[[], Any]] = [lambda: es.open_run(run, verify=True)]
    if file in FILES:
        calls += [
            lambda: es.fit(raw, reference=run, align_on="both"),
            lambda: es.open_run(run).users.ids.compute(),
        ]
    if file in STABILIZED:
        calls += [lambda: es.apply(run, raw, tmp_path / "out.zarr")]
    refused = 0
    for call in calls:
        with contextlib.suppress(es.EmbstabError):
            call()
            continue
        refused += 1
    assert refused
    assert embstab("inspect", Path(run) / file) == 2


@pytest.mark.parametrize("what", NO_FILES)
def test_nor_in_a_series(tmp_path: Path, what: str) -> None:
    place = tmp_path / "series"
    run = es.create_run(tmp_path / "day.zarr", T, W)
    for file in (
        "series.json",
        "versions/1.json",
        "digests",
        "runs/day.zarr/zarr.json",
        "runs/day.zarr/users/vectors/c/0/0",
    ):
        series = es.Series.init(place)
        series.add(run)
        at = place / file
        NO_FILES[what](next(at.iterdir()) if at.is_dir() else at)
        for verb in (("log",), ("status",), ("show",), ("verify",), ("add", run.path)):
            embstab("series", verb[0], place, *verb[1:])
        assert embstab("series", "verify", place) == 2
        shutil.rmtree(place)


@pytest.mark.parametrize("what", NO_FILES)
def test_nor_as_a_lock(tmp_path: Path, what: str) -> None:
    run = es.create_run(tmp_path / "day.zarr", T, W)
    series = es.Series.init(tmp_path / "series")
    (lock := tmp_path / "series/locks/day.lock").parent.mkdir()
    lock.touch()
    NO_FILES[what](lock)
    with pytest.raises(es.EmbstabError, match="regular file"):
        series.add(run)
    assert embstab("series", "add", tmp_path / "series", run.path) == 2


@pytest.mark.parametrize("target", ["nowhere", "../../day.zarr/zarr.json"])
def test_a_link_is_no_lock(tmp_path: Path, target: str) -> None:
    run = es.create_run(tmp_path / "day.zarr", T, W)
    series = es.Series.init(tmp_path / "series")
    (lock := tmp_path / "series/locks/day.lock").parent.mkdir()
    lock.symlink_to(target)
    with pytest.raises(es.EmbstabError, match="regular file"):
        series.add(run)
    assert lock.is_symlink()
    assert es.open_run(tmp_path / "day.zarr").name == "day"


@pytest.mark.parametrize("what", NO_FILES)
def test_nor_as_a_transform(tmp_path: Path, what: str) -> None:
    run = es.create_run(tmp_path / "day.zarr", T, W)
    file = tmp_path / "t.npz"
    es.fit(run).save(file)
    NO_FILES[what](file)
    with pytest.raises(es.EmbstabError, match="regular file"):
        es.Transform.load(file)
    assert embstab("apply", file, run.path, tmp_path / "out.zarr") == 2


def test_json_that_is_nested_deeper_than_python_reads(tmp_path: Path) -> None:
    run = es.create_run(tmp_path / "day.zarr", T, W)
    series, deep = es.Series.init(tmp_path / "series"), "[" * 100_000
    series.add(run)
    (tmp_path / "series/attempts" / f"{'0' * 16}.json").write_text(deep)
    (tmp_path / "series/pins/1.json").write_text(deep)
    assert series.status()["well"]
    assert not series.gc().removed

    np.savez(tmp_path / "moments.npz", header=np.array(deep))
    np.savez(tmp_path / "transform.npz", diagnostics=np.array(deep))
    for load, name in ((es.TableMoments.load, "moments"), (es.Transform.load, "transform")):
        with pytest.raises(es.DamageError, match="nested too deeply"):
            load(tmp_path / f"{name}.npz")

    version = tmp_path / "series/versions/1.json"
    body = version.read_bytes()
    body = body[: body.rfind(b"\n", 0, -1) + 1].replace(
        b'"accepted": null', b'"accepted": %b' % deep.encode()
    )
    version.write_bytes(body + f'"crc32c": {crc32c.crc32c(body)}}}\n'.encode())
    assert embstab("series", "log", tmp_path / "series") == 2
    (tmp_path / "series/series.json").write_text(deep)
    with pytest.raises(es.DamageError, match=r"series.json .* nested too deeply"):
        es.Series(tmp_path / "series")


@pytest.mark.parametrize("kind", [es.TableMoments, es.Transform])
def test_an_array_whose_header_is_nested_deeper_than_python_reads(
    tmp_path: Path, kind: Any
) -> None:
    header = b"-" * 9000 + b"1\n"
    magic = np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little")
    with zipfile.ZipFile(tmp_path / "arrays.npz", "w") as archive:
        archive.writestr("header.npy", magic + header)
    with pytest.raises(es.DamageError):
        kind.load(tmp_path / "arrays.npz")
