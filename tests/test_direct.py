"""Chunk files read and written without Zarr hold the bits that Zarr reads and writes."""

from __future__ import annotations

import errno
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

import dask_embstab as es
from dask_embstab import DamageError
from dask_embstab.tables.read import direct
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.direct import DirectBlock
from dask_embstab.tables.read.direct_source import DirectSource, stored_digests
from dask_embstab.tables.read.stored.gather import DirectGather
from dask_embstab.tables.read.zarr_source import ZarrBlock, ZarrSource
from dask_embstab.tables.table import make_table
from dask_embstab.tables.write.chunk_writer import DirectWriter, reserve

N, D, ROWS = 1003, 7, 128
V3 = {
    "bytes": [],
    "crc32c": [Crc32cCodec()],
    "blosc": [BloscCodec(cname="lz4")],
    "zstd": [ZstdCodec()],
    "zstd+crc32c": [ZstdCodec(), Crc32cCodec()],
    "gzip": [GzipCodec()],
    "gzip+crc32c": [GzipCodec(level=1), Crc32cCodec()],
}


def rows_of(dtype: str) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, D)).astype(dtype)


def v3_array(path: Path, codec: str, dtype: str, *, endian: str = "little") -> zarr.Array:
    array = zarr.create_array(
        path,
        shape=(N, D),
        chunks=(ROWS, D),
        dtype=dtype,
        serializer=BytesCodec(endian=endian),
        compressors=V3[codec] or None,
        fill_value=math.nan,
    )
    array[:] = rows_of(dtype)
    return array


def v2_array(path: Path, dtype: str, compressor: object, separator: str) -> zarr.Array:
    array = zarr.create_array(
        path,
        shape=(N, D),
        chunks=(ROWS, D),
        dtype=dtype,
        zarr_format=2,
        compressors=compressor,
        fill_value=math.nan,
        chunk_key_encoding={"name": "v2", "separator": separator},
    )
    array[:] = rows_of(dtype.lstrip("<>"))
    return array


def taken(block: object, *, panel: int = 50) -> tuple[np.ndarray, dict[int, int]]:
    reader = block.open()
    parts = [np.array(reader.take(start, min(start + panel, N))) for start in range(0, N, panel)]
    return np.concatenate(parts), reader.digests()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("codec", V3)
