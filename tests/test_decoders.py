"""Decoders stop at the size that the metadata allows, by whatever path and codec; others are
refused.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from oracle import chunk_file, foreign_run, memory_below, world
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


def _lz4(data: bytes) -> bytes:
    return bytes(numcodecs.LZ4().encode(data))


def unsized(data: bytes) -> bytes:
    """A frame of Zstandard that does not say how long its contents are: blocks of one repeated
    byte.
    """
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
V2 = {name: {"id": name.partition(",")[0]} for name in ENCODE} | {
    "lzma": {"id": "lzma", "format": 1}
}


def compressed(path: Path, codec: str, zarr_format: int, array: str) -> Path:
    """A run whose vectors or ids are compressed by a codec; all else as ever."""
    of = (
        {"compressors": numcodecs.get_codec(V2[codec])}
        if zarr_format == 2
        else {"compressors": in_v3(codec)}
    )
    fill = {"fill_value": np.nan}
    foreign_run(
        path, {"items": (T, None), "users": (W, None)}, zarr_format=zarr_format, **of, **fill
    )
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
        return [
            {"zlib": wrapped.Zlib, "bz2": wrapped.BZ2, "lzma": wrapped.LZMA, "lz4": wrapped.LZ4}[
                name
            ]()
        ]


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("array", ["vectors", "id"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ENCODE)
def test_a_decoder_stops_at_the_size_that_the_metadata_allows(
    tmp_path: Path, codec: str, zarr_format: int, array: str
) -> None:
    run = compressed(tmp_path / "in.zarr", codec, zarr_format, array)
    good = es.create_run(
        tmp_path / "good.zarr",
        T,
        W,
        item_ids=[f"i{n}" for n in range(60)] if array == "id" else None,
    )
    whole = es.fit(run, reference=good)
    np.testing.assert_allclose(whole.items @ whole.inverse().items, np.eye(D), atol=1e-9)
    folder = run / "items" / array
    key = "1.0" if array == "vectors" else "1"
    file = folder / (key if zarr_format == 2 else f"c/{key.replace('.', '/')}")
    size = 12 << 20 if codec in ("lz4", "blosc") else 40 << 20
    file.write_bytes(ENCODE[codec](BOMB[:size]))
    assert file.stat().st_size < 60_000, "no longer than an honest one might be"
    with memory_below(size - 1):
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
        group.store_path / "vectors",
        shape=T.shape,
        chunks=(ROWS, D),
        dtype="f8",
        serializer=sharding,
        compressors=None,
        filters=None,
        fill_value=np.nan,
    )
    made[...] = T
    assert es.fit(path).items.shape == (D, D)
    bomb = gzip.compress(BOMB)
    file = chunk_file(path, "items", 1)
    index = np.frombuffer(file.read_bytes()[-36:-4], "<u8").copy()
    index[:] = [0, len(bomb), len(bomb), 0]
    tail = index.tobytes()
    file.write_bytes(bomb + tail + crc32c.crc32c(tail).to_bytes(4, "little"))
    with memory_below(20 << 20), pytest.raises(es.DamageError, match="metadata allows"):
        es.fit(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_number_of_texts_is_not_taken_for_granted(tmp_path: Path, zarr_format: int) -> None:
    run = compressed(tmp_path / "in.zarr", "zstd", zarr_format, "id")
    good = es.create_run(tmp_path / "good.zarr", T, W, item_ids=[f"i{n}" for n in range(60)])
    file = run / "items" / "id" / ("1" if zarr_format == 2 else "c/1")
    file.write_bytes(ENCODE["zstd"]((1 << 28).to_bytes(4, "little")))
    with memory_below(20 << 20), pytest.raises(es.DamageError, match="claims 268435456 texts"):
        es.fit(good, reference=run)


@pytest.mark.parametrize("codec", ENCODE)
def test_what_is_small_enough_is_decoded_to_the_byte(codec: str) -> None:
    data = (
        b"7" * 5000
        if "unsized" in codec
        else np.random.default_rng(0).integers(0, 9, 5000, "u1").tobytes()
    )
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
    """Also frames of Zstandard, the first of which tells its own size alone."""
    for name in ("gzip", "bz2", "lzma", "zstd"):
        both = ENCODE[name](b"a" * 100) + ENCODE[name](b"b" * 100)
        assert (
            bytes(decode_bounded(numcodecs.get_codec(V2[name]), both, 200))
            == b"a" * 100 + b"b" * 100
        )
        with pytest.raises(ValueError, match="metadata allows"):
            decode_bounded(numcodecs.get_codec(V2[name]), both, 199)
    assert allowed_bytes(10, np.dtype("f8")) > 80


def test_arrays_without_compressors_stay_as_they_are(tmp_path: Path) -> None:
    run = es.create_run(tmp_path / "in.zarr", T, item_ids=np.arange(60))
    array = run.group["items/vectors"]
    assert (
        guarding.guarded(array, what="it").async_array.codec_pipeline
        == array.async_array.codec_pipeline
    )
    gzipped = zarr.open(compressed(tmp_path / "gz.zarr", "gzip", 3, "vectors"))["items/vectors"]
    again = pickle.loads(pickle.dumps(guarding.guarded(gzipped, what="it")))
    assert again is not gzipped
    assert again.metadata.codecs == gzipped.metadata.codecs
    np.testing.assert_array_equal(again[...], T)


# --- codecs that nobody can stop


class Opaque(numcodecs.abc.Codec):  # type: ignore[misc]
    """A compressor of somebody else's."""

    codec_id = "opaque"
    decoded = 0

    def encode(self, buf: Any) -> Any:
        return zlib.compress(bytes(memoryview(buf).cast("B")))

    def decode(self, buf: Any, out: Any = None) -> Any:
        del out
        Opaque.decoded += 1
        return zlib.decompress(buf)


