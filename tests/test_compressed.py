"""Bit-rounded and Pcodec tables, and gzip's members, are read to the bits that Zarr reads."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from oracle import memory_below
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.codecs import numcodecs as wrapped
from zarr.core.codec_pipeline import BatchedCodecPipeline

import dask_embstab as es
from dask_embstab.tables.read.bounded import decode_bounded, decode_into
from dask_embstab.tables.read.direct_source import DirectSource
from dask_embstab.tables.table import make_table

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
N, D, ROWS = 100, 4, 32
Layout = dict[str, Any]


def rows_of(dtype: str) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, D)).astype(dtype)


def written(place: Any, layout: Layout, dtype: str = "f4") -> zarr.Array[Any]:
    array = zarr.create_array(place, shape=(N, D), chunks=(ROWS, D), dtype=dtype, **layout)
    array[:] = rows_of(dtype)
    return array


def read(array: zarr.Array[Any]) -> np.ndarray:
    source = make_table(array, where="a").source
    reader = source.block(0, N).open()
    return np.concatenate([np.array(reader.take(at, min(at + 9, N))) for at in range(0, N, 9)])


def rounded(**more: Any) -> Layout:
    return {"filters": [wrapped.BitRound(keepbits=5)], **more}


@pytest.mark.parametrize(
    "layout",
    [
        lambda: rounded(compressors=[ZstdCodec()]),
        lambda: rounded(compressors=[GzipCodec(), Crc32cCodec()]),
        lambda: rounded(compressors=None),
        lambda: {"compressors": [wrapped.Zlib()]},
        lambda: {"compressors": [wrapped.Zstd()]},
        lambda: {
            "zarr_format": 2,
            "filters": [numcodecs.BitRound(5)],
            "compressors": numcodecs.Blosc(),
        },
    ],
    ids=["zstd", "gzip", "none", "zlib", "numcodecs.zstd", "v2"],
)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_rounded_bits_are_read_without_zarr(
    tmp_path: Path, layout: Callable[[], Layout], dtype: str
) -> None:
    array = written(tmp_path / "a", layout(), dtype)
    assert isinstance(make_table(array, where="a").source, DirectSource)
    assert read(array).tobytes() == array[:].tobytes()


def test_inner_chunks_of_gzip_are_read_in_place(tmp_path: Path) -> None:
    sharding = ShardingCodec(chunk_shape=(8, D), codecs=[BytesCodec(), GzipCodec()])
    array = written(tmp_path / "a", {"serializer": sharding, "compressors": None})
    assert isinstance(make_table(array, where="a").source, DirectSource)
    np.testing.assert_array_equal(read(array), rows_of("f4"))


def test_what_is_left_to_zarr_goes_through_the_pipeline_that_is_configured(tmp_path: Path) -> None:
    zarrs = pytest.importorskip("zarrs", reason="another pipeline of codecs")
    twice: Layout = {"compressors": [GzipCodec(level=1), ZstdCodec()]}
    for path, kind in (
        ("zarrs.ZarrsCodecPipeline", zarrs.ZarrsCodecPipeline),
        (zarr.config.get("codec_pipeline.path"), BatchedCodecPipeline),
    ):
        with zarr.config.set({"codec_pipeline.path": path}):
            place = tmp_path / kind.__name__
            array = written(place, twice)
            source: Any = make_table(array, where="a").source
            assert isinstance(source.array.async_array.codec_pipeline, kind)
            np.testing.assert_array_equal(read(array), rows_of("f4"))
            assert es.fit(place).items.shape == (D, D)


@pytest.mark.parametrize(
    "codec", [numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Zlib()], ids=str
)
@pytest.mark.parametrize("n_rows", [ROWS - 1, ROWS + 1])
def test_a_chunk_of_other_rows_than_its_metadata_says_is_an_error(
    tmp_path: Path, codec: Any, n_rows: int
) -> None:
    array = written(tmp_path / "a", {"zarr_format": 2, "compressors": codec})
    (tmp_path / "a/1.0").write_bytes(codec.encode(np.ones((n_rows, D), "f4")))
    with pytest.raises(es.DamageError, match=r"1\.0 cannot be read"):
        read(array)


@pytest.mark.parametrize("cuts", [(), (100,), (1, 2)])
def test_frames_of_zstandard_fill_a_chunk_together(cuts: tuple[int, ...]) -> None:
    codec, out = numcodecs.Zstd(), np.empty((ROWS, D), "f4")
    data = np.arange(out.nbytes, dtype=np.uint8)
    frames = b"".join(bytes(codec.encode(part.tobytes())) for part in np.split(data, cuts))
    decode_into("zstd", memoryview(frames), out)
    assert out.tobytes() == data.tobytes()
    with pytest.raises(ValueError, match="metadata says"):
        decode_into("zstd", memoryview(frames), np.empty((ROWS + 1, D), "f4"))
    of_somebody = bytes.fromhex("5a2a4d18 03000000 616263")  # RFC 8878, 3.1.2
    for data_with_it in (of_somebody + frames, frames + of_somebody):
        out[...] = 0
        decode_into("zstd", memoryview(data_with_it), out)
        assert out.tobytes() == data.tobytes()
        whole = decode_bounded(codec, data_with_it, out.nbytes)
        assert bytes(whole) == data.tobytes()


# --- Pcodec


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("form", ["v3", "checksums", "shards", "rounded", "v2"])
def test_pcodec_is_read(tmp_path: Path, form: str, dtype: str) -> None:
    pytest.importorskip("pcodec", reason="the codec's library")
    codec = wrapped.PCodec()
    inner = ShardingCodec(chunk_shape=(8, D), codecs=[codec])
    layout: Layout = {
        "v3": {"serializer": codec, "compressors": None},
        "checksums": {"serializer": codec, "compressors": [Crc32cCodec()]},
        "shards": {"serializer": inner, "compressors": None},
        "rounded": rounded(serializer=codec, compressors=None),
        "v2": {"zarr_format": 2, "compressors": numcodecs.get_codec({"id": "pcodec"})},
    }[form]
    array = written(tmp_path / "a", layout, dtype)
    table = make_table(array, where="a")
    assert isinstance(table.source, DirectSource) == (form != "rounded")
    assert read(array).tobytes() == array[:].tobytes()
    np.testing.assert_array_equal(es.table(array).vectors.compute(), array[:])


def test_pcodec_fills_a_chunk_and_no_more(tmp_path: Path) -> None:
    library = pytest.importorskip("pcodec", reason="the codec's library")
    layout: Layout = {"serializer": wrapped.PCodec(), "compressors": None}
    array = written(tmp_path / "a", layout)
    file = tmp_path / "a/c/1/0"
    for size, kind in ((4 << 20, "f4"), (ROWS * D - 1, "f4"), (ROWS * D, "f8")):
        numbers = np.zeros(size, kind)
        file.write_bytes(library.standalone.simple_compress(numbers, library.ChunkConfig()))
        with memory_below(8 << 20), pytest.raises(es.DamageError):
            es.fit(array)
        with memory_below(8 << 20), pytest.raises(Exception, match=r"numbers|dtype|type"):
            es.table(array).vectors.compute()
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(es.DamageError):
        es.fit(array)


def test_pcodec_without_its_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pcodec", None)
    with pytest.raises(es.InputError, match=r"pip install 'dask_embstab\[pcodec\]'"):
        decode_into("pcodec", memoryview(b"pco!"), np.empty(4))


def test_pcodec_among_filters_of_version_2_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pcodec", reason="the codec's library")
    codec = numcodecs.get_codec({"id": "pcodec"})
    array = written(tmp_path / "a", {"zarr_format": 2, "filters": [codec], "compressors": None})
    with pytest.raises(es.InputError, match="Pcodec must be the only codec"):
        es.fit(array)


# --- gzip


@pytest.mark.parametrize("size", [0, 1, 1000, 3 << 18])
def test_members_of_gzip_are_decoded_in_place(size: int) -> None:
    data = np.random.default_rng(0).integers(0, 9, size, "u1").tobytes()
    half = size // 2
    members = gzip.compress(data[:half]) + gzip.compress(data[half:]) + bytes(16)
    out = np.zeros(size, "u1")
    decode_into("gzip", memoryview(members), out)
    assert out.tobytes() == data
    decode_into("zlib", memoryview(zlib.compress(data)), out)
    assert out.tobytes() == data
    for wrong in (size + 1, size - 1):
        if wrong >= 0:
            with pytest.raises(ValueError, match="metadata"):
                decode_into("gzip", memoryview(members), np.zeros(wrong, "u1"))
    with pytest.raises(ValueError, match="ended before"):
        decode_into("gzip", memoryview(gzip.compress(data)[:-5]), out)
    with pytest.raises(zlib.error):
        decode_into("gzip", memoryview(b"no gzip at all"), out)
