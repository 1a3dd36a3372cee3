"""A file of metadata that is far longer than any can be (6 GB that take no room on the disk) is
refused by its size: nobody reads it into memory.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from oracle import foreign_run, memory_below, world
from zarr.storage import LocalStore

import dask_embstab as es
from dask_embstab.files import locks, regular
from dask_embstab.series.log.digests import Digests, record_digests
from dask_embstab.series.log.log import rows
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.tables.ids.ids import as_ids
from dask_embstab.tables.read import recorded

T, W = world(98)
ENDLESS, LITTLE = 6 << 30, 64 << 20  # modules that are imported on the way take up to 40
TOO_LONG = rf"{ENDLESS} bytes and {regular.MOST_METADATA_BYTES} may stand there"
CLAIMED = r"claims 16 texts and its 64 bytes hold fewer|100000000 texts are claimed"


@contextlib.contextmanager
def endless(path: Path, n_bytes: int = ENDLESS) -> Iterator[None]:
    """The file is so long within the block; it is as it was, or not there, afterwards."""
    data = path.read_bytes() if path.exists() else None
    with path.open("ab") as file:
        file.truncate(n_bytes)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if data is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_of_a_run_is_not_read_beyond_its_bound(tmp_path: Path, zarr_format: Any) -> None:
    path = foreign_run(
        tmp_path / "in.zarr",
        {"items": (T, np.arange(60)), "users": (W, None)},
        zarr_format=zarr_format,
    )
    calls: list[Callable[[], Any]] = [
        lambda: es.open_run(path),
        lambda: es.open_run(LocalStore(path)),
        lambda: es.fit(path, reference=path),
    ]
    for call in calls:  # modules are imported now
        call()
    names = ["zarr.json"] if zarr_format == 3 else [".zgroup", ".zattrs", ".zmetadata"]
    array = "zarr.json" if zarr_format == 3 else ".zarray"
    for name in [*names, *(f"items/{key}/{array}" for key in ("vectors", "id"))]:
        with endless(path / name), memory_below(LITTLE):
            for call in calls:
                with pytest.raises(es.DamageError, match=TOO_LONG):
                    call()
    with endless(path / "items/id" / array), memory_below(LITTLE):
        with pytest.raises(es.EmbstabError, match=TOO_LONG):
            es.fit(T, reference=str(path / "items/vectors"))
        with pytest.raises(es.EmbstabError, match=TOO_LONG):
            es.fit(T, reference=T, weights=str(path / "items/id"))


def test_nor_if_it_grows_after_it_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that nobody waits for any more is served late: Zarr asks for several files at once
    and takes the first error.
    """
    path = foreign_run(tmp_path / "in.zarr", {"items": (T, None)}, zarr_format=2)
    es.open_run(path)  # modules are imported now
    original, grown = os.stat, path / ".zattrs"

    def stat(at: Any, **options: Any) -> os.stat_result:
        result = original(at, **options)
        if str(at) == str(grown):
            os.truncate(grown, 4 * LITTLE)
        return result

    monkeypatch.setattr(recorded, "MOST_METADATA_BYTES", 1 << 20)
    monkeypatch.setattr(os, "stat", stat)
    with memory_below(LITTLE), contextlib.suppress(es.DamageError):
        es.open_run(path)


