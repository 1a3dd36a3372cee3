"""Outputs in shards: one file per task, the bits of chunks, and the same promises about damage."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pytest
import xarray as xr
import zarr
from oracle import Stop, world
from zarr.storage import ObjectStore

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.tables.read.direct_source import DirectSource, stored_digests
from dask_embstab.tables.read.stored.shard_file import file_digest
from dask_embstab.tables.write import table_layout
from dask_embstab.tables.write.run_writer import RunWriter

pytestmark = pytest.mark.usefixtures("small_tasks")
T, W = world(5)
D = T.shape[1]
SHARD, INNER = 24, 8


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> es.Run:
    monkeypatch.setattr(table_layout, "_INNER_BYTES", INNER * D * 4)
    ids = np.random.default_rng(0).permutation(len(T))
    return es.create_run(
        tmp_path / "in", T.astype("f4"), W.astype("f4"), item_ids=ids, chunk_rows=16
    )


def shards_of(place: Path, key: str = "items") -> list[Path]:
    return sorted((place / key / "vectors" / "c").glob("*/0"), key=lambda p: int(p.parent.name))


def test_a_run_in_shards_is_what_zarr_reads(run: es.Run, tmp_path: Path) -> None:
    ids = run.items.ids.compute()
    written = es.create_run(
        tmp_path / "out", run.items, run.users, item_ids=ids, chunk_rows=INNER, shard_rows=SHARD
    )
    for key in ("items", "users"):
        array = zarr.open_array(tmp_path / "out" / key / "vectors", mode="r")
        rows = getattr(run, key).vectors.compute()
        assert (array.shards, array.chunks) == ((SHARD, D), (INNER, D))
        np.testing.assert_array_equal(array[:], rows)
        np.testing.assert_array_equal(array[5:31], rows[5:31])
        table = getattr(written, key)
        assert isinstance(table.source, DirectSource)
        assert table.is_direct
        assert table.chunk_rows == SHARD
        np.testing.assert_array_equal(table.vectors.compute(), rows)
    np.testing.assert_array_equal(written.items.ids.compute(), ids)
    np.testing.assert_array_equal(written.items.rows_of(ids[[33, 2]]), T.astype("f4")[[33, 2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(tmp_path / "out", group="items")
        np.testing.assert_array_equal(opened["vectors"].values, T.astype("f4"))


def test_a_shard_is_one_file_that_ends_in_the_digest_of_its_rows(
    run: es.Run, tmp_path: Path
) -> None:
    es.create_run(tmp_path / "shards", run.items, chunk_rows=INNER, shard_rows=SHARD)
    es.create_run(tmp_path / "chunks", run.items, chunk_rows=SHARD)
    files, plain = shards_of(tmp_path / "shards"), shards_of(tmp_path / "chunks")
    assert len(files) == len(plain) == -(-len(T) // SHARD)
    for ours, theirs in zip(files, plain, strict=True):
        assert ours.read_bytes()[-4:] == theirs.read_bytes()[-4:]
        rows = theirs.read_bytes()[:-4]
        assert int.from_bytes(ours.read_bytes()[-4:], "little") == crc32c.crc32c(rows)
    source = es.open_run(tmp_path / "shards").items.source
    digests = stored_digests(source.block(0, len(T)))
    assert [digests[n] for n in range(len(files))] == [
        int.from_bytes(file.read_bytes()[-4:], "little") for file in files
    ]


def test_stabilizing_into_shards_gives_the_bits_of_chunks(run: es.Run, tmp_path: Path) -> None:
    plain = es.stabilize(run, tmp_path / "plain", reference=run)
    ours = es.stabilize(run, tmp_path / "ours", reference=run, shard_rows=SHARD)
    again = es.stabilize(ours, tmp_path / "again", reference=ours, shard_rows=2 * SHARD)
    for key in ("items", "users"):
        rows = getattr(plain, key).vectors.compute()
        assert getattr(ours, key).vectors.compute().tobytes() == rows.tobytes()
        assert len(shards_of(tmp_path / "ours", key)) == -(-len(rows) // SHARD)
    digests = again.transform.diagnostics["items"]["digests"]
    assert digests == [
        int.from_bytes(file.read_bytes()[-4:], "little") for file in shards_of(tmp_path / "ours")
    ]
    assert es.open_run(tmp_path / "ours", verify=True).transform is not None


def test_ingesting_and_the_command_line_write_shards(run: es.Run, tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", T)
    written = es.ingest(tmp_path / "items.npy", tmp_path / "ingested", shard_rows=SHARD)
    assert zarr.open_array(tmp_path / "ingested/items/vectors").shards == (SHARD, D)
    np.testing.assert_array_equal(written.items.vectors.compute(), T)
    with pytest.raises(SystemExit) as ended:
        main(["stabilize", str(run.path), str(tmp_path / "out"), "--shard-rows", str(SHARD)])
    assert not ended.value.code
    assert zarr.open_array(tmp_path / "out/items/vectors").shards == (SHARD, D)


def test_a_shard_holds_no_more_than_the_table(run: es.Run, tmp_path: Path) -> None:
    written = es.apply(es.fit(run), run, tmp_path / "out", shard_rows=10**15)
    array = zarr.open_array(tmp_path / "out/items/vectors")
    assert array.shards[0] < len(T) + array.chunks[0]
    assert len(shards_of(tmp_path / "out")) == 1
    assert written.items.vectors.compute().shape == T.shape


def inner_changed(place: Path) -> None:
    """A value of the second inner chunk, with checksums that fit, the shard's own left alone."""
    (file, *_) = shards_of(place)
    data, start = bytearray(file.read_bytes()), 16 * 3 + 4 + INNER * D * 4 + 4
    data[start + 5] ^= 1
    end = start + INNER * D * 4
    data[end : end + 4] = crc32c.crc32c(memoryview(data)[start:end]).to_bytes(4, "little")
    file.write_bytes(data)