def test_reads_what_zarr_reads(tmp_path: Path, codec: str, dtype: str) -> None:
    array = v3_array(tmp_path / "a", codec, dtype)
    table = make_table(array, where="a")
    assert isinstance(table.source, DirectSource)
    direct, digests = taken(table.source.block(0, N))
    through_zarr, zarr_digests = taken(ZarrBlock(ZarrSource(array), 0, N))
    np.testing.assert_array_equal(direct, array[:])
    np.testing.assert_array_equal(direct, through_zarr)
    assert digests == zarr_digests
    assert len(digests) == -(-N // ROWS)
    assert stored_digests(table.source.block(0, N)) == (digests if codec == "crc32c" else {}), (
        "known before reading"
    )


@pytest.mark.parametrize("endian", ["little", "big"])
def test_both_byte_orders_have_the_same_values_and_digests(tmp_path: Path, endian: str) -> None:
    array = v3_array(tmp_path / "a", "crc32c", "float32", endian=endian)
    values, _ = taken(make_table(array, where="a").source.block(0, N))
    np.testing.assert_array_equal(values, rows_of("float32"))


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_reads_version_2(tmp_path: Path, dtype: str, separator: str) -> None:
    import numcodecs

    for name, compressor in (
        ("none", None),
        ("blosc", numcodecs.Blosc()),
        ("zstd", numcodecs.Zstd()),
        ("gzip", numcodecs.GZip()),
        ("zlib", numcodecs.Zlib()),
    ):
        array = v2_array(tmp_path / name, dtype, compressor, separator)
        source = make_table(array, where="a").source
        assert isinstance(source, DirectSource), name
        np.testing.assert_array_equal(taken(source.block(0, N))[0], array[:])


def test_other_layouts_go_through_zarr(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"shape": (N, D), "chunks": (ROWS, D), "dtype": "f4"}
    twice = zarr.create_array(
        tmp_path / "twice", **shape, compressors=[GzipCodec(level=1), ZstdCodec()]
    )
    memory = zarr.create_array({}, **shape)
    for array in (twice, memory):
        array[:] = rows_of("float32")
        assert chunk_files(array) is None
        np.testing.assert_array_equal(
            taken(make_table(array, where="a").source.block(0, N))[0], array[:]
        )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_writes_what_zarr_writes(tmp_path: Path, dtype: str) -> None:
    by_zarr = v3_array(tmp_path / "zarr", "crc32c", dtype)
    target = zarr.create_array(
        tmp_path / "direct",
        shape=(N, D),
        chunks=(ROWS, D),
        dtype=dtype,
        compressors=[Crc32cCodec()],
        fill_value=math.nan,
    )
    files = chunk_files(target)
    assert files is not None
    writer = DirectWriter(files, 0, N)
    for start in range(0, N, 37):
        writer.put(rows_of(dtype)[start : start + 37])
    np.testing.assert_array_equal(target[:], by_zarr[:])
    for chunk in range(-(-N // ROWS)):
        ours, theirs = (Path(chunk_files(a).path(chunk)).read_bytes() for a in (target, by_zarr))
        assert ours == theirs, f"chunk {chunk} differs, the last one's padding included"
        assert writer.digests[chunk] == int.from_bytes(ours[-4:], "little"), (
            "the digest is the stored checksum"
        )


@pytest.mark.parametrize("length", [0, 3, None])
def test_files_that_tell_no_checksum_tell_no_digests(tmp_path: Path, length: int | None) -> None:
    source = make_table(v3_array(tmp_path / "a", "crc32c", "float32"), where="a").source
    path = Path(source.files.path(2))
    if length is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:length])
    assert not stored_digests(source.block(0, N))
    assert len(stored_digests(source.block(0, 2 * ROWS))) == 2


def test_a_chunk_that_does_not_fit_the_disk_shows_before_it_is_written(tmp_path: Path) -> None:
    rows = 1 << 45  # beyond what any file may hold
    target = zarr.create_array(
        tmp_path / "a", shape=(rows, D), chunks=(rows, D), dtype="f4", compressors=None
    )
    writer = DirectWriter(chunk_files(target), 0, rows)
    with pytest.raises(OSError, match=r"too large|No space"):
        writer.put(rows_of("float32"))
    del writer
    assert not list((tmp_path / "a").rglob("*.partial"))


def test_a_file_system_that_reserves_no_room_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dask_embstab.files.libc.ctypes.get_errno", lambda: errno.EOPNOTSUPP)
    reserve(-1, 10, "no file at all: the call fails")
    monkeypatch.setattr("dask_embstab.files.libc.ctypes.CDLL", lambda *_, **__: object())
    target = zarr.create_array(
        tmp_path / "a", shape=(N, D), chunks=(ROWS, D), dtype="f4", compressors=None
    )
    DirectWriter(chunk_files(target), 0, N).put(rows_of("float32"))
    np.testing.assert_array_equal(target[:], rows_of("float32"))


@pytest.mark.parametrize("ahead", [1, 40, 100, 128, 500, 4000])
@pytest.mark.parametrize("panel", [1, 33, 100, 128, 300])
def test_reading_ahead_reads_every_byte_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int, panel: int
) -> None:
    array = v3_array(tmp_path / "a", "crc32c", "f4")
    files = chunk_files(array)
    assert files is not None
    monkeypatch.setattr("dask_embstab.tables.read.direct._READ_BYTES", ahead * D * 4)
    reader = DirectBlock(files, 2 * ROWS, N).open()
    cuts = [*range(2 * ROWS, N, panel), N]
    rows = [reader.take(start, stop).copy() for start, stop in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(rows), array[2 * ROWS :])
    assert sorted(reader.digests()) == list(range(2, 8))  # every checksum was compared
    uneven = DirectBlock(files, 0, N).open()
    edges = [0, 7, 200, 201, 640, 1000, N]
    rows = [uneven.take(start, stop).copy() for start, stop in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(rows), array[:])
    assert len(uneven.digests()) == 8