def test_nor_is_any_file_of_a_series(tmp_path: Path) -> None:
    place = tmp_path / "series"
    runs = [es.create_run(tmp_path / f"day-{day}.zarr", *world(day)) for day in (1, 2, 3)]
    series = es.Series.init(place, gates=dict.fromkeys(THRESHOLDS))
    for run in runs[:2]:
        series.add(run)
    series.rebase(1)
    series.change(gates={"matched": 2.0})
    with pytest.raises(es.HoldError):
        series.add(runs[2])
    published = [
        "series.json",
        "versions/2.json",
        "versions/4.json",
        *(f"digests/{path.name}" for path in (place / "digests").glob("day-2.*")),
        "runs/day-2.zarr/zarr.json",
        "runs/day-2.zarr/items/vectors/zarr.json",
    ]
    others = [
        "references/day-2.zarr/items/weight/zarr.json",
        *(str(path.relative_to(place)) for path in (place / "attempts").iterdir()),
        "candidates/day-3/held.json",
        "candidates/day-3/candidate.npz",
        f"pins/{'0' * 32}.json",
        "locks/day-3.lock",
    ]
    reading: list[Callable[[], Any]] = [
        lambda: list(rows(es.Series(place).log())),
        lambda: es.Series(place).open(2),
    ]
    housekeeping: list[Callable[[], Any]] = [
        lambda: es.Series(place).status(),
        lambda: es.Series(place).gc(),
    ]
    adding: list[Callable[[], Any]] = [lambda: es.Series(place).add(runs[2])]
    for call in (*reading, *housekeeping, *adding):  # modules are imported now
        with contextlib.suppress(es.HoldError):
            call()
    for name in (*published, *others):
        calls = reading if name in published else adding + housekeeping
        refused = 0
        with endless(place / name), memory_below(LITTLE):
            for call in calls:
                try:
                    call()
                except es.EmbstabError as error:
                    refused += bool(re.search(TOO_LONG, str(error)))
        assert refused or name in others, name
    (basis,) = (place / "bases").iterdir()  # as long as its matrices, so its checksum tells
    with (
        endless(basis, 2 * LITTLE),
        memory_below(LITTLE),
        pytest.raises(es.DamageError, match="checksum"),
    ):
        es.Series(place).open(1)
    with endless(place / "locks/day-3.lock"):
        assert locks.holder(place / "locks/day-3.lock")
    assert es.Series(place).add(runs[2], accept="it is whole again").published
    assert not es.Series(place).verify().damage


def test_nobody_writes_what_nobody_would_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = es.Series.init(tmp_path / "series")
    monkeypatch.setattr("dask_embstab.series.log.digests.MOST_METADATA_BYTES", 1000)
    result = Digests(inputs={"path": "x" * 1000})
    with pytest.raises(es.InputError, match=r"1000 bytes at most.* take 10.*larger chunks"):
        record_digests(series.store, "day", result)
    with pytest.raises(es.InputError, match="larger chunks"):
        series.add(es.create_run(tmp_path / "day.zarr", T, W))
    assert series.log().versions == ()


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"x", bytes(range(256)) * 9000):
        path.write_bytes(data)
        assert regular.read_regular(path, len(data)) == data
    with pytest.raises(es.DamageError, match="2304000 bytes and 2303999 may stand there"):
        regular.read_regular(path, len(data) - 1)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("n", [10**8, 16])
def test_texts_are_bounded_by_the_bytes_that_should_hold_them(
    tmp_path: Path, n: int, zarr_format: Any
) -> None:
    """A chunk says how many texts it holds; each of them takes four bytes at least."""
    array = zarr.create_array(
        tmp_path / "ids.zarr",
        shape=(n,),
        chunks=(n,),
        dtype=str,
        compressors=None,
        zarr_format=zarr_format,
    )
    chunk = tmp_path / "ids.zarr" / ("c/0" if zarr_format == 3 else "0")
    chunk.parent.mkdir(exist_ok=True)
    chunk.write_bytes(n.to_bytes(4, "little") + bytes(4 * 15))
    with memory_below(LITTLE), pytest.raises(es.DamageError, match=CLAIMED):
        as_ids(array, n, where="it").open().take(0, min(n, 16))


def test_a_chunk_of_texts_is_no_longer_than_its_table(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "ids.zarr", shape=(60,), chunks=(10**8,), dtype=str)
    with memory_below(LITTLE), pytest.raises(es.InputError, match=r"100000000 texts each.*60 rows"):
        as_ids(array, 60, where="it")


def test_short_texts_do_not_become_gigabytes(tmp_path: Path) -> None:
    """Compressed texts that become far more than ids can."""
    array = zarr.create_array(
        tmp_path / "ids.zarr",
        shape=(50_000,),
        chunks=(50_000,),
        dtype=str,
        compressors=[zarr.codecs.ZstdCodec(level=9)],
    )
    array[:] = np.full(50_000, "x" * 900, dtype=object)
    assert (tmp_path / "ids.zarr/c/0").stat().st_size < 50_000
    with memory_below(LITTLE), pytest.raises(es.DamageError, match="the metadata allows"):
        as_ids(array, 50_000, where="it").open().take(0, 1)