def exchanged(place: Path) -> None:
    one, other = shards_of(place)[:2]
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])


def flipped(place: Path) -> None:
    file = shards_of(place)[1]
    data = bytearray(file.read_bytes())
    data[-30] ^= 1
    file.write_bytes(data)


def last_changed(place: Path) -> None:
    file = shards_of(place)[0]
    file.write_bytes(file.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("damage", [inner_changed, exchanged, flipped, last_changed])
def test_damage_to_a_recorded_shard_is_found(run: es.Run, tmp_path: Path, damage: Any) -> None:
    made = es.stabilize(run, tmp_path / "in2", reference=run)
    es.apply(made.transform, run, tmp_path / "out", shard_rows=SHARD)
    assert zarr.open_array(tmp_path / "out/items/vectors").chunks[0] == INNER
    damage(tmp_path / "out")
    with pytest.raises(es.DamageError):
        es.open_run(tmp_path / "out", verify=True).items.source.block(0, 48).open().take(0, 48)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path / "out")])
    assert ended.value.code == 2


@pytest.mark.parametrize("block", [1, 3, 50, 1 << 20])
def test_the_digest_of_a_file_is_that_of_its_rows(run: es.Run, tmp_path: Path, block: int) -> None:
    es.create_run(tmp_path / "shards", run.items, chunk_rows=INNER, shard_rows=SHARD)
    es.create_run(tmp_path / "chunks", run.items, chunk_rows=SHARD)

    def digest(data: bytes) -> Any:
        return file_digest(data[at : at + block] for at in range(0, len(data), block))

    places = (shards_of(tmp_path / name) for name in ("shards", "chunks"))
    for ours, theirs in zip(*places, strict=True):
        result, wanted = digest(ours.read_bytes()), digest(theirs.read_bytes())
        assert (result.body, result.stored) == (wanted.body, wanted.stored)
        assert result.whole == crc32c.crc32c(ours.read_bytes())
        for at in range(0, ours.stat().st_size, 7):
            data = bytearray(ours.read_bytes())
            data[at] ^= 1
            assert not digest(bytes(data)).checks
        assert not digest(ours.read_bytes()[:-50]).checks
        assert not digest(ours.read_bytes() + b"more").checks


def test_an_interrupted_write_of_shards_goes_on(
    run: es.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = es.fit(run)

    def stop(*_: Any) -> None:
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(RunWriter, "transform", stop)
        with pytest.raises(Stop):
            es.apply(transform, run, tmp_path / "out", resume=True, shard_rows=SHARD)
    (left,) = [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    flipped(left / "run")
    times = [path.stat().st_ino for path in shards_of(left / "run")]
    es.apply(transform, run, tmp_path / "out", resume=True, shard_rows=SHARD)
    now = [path.stat().st_ino for path in shards_of(tmp_path / "out")]
    same = [a == b for a, b in zip(times, now, strict=True)]
    assert not same[1]
    assert any(same), "tasks of whole shards are taken over"
    whole = es.apply(transform, run, tmp_path / "whole", shard_rows=SHARD)
    assert (
        es.open_run(tmp_path / "out").items.vectors.compute().tobytes()
        == whole.items.vectors.compute().tobytes()
    )


def test_shards_in_an_object_store(run: es.Run, tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="object stores are reached by it")
    from obstore.store import MemoryStore

    memory = MemoryStore()
    written = es.stabilize(run, ObjectStore(memory), reference=run, shard_rows=SHARD)
    local = es.stabilize(run, tmp_path / "out", reference=run, shard_rows=SHARD)
    assert written.items.vectors.compute().tobytes() == local.items.vectors.compute().tobytes()
    sent = bytes(memory.get("items/vectors/c/1/0").bytes())
    assert sent == shards_of(tmp_path / "out")[1].read_bytes()
    assert es.fit(written).items.tobytes() == es.fit(local).items.tobytes()


@pytest.mark.parametrize("rows", [{"shard_rows": 0}, {"shard_rows": 20, "chunk_rows": 8}])
def test_shards_that_cannot_be(tmp_path: Path, rows: dict[str, int]) -> None:
    with pytest.raises(es.InputError, match="shard_rows must be"):
        es.create_run(tmp_path / "out", T, **rows)
    with pytest.raises(es.InputError, match="shard_rows must be"):
        es.stabilize({"items": T}, tmp_path / "out", shard_rows=0)
    assert not (tmp_path / "out").exists()
