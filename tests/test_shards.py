"""Shards read without Zarr hold the bits that Zarr reads, and damage to them is one clear error."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

import dask_embstab as es
from dask_embstab import DamageError, EmbstabError
from dask_embstab.tables.ids.ids import as_ids
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.direct import DirectBlock
from dask_embstab.tables.read.direct_source import DirectSource, stored_digests
from dask_embstab.tables.read.stored.checksums import appended, repeated
from dask_embstab.tables.read.stored.gather import DirectGather
from dask_embstab.tables.read.zarr_source import ZarrBlock, ZarrSource
from dask_embstab.tables.table import make_table

CODECS: dict[str, list[Any]] = {
    "bytes": [],
    "crc32c": [Crc32cCodec()],
    "zstd": [ZstdCodec()],
    "blosc+crc32c": [BloscCodec(cname="lz4"), Crc32cCodec()],
}


def sharded(
    place: Any,
    rows: np.ndarray,
    *,
    inner: tuple[int, ...],
    shard: tuple[int, ...],
    codec: str = "crc32c",
    location: str = "end",
    index: tuple[Any, ...] = (BytesCodec(), Crc32cCodec()),
    endian: str = "little",
    fill: float = math.nan,
) -> zarr.Array[Any]:
    sharding = ShardingCodec(
        chunk_shape=inner,
        codecs=[BytesCodec(endian=endian), *CODECS[codec]],
        index_codecs=index,
        index_location=location,
    )
    array = zarr.create_array(
        place,
        shape=rows.shape,
        chunks=shard,
        dtype=rows.dtype,
        serializer=sharding,
        compressors=None,
        filters=None,
        fill_value=fill,
    )
    array[:] = rows
    return array


def normals(n: int, d: int, dtype: str = "f4") -> np.ndarray:
    return np.random.default_rng(n * d).standard_normal((n, d)).astype(dtype)


def taken(block: Any, start: int, stop: int, panel: int) -> tuple[np.ndarray, dict[int, int]]:
    reader = block.open()
    parts = [np.array(reader.take(at, min(at + panel, stop))) for at in range(start, stop, panel)]
    return np.concatenate(parts), reader.digests()


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_layout_reads_as_zarr_reads_it(tmp_path_factory: Any, data: st.DataObject) -> None:
    draw = data.draw
    inner, bands = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    width, columns = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2]))
    shard, d = inner * bands, width * columns
    n = draw(st.integers(1, 3 * shard + 1))
    fill = draw(st.sampled_from([math.nan, 0.0]))
    rows = normals(n, d, draw(st.sampled_from(["f2", "f4", "f8"])))
    if fill == 0:  # inner chunks of zeros are left out
        rows[draw(st.integers(0, n)) :] = 0
        rows[: draw(st.integers(0, n))] = 0
    array = sharded(
        tmp_path_factory.mktemp("shards") / "a",
        rows,
        inner=(inner, width),
        shard=(shard, d),
        codec=draw(st.sampled_from(list(CODECS))),
        location=draw(st.sampled_from(["start", "end"])),
        index=draw(st.sampled_from([(BytesCodec(), Crc32cCodec()), (BytesCodec(),)])),
        endian=(endian := draw(st.sampled_from(["little", "big"]))),
        fill=fill,
    )
    files = chunk_files(array)
    assert files is not None
    panel = draw(st.integers(1, n))
    first = draw(st.integers(0, -(-n // shard) - 1)) * shard
    through_zarr, digests = taken(ZarrBlock(ZarrSource(array), first, n), first, n, panel)
    result, ours = taken(DirectBlock(files, first, n), first, n, panel)
    assert result.tobytes() == through_zarr.tobytes() == rows[first:].astype(result.dtype).tobytes()
    assert ours == digests or endian == "big", "of stored bytes, as of chunks"
    part = DirectBlock(files, min(first + 1, n - 1), n).open()
    at = draw(st.integers(min(first + 1, n - 1), n - 1))
    np.testing.assert_array_equal(part.take(at, n), rows[at:])
    if files.by_panels:
        wanted = np.array(draw(st.lists(st.integers(0, n - 1), max_size=8)), np.int64)
        np.testing.assert_array_equal(
            DirectGather(files, wanted).open().take(0, len(wanted)), rows[wanted]
        )


def test_checksums_of_parts_make_that_of_the_whole() -> None:
    data = np.random.default_rng(0).bytes(5000)
    for cut in (0, 1, 77, 4999, 5000):
        a, b = data[:cut], data[cut:]
        assert appended(len(b))(crc32c.crc32c(a), crc32c.crc32c(b)) == crc32c.crc32c(data)
    assert repeated(b"\0\1\2\3", 1_000_003) == crc32c.crc32c(b"\0\1\2\3" * 1_000_003)


def test_the_digest_of_a_shard_is_known_before_it_is_read(tmp_path: Path) -> None:
    array = sharded(tmp_path / "a", normals(70, 3), inner=(4, 3), shard=(16, 3))
    source = make_table(array, where="a").source
    assert isinstance(source, DirectSource)
    block = source.block(0, 70)
    _, digests = taken(ZarrBlock(ZarrSource(array), 0, 70), 0, 70, 9)
    assert stored_digests(block) == digests
    Path(source.files.path(1)).unlink()
    assert stored_digests(block) == {}


def test_what_is_no_plain_shard_goes_through_zarr(tmp_path: Path) -> None:
    rows = normals(20, 4)
    nested = ShardingCodec(
        chunk_shape=(8, 4), codecs=[ShardingCodec(chunk_shape=(4, 4), codecs=[BytesCodec()])]
    )
    kinds: dict[str, dict[str, Any]] = {
        "nested": {"chunks": (16, 4), "serializer": nested, "compressors": None},
        "twice": {"chunks": (8, 4), "shards": (16, 4), "compressors": [GzipCodec(), ZstdCodec()]},
    }
    for name, options in kinds.items():
        array = zarr.create_array(tmp_path / name, shape=rows.shape, dtype="f4", **options)
        array[:] = rows
        assert chunk_files(array) is None, name
        result, _ = taken(make_table(array, where="a").source.block(0, 20), 0, 20, 7)
        np.testing.assert_array_equal(result, rows)


def test_ids_in_shards_are_read_without_zarr(tmp_path: Path) -> None:
    ids = np.random.default_rng(1).permutation(100).astype(np.int64)[:50]
    array = sharded(tmp_path / "id", ids, inner=(4,), shard=(12,), fill=0)
    assert type(as_ids(array, 50, where="a").open()).__name__ == "DirectIds"
    np.testing.assert_array_equal(as_ids(array, 50, where="a").open().take(3, 49), ids[3:49])


N, D, INNER, SHARD = 40, 3, 4, 16


def index_of(path: Path) -> tuple[bytearray, np.ndarray]:
    """The bytes of a shard whose index is at its end with a checksum, and its entries."""
    data = bytearray(path.read_bytes())
    n = 16 * (SHARD // INNER)
    return data, np.frombuffer(data[-n - 4 : -4], "<u8").reshape(-1, 2).copy()


def put_index(path: Path, data: bytearray, entries: np.ndarray) -> None:
    new = entries.astype("<u8").tobytes()
    data[-len(new) - 4 :] = new + struct.pack("<I", crc32c.crc32c(new))
    path.write_bytes(data)


def damaged_index(change: Any) -> Any:
    def apply(path: Path) -> None:
        data, entries = index_of(path)
        change(entries, len(data))
        put_index(path, data, entries)

    return apply


def flipped(at: int) -> Any:
    def apply(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return apply


def _set(row: int, column: int, value: Any) -> Any:
    def change(entries: np.ndarray, size: int) -> None:
        entries[row, column] = value(entries, size) if callable(value) else value

    return damaged_index(change)


DAMAGE: dict[str, tuple[Any, str]] = {
    "emptied": (lambda path: path.write_bytes(b""), "truncated"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-30]), "index"),
    "missing": (lambda path: path.unlink(), "is missing"),
    "a bit of the index": (flipped(-20), "index of .* fails its checksum"),
    "the checksum of the index": (flipped(-1), "index of .* fails its checksum"),
    "a bit of an inner chunk": (flipped(5), "inner chunk 0 of .* fails its checksum"),
    "an inner chunk beyond the end": (_set(1, 0, lambda _, size: size - 4), "must lie in its"),
    "an inner chunk far beyond the end": (_set(1, 0, 2**63 + 5), "must lie in its"),
    "an inner chunk of another length": (_set(1, 1, 7), "must lie in its"),
    "half of what says left out": (_set(1, 0, 2**64 - 1), "must lie in its"),
    "an inner chunk over another": (_set(1, 0, lambda entries, _: entries[0, 0] + 4), "overlap"),
    "one inner chunk twice": (_set(1, 0, lambda entries, _: entries[0, 0]), "overlap"),
    "an inner chunk over the index": (_set(3, 0, lambda _, size: size - 70), "overlap"),
    "an inner chunk left out": (
        damaged_index(lambda entries, _: entries.__setitem__(1, 2**64 - 1)),
        "inner chunk 1 of .* is missing",
    ),
    "two inner chunks exchanged, their checksums with them": (
        damaged_index(lambda entries, _: entries.__setitem__([0, 1], entries[[1, 0]])),
        "",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_to_a_shard_is_one_clear_error(tmp_path: Path, what: str) -> None:
    damage, words = DAMAGE[what]
    array = sharded(tmp_path / "a", normals(N, D), inner=(INNER, D), shard=(SHARD, D))
    before = stored_digests(make_table(array, where="a").source.block(0, N))
    files = chunk_files(array)
    assert files is not None
    damage(Path(files.path(1)))
    if not words:  # a foreign table's index says what is where: only a record tells
        assert stored_digests(DirectBlock(files, 0, N)) != before
        return
    with pytest.raises(DamageError, match=words):
        taken(DirectBlock(files, 0, N), 0, N, 7)
    with pytest.raises(DamageError, match=words):
        DirectGather(files, np.array([SHARD + 1, SHARD + 5])).open().take(0, 2)
    with pytest.raises(EmbstabError):
        es.fit(tmp_path / "a")


@pytest.mark.parametrize("codec", ["zstd", "blosc+crc32c"])
def test_damage_to_compressed_inner_chunks_too(tmp_path: Path, codec: str) -> None:
    array = sharded(tmp_path / "a", normals(N, D), inner=(INNER, D), shard=(SHARD, D), codec=codec)
    files = chunk_files(array)
    assert files is not None
    path = Path(files.path(1))
    data, entries = index_of(path)
    offset, length = map(int, entries[2])
    data[offset : offset + length - 5] = bytes(length - 5)
    path.write_bytes(data)
    with pytest.raises(DamageError, match="inner chunk 2 of"):
        taken(DirectBlock(files, 0, N), 0, N, 7)
    data, entries = index_of(path)
    entries[1] = 0, 10**6
    put_index(path, data, entries)
    with pytest.raises(DamageError, match="must lie in its"):
        taken(DirectBlock(files, 0, N), 0, N, 7)


def test_a_part_of_a_shard_verifies_the_inner_chunks_that_it_cuts(tmp_path: Path) -> None:
    array = sharded(tmp_path / "a", normals(N, D), inner=(INNER, D), shard=(SHARD, D))
    files = chunk_files(array)
    assert files is not None
    flipped(5)(Path(files.path(1)))
    with pytest.raises(DamageError, match="inner chunk 0 of"):
        DirectBlock(files, SHARD + 1, SHARD + 2).open().take(SHARD + 1, SHARD + 2)
    good = DirectBlock(files, SHARD + INNER, N).open().take(SHARD + INNER, N)
    np.testing.assert_array_equal(good, normals(N, D)[SHARD + INNER :])


def test_rows_that_end_within_an_inner_chunk_verify_it(tmp_path: Path) -> None:
    array = sharded(tmp_path / "a", normals(N, D), inner=(INNER, D), shard=(SHARD, D))
    files = chunk_files(array)
    assert files is not None
    flipped(-16 * (SHARD // INNER) - 4 - 20)(Path(files.path(0)))  # the last rows of a shard
    np.testing.assert_array_equal(
        taken(DirectBlock(files, 0, INNER), 0, INNER, 3)[0], array[:INNER]
    )
    stop = SHARD - INNER + 1
    for panel in (1, INNER, stop):
        with pytest.raises(DamageError, match=f"inner chunk {SHARD // INNER - 1} of"):
            taken(DirectBlock(files, 0, stop), 0, stop, panel)


def test_fits_of_shards_and_chunks_have_the_same_bits(tmp_path: Path) -> None:
    rows = normals(500, 5)
    plain = es.create_run(tmp_path / "plain", rows, rows[:300], chunk_rows=64)
    es.create_run(tmp_path / "shards", rows[:1], rows[:1])
    group = zarr.open_group(tmp_path / "shards")
    for key, values in (("items", rows), ("users", rows[:300])):
        del group[f"{key}/vectors"]
        sharded(str(tmp_path / "shards" / key / "vectors"), values, inner=(16, 5), shard=(64, 5))
    ours, theirs = es.fit(tmp_path / "shards"), es.fit(plain)
    assert ours.items.tobytes() == theirs.items.tobytes()
    ours, theirs = (t.diagnostics["items"]["digests"] for t in (ours, theirs))
    assert ours == theirs