numcodecs.register_codec(Opaque)


@pytest.mark.parametrize("place", ["compressor", "filters"])
@pytest.mark.parametrize("verb", ["inspect", "doctor", "stabilize"])
def test_a_codec_whose_size_nobody_knows_is_refused_before_a_chunk_is_read(
    tmp_path: Path, place: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "in.zarr", tmp_path / "out.zarr"
    kept = (
        {"compressors": Opaque()}
        if place == "compressor"
        else {"compressors": None, "filters": [Opaque()]}
    )
    foreign_run(
        run, {"items": (T, None), "users": (W, None)}, zarr_format=2, fill_value=np.nan, **kept
    )
    before = Opaque.decoded
    with pytest.raises(SystemExit) as ended:
        main(
            [verb, str(run), *([str(out)] if verb == "stabilize" else []), "--json"],
            prog_name="embstab",
        )
    output = capsys.readouterr().err
    assert ended.value.code == 2
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert "encoded by 'opaque', which may become anything; write it again" in output
    assert Opaque.decoded == before
    assert not out.exists()


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("name", ["numcodecs.zfpy", "somebody.elses"])
def test_of_zarr_v3_too(tmp_path: Path, name: str) -> None:
    run = tmp_path / "in.zarr"
    foreign_run(run, {"items": (T, None), "users": (W, None)}, fill_value=np.nan)
    file = run / "items/vectors/zarr.json"
    metadata = json.loads(file.read_text())
    metadata["codecs"] = [{"name": name, "configuration": {}}]
    file.write_text(json.dumps(metadata))
    with pytest.raises(es.EmbstabError, match=name.rpartition(".")[2]):
        es.fit(run)


@pytest.mark.parametrize("name", ["zlib", "gzip", "bz2", "lzma", "zstd", "blosc", "lz4"])
def test_a_compressor_among_the_filters_stops_as_well(tmp_path: Path, name: str) -> None:
    run = tmp_path / "in.zarr"
    kept = {"compressors": None, "filters": [numcodecs.get_codec(V2[name])], "fill_value": np.nan}
    foreign_run(run, {"items": (T, None), "users": (W, None)}, zarr_format=2, **kept)
    assert es.fit(run).items.shape == (D, D)
    size = 12 << 20 if name in ("lz4", "blosc") else 40 << 20
    (run / "items/vectors/1.0").write_bytes(ENCODE[name](BOMB[:size]))
    with (
        memory_below(size - 1),
        pytest.raises(es.DamageError, match=r"metadata allows|cannot be (read|decoded)"),
    ):
        es.fit(run)


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_filter_makes_no_wide_values(tmp_path: Path, zarr_format: int) -> None:
    run = tmp_path / "in.zarr"
    foreign_run(
        run, {"items": (T, None), "users": (W, None)}, zarr_format=zarr_format, fill_value=np.nan
    )
    options = {"encode_dtype": "|u1", "decode_dtype": "<U1000000"}
    file = run / "items/vectors" / (".zarray" if zarr_format == 2 else "zarr.json")
    metadata = json.loads(file.read_text())
    if zarr_format == 2:
        metadata["filters"] = [{"id": "astype", **options}]
    else:
        metadata["codecs"] = [
            {"name": "numcodecs.astype", "configuration": options},
            *metadata["codecs"],
        ]
    file.write_text(json.dumps(metadata))
    with pytest.raises(es.EmbstabError, match=r"at most 16 bytes; 'astype' makes <U1000000"):
        es.fit(run)