def test_gathers_rows_in_any_order(tmp_path: Path) -> None:
    array = v3_array(tmp_path / "a", "crc32c", "float32")
    wanted = np.random.default_rng(1).integers(0, N, 400)
    reader = DirectGather(chunk_files(array), wanted).open()
    result = np.concatenate(
        [reader.take(start, min(start + 64, 400)) for start in range(0, 400, 64)]
    )
    np.testing.assert_array_equal(result, rows_of("float32")[wanted])


def test_a_part_of_a_chunk_is_verified_too(tmp_path: Path) -> None:
    array = v3_array(tmp_path / "a", "crc32c", "float32")
    files = chunk_files(array)
    path = Path(files.path(1))
    stored = bytearray(path.read_bytes())
    stored[-10] ^= 1
    path.write_bytes(stored)
    with pytest.raises(DamageError, match="checksum"):
        DirectBlock(files, ROWS + 3, ROWS + 9).open().take(ROWS + 3, ROWS + 9)
    with pytest.raises(DamageError, match="checksum"):
        DirectGather(files, np.array([ROWS + 1])).open().take(0, 1)
    with pytest.raises(DamageError, match="checksum"):
        taken(DirectBlock(files, 0, N))


@pytest.mark.parametrize("codec", ["blosc", "zstd", "crc32c", "bytes"])
def test_truncated_and_missing_chunks_are_damage(tmp_path: Path, codec: str) -> None:
    array = v3_array(tmp_path / "a", codec, "float32")
    files = chunk_files(array)
    path = Path(files.path(2))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamageError):
        taken(DirectBlock(files, 0, N))
    path.unlink()
    with pytest.raises(DamageError, match="missing"):
        taken(DirectBlock(files, 0, N))


def test_a_chunk_of_zeros_that_zarr_left_out_reads_as_zeros(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a", shape=(N, D), chunks=(ROWS, D), dtype="f4", compressors=None, fill_value=0
    )
    rows = rows_of("float32")
    rows[ROWS : 2 * ROWS] = 0
    array[:] = rows
    assert not Path(chunk_files(array).path(1)).exists()
    np.testing.assert_array_equal(taken(make_table(array, where="a").source.block(0, N))[0], rows)


def test_stabilizing_gives_the_same_bits_by_either_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    es.create_run(
        tmp_path / "run", rng.normal(size=(900, 5)), rng.normal(size=(700, 5)), chunk_rows=100
    )
    direct = es.stabilize(tmp_path / "run", tmp_path / "direct")
    for place in ("table", "write.sink", "ids.ids"):
        monkeypatch.setattr(f"dask_embstab.tables.{place}.chunk_files", lambda _: None)
    through_zarr = es.stabilize(tmp_path / "run", tmp_path / "zarr")
    for key in ("items", "users"):
        ours, theirs = (getattr(run, key).vectors.compute() for run in (direct, through_zarr))
        assert ours.tobytes() == theirs.tobytes()
    digests = [run.transform.diagnostics["items"]["digests"] for run in (direct, through_zarr)]
    assert digests[0] == digests[1]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
def test_chunks_read_in_part_are_closed(tmp_path: Path) -> None:
    """A reader that goes from chunk to chunk without reading them to their ends keeps one open, and
    none once it is gone.
    """
    files = chunk_files(v3_array(tmp_path / "a", "crc32c", "float32"))
    assert files is not None
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = DirectBlock(files, ROWS // 2, N).open()
    for start in range(ROWS // 2, N - 1, ROWS // 2):
        reader.take(start, start + 1)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    del reader
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_checksum_that_cannot_be_read_is_no_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run would be of another space while its disk fails."""
    run = es.create_run(tmp_path / "run", np.ones((N, 3), np.float32), chunk_rows=ROWS)
    known, read = es.space_of(run).origin, direct.stored_checksum_of
    for k in (0, 1):
        calls = itertools.count()

        def failing(files: Any, number: int, calls: Any = calls, k: int = k) -> int:
            if next(calls) == k:
                raise OSError(errno.EIO, "Input/output error")
            return read(files, number)

        monkeypatch.setattr(direct, "stored_checksum_of", failing)
        with pytest.raises(es.DamageError, match="cannot be read"):
            es.space_of(run)
        assert es.space_of(run).origin == known
