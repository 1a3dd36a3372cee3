"""Stores by strangers: nothing of theirs is run, waited for, or given more memory than their metadata speaks of."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import os
import pickle
import shutil
import signal
import socket
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from oracle import chunk_file, foreign_run, world
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.codecs import numcodecs as wrapped

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.tables.read import guarded as guarding
from dask_embstab.tables.read.bounded import allowed_bytes, decode_bounded

T, W = world(97)
ROWS, D = 16, 4
BOMB = bytes(64 << 20)
Encode = Callable[[bytes], bytes]


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
    more = {"categorize": {"labels": [], "dtype": "|O"}, "vlen-array": {"dtype": "<f8"}}.get(name, {})
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


# --- bombs


def _lz4(data: bytes) -> bytes:
    return bytes(numcodecs.LZ4().encode(data))


def unsized(data: bytes) -> bytes:
    """A frame of Zstandard that does not say how long its contents are: blocks of one repeated byte."""
    blocks, left = b"", len(data)
    while left:
        size = min(left, 128 << 10)
        left -= size
        blocks += (size << 3 | 1 << 1 | (not left)).to_bytes(3, "little") + data[:1]
    return (0xFD2FB528).to_bytes(4, "little") + bytes([0, 0x70]) + blocks


ENCODE: dict[str, Encode] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "lzma": lzma.compress,
    "lz4": _lz4,
    "blosc": lambda data: bytes(numcodecs.Blosc().encode(data)),
    "zstd": lambda data: bytes(numcodecs.Zstd().encode(data)),
    "zstd, unsized": unsized,
}
V2 = {name: {"id": name.partition(",")[0]} for name in ENCODE} | {"lzma": {"id": "lzma", "format": 1}}


@contextlib.contextmanager
def within(most_bytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()


def compressed(path: Path, codec: str, zarr_format: int, array: str) -> Path:
    """A run whose vectors or ids are compressed by a codec; all else as ever."""
    of = {"compressors": numcodecs.get_codec(V2[codec])} if zarr_format == 2 else {"compressors": in_v3(codec)}
    fill = {"fill_value": np.nan}
    foreign_run(path, {"items": (T, None), "users": (W, None)}, zarr_format=zarr_format, **of, **fill)
    if array != "vectors":
        group = zarr.open_group(path / "items", mode="r+")
        texts = np.array([f"i{n}" for n in range(60)], object)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = group.create_array("id", shape=(60,), chunks=(ROWS,), dtype=str, **of)
            made[...] = texts
    return path


def in_v3(codec: str) -> list[Any]:
    name = codec.partition(",")[0]
    known: dict[str, Any] = {"gzip": GzipCodec, "zstd": ZstdCodec, "blosc": BloscCodec}
    if name in known:
        return [known[name]()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [{"zlib": wrapped.Zlib, "bz2": wrapped.BZ2, "lzma": wrapped.LZMA, "lz4": wrapped.LZ4}[name]()]


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("array", ["vectors", "id"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ENCODE)
def test_a_decoder_stops_at_the_size_that_the_metadata_allows(
    tmp_path: Path, codec: str, zarr_format: int, array: str
) -> None:
    run = compressed(tmp_path / "in.zarr", codec, zarr_format, array)
    good = es.create_run(tmp_path / "good.zarr", T, W, item_ids=[f"i{n}" for n in range(60)] if array == "id" else None)
    whole = es.fit(run, reference=good)
    np.testing.assert_allclose(whole.items @ whole.inverse().items, np.eye(D), atol=1e-9)
    folder = run / "items" / array
    key = "1.0" if array == "vectors" else "1"
    file = folder / (key if zarr_format == 2 else f"c/{key.replace('.', '/')}")
    size = 12 << 20 if codec in ("lz4", "blosc") else 40 << 20
    file.write_bytes(ENCODE[codec](BOMB[:size]))
    assert file.stat().st_size < 60_000, "no longer than an honest one might be"
    with within(size - 1):
        with pytest.raises(es.DamageError, match=r"metadata allows|cannot be (read|decoded)"):
            es.fit(good, reference=run)
        opened = es.open_run(run).items
        lazy = opened.vectors if array == "vectors" else opened.ids
        with pytest.raises(Exception, match=r"metadata allows|decompress"):
            lazy[16:32].compute()


def test_an_inner_chunk_of_a_shard_is_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "in.zarr"
    foreign_run(path, {"users": (W, None)}, fill_value=np.nan)
    group = zarr.open_group(path, mode="r+").create_group("items")
    sharding = ShardingCodec(chunk_shape=(8, D), codecs=[BytesCodec(), GzipCodec()])
    made = zarr.create_array(
        group.store_path / "vectors", shape=T.shape, chunks=(ROWS, D), dtype="f8", serializer=sharding,
        compressors=None, filters=None, fill_value=np.nan,
    )  # fmt: skip
    made[...] = T
    assert es.fit(path).items.shape == (D, D)
    bomb = gzip.compress(BOMB)
    file = chunk_file(path, "items", 1)
    index = np.frombuffer(file.read_bytes()[-36:-4], "<u8").copy()
    index[:] = [0, len(bomb)] * 2
    tail = index.tobytes()
    file.write_bytes(bomb + tail + crc32c.crc32c(tail).to_bytes(4, "little"))
    with within(20 << 20), pytest.raises(es.DamageError, match="metadata allows"):
        es.fit(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_number_of_texts_is_not_taken_for_granted(tmp_path: Path, zarr_format: int) -> None:
    run = compressed(tmp_path / "in.zarr", "zstd", zarr_format, "id")
    good = es.create_run(tmp_path / "good.zarr", T, W, item_ids=[f"i{n}" for n in range(60)])
    file = run / "items" / "id" / ("1" if zarr_format == 2 else "c/1")
    file.write_bytes(ENCODE["zstd"]((1 << 28).to_bytes(4, "little")))
    with within(20 << 20), pytest.raises(es.DamageError, match="claims 268435456 texts"):
        es.fit(good, reference=run)


@pytest.mark.parametrize("codec", ENCODE)
def test_what_is_small_enough_is_decoded_to_the_byte(codec: str) -> None:
    data = b"7" * 5000 if "unsized" in codec else np.random.default_rng(0).integers(0, 9, 5000, "u1").tobytes()
    made = decode_bounded(numcodecs.get_codec(V2[codec]), ENCODE[codec](data), 5000, 5000)
    assert bytes(made) == data
    made = decode_bounded(numcodecs.get_codec(V2[codec]), ENCODE[codec](data), 5000)
    assert bytes(made) == data
    with pytest.raises(Exception, match=r"metadata allows|decompress"):
        decode_bounded(numcodecs.get_codec(V2[codec]), ENCODE[codec](b"7" * 500_000), 5000, 5000)
    for cut in (ENCODE[codec](data)[:-7], b""):
        with pytest.raises(Exception):  # noqa: B017 (whatever the codec says of it)
            decode_bounded(numcodecs.get_codec(V2[codec]), cut, 5000, 5000)


def test_members_one_after_another_are_one_file() -> None:
    for name in ("gzip", "bz2", "lzma"):
        both = ENCODE[name](b"a" * 100) + ENCODE[name](b"b" * 100)
        assert bytes(decode_bounded(numcodecs.get_codec(V2[name]), both, 200)) == b"a" * 100 + b"b" * 100
        with pytest.raises(ValueError, match="metadata allows"):
            decode_bounded(numcodecs.get_codec(V2[name]), both, 199)
    assert allowed_bytes(10, np.dtype("f8")) > 80


def test_arrays_without_compressors_stay_as_they_are(tmp_path: Path) -> None:
    run = es.create_run(tmp_path / "in.zarr", T, item_ids=np.arange(60))
    array = run.group["items/vectors"]
    assert guarding.guarded(array, what="it").async_array.codec_pipeline == array.async_array.codec_pipeline
    gzipped = zarr.open(compressed(tmp_path / "gz.zarr", "gzip", 3, "vectors"))["items/vectors"]
    again = pickle.loads(pickle.dumps(guarding.guarded(gzipped, what="it")))
    assert again is not gzipped
    assert again.metadata.codecs == gzipped.metadata.codecs
    np.testing.assert_array_equal(again[...], T)


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
        calls += [lambda: es.fit(raw, reference=run, align_on="both"), lambda: es.open_run(run).users.ids.compute()]
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
def test_nor_as_a_transform(tmp_path: Path, what: str) -> None:
    run = es.create_run(tmp_path / "day.zarr", T, W)
    file = tmp_path / "t.npz"
    es.fit(run).save(file)
    NO_FILES[what](file)
    with pytest.raises(es.EmbstabError, match="regular file"):
        es.Transform.load(file)
    assert embstab("apply", file, run.path, tmp_path / "out.zarr") == 2
