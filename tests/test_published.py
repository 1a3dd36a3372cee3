"""Whoever reads a run through its series reads what was published, by whatever path its
rows come.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pytest
from oracle import chunk_file, world

import dask_embstab as es
from dask_embstab.series.log.published import published_reference
from dask_embstab.tables.read.recorded import Recorded, RunStore

D, ROWS = 4, 16
Damage = Callable[[Path], None]
IDS: dict[str, Any] = {"item_ids": np.arange(60) * 3, "user_ids": [f"u{i}" for i in range(90)]}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days, published with the running reference of both, and a third to add."""
    folder = tmp_path_factory.mktemp("published")
    series = es.Series.init(folder / "series")
    for day in range(3):
        T, W = world(80 + day)
        made = es.create_run(folder / f"day-{day}.zarr", T, W, chunk_rows=ROWS, **IDS)
        if day < 2:
            series.add(made, accept="they are of unrelated worlds")
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(template, tmp_path / "copy")
    return tmp_path / "copy" / "series"


def mend(file: Path) -> None:
    """The checksum that these bytes should have."""
    data = file.read_bytes()[:-4]
    file.write_bytes(data + crc32c.crc32c(data).to_bytes(4, "little"))


def exchange(one: Path, other: Path) -> None:
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


def head(place: Path) -> Path:
    return place / "runs" / "day-1.zarr"


def exchanged(key: str, array: str) -> Damage:
    return lambda place: exchange(*(chunk_file(head(place), key, n, array) for n in (1, 2)))


def mended(key: str, array: str) -> Damage:
    def damage(place: Path) -> None:
        file = chunk_file(head(place), key, 2, array)
        data = bytearray(file.read_bytes())
        data[1] ^= 1
        file.write_bytes(bytes(data))
        mend(file)

    return damage


def of_another_run(key: str, array: str) -> Damage:
    return lambda place: shutil.copy(
        chunk_file(place / "runs" / "day-0.zarr", key, 1, array),
        chunk_file(head(place), key, 1, array),
    )


READS: dict[str, Callable[[es.Table], Any]] = {
    "a pass": lambda table: es.fit(table),
    "Dask": lambda table: table.vectors.compute(),
    "a part in Dask": lambda table: table.vectors[20:40, :2].compute(),
    "xarray": lambda table: table.to_xarray().vectors.values,
    "single rows": lambda table: table.rows_of(table.ids[20:40].compute().tolist()),
    "a pickled view": lambda table: pickle.loads(pickle.dumps(table)).vectors.compute(),
}
IN_VECTORS = {"exchanged": exchanged, "mended": mended, "of another run": of_another_run}


@pytest.mark.parametrize("reading", READS)
@pytest.mark.parametrize("what", IN_VECTORS)
@pytest.mark.parametrize("key", ["items", "users"])
def test_vectors_are_those_that_were_published(
    place: Path, key: str, what: str, reading: str
) -> None:
    IN_VECTORS[what](key, "vectors")(place)
    run = es.Series(place).open()
    with pytest.raises(
        es.DamageError, match=rf"{key}/vectors/c/[12]/0.* is not the chunk that was published"
    ):
        READS[reading](run.table(key))


@pytest.mark.parametrize("what", [exchanged, mended])
@pytest.mark.parametrize("key", ["items", "users"])
def test_ids_are_those_that_were_published(place: Path, key: str, what: Any) -> None:
    """int64 and texts."""
    what(key, "id")(place)
    run = es.Series(place).open()
    table = run.table(key)
    pattern = rf"{key}/id/c/[12].* is not the chunk that was published"
    with pytest.raises(es.DamageError, match=pattern):
        table.ids.compute()
    with pytest.raises(es.DamageError, match=pattern):
        es.fit(es.open_run(place.parent / "day-2.zarr").table(key), reference=table)
    with pytest.raises(es.DamageError, match=pattern):
        table.rows_of([0] if key == "items" else ["u0"])


def test_equal_ids_of_a_tampered_run_are_no_shortcut(place: Path) -> None:
    """Files of ids that are equal byte for byte are not read; whether they were published is asked
    all the same.
    """
    new = place.parent / "day-2.zarr"
    for folder in (new, head(place)):
        exchange(*(chunk_file(folder, "items", n, "id") for n in (1, 2)))
    with pytest.raises(es.DamageError, match=r"items/id/c/1.* is not the chunk that was published"):
        es.fit(es.open_run(new), reference=es.Series(place).open())


def test_a_transform_is_the_one_that_was_published(place: Path) -> None:
    file = head(place) / "transform" / "items" / "c" / "0" / "0"
    values = np.frombuffer(file.read_bytes()[:-4], np.float64).copy()
    values[0] += 1
    file.write_bytes(values.tobytes() + bytes(4))
    mend(file)
    series = es.Series(place)
    for ask in (lambda: series.open().transform, series.transform_for):
        with pytest.raises(
            es.DamageError, match=r"transform/items/c/0/0.* is not the chunk that was published"
        ):
            ask()


def reshaped(**changes: Any) -> Damage:
    """Other metadata, in the array's own file and in the copy of the run's."""

    def damage(place: Path) -> None:
        for file, where in (
            (head(place) / "items/vectors/zarr.json", ()),
            (head(place) / "zarr.json", CONSOLIDATED),
        ):
            values = json.loads(file.read_text())
            part = values
            for name in where:
                part = part[name]
            part.update(changes)
            file.write_text(json.dumps(values))

    return damage


CONSOLIDATED = ("consolidated_metadata", "metadata", "items/vectors")
AT_OPENING: dict[str, tuple[Damage, str]] = {
    "shrunk": (reshaped(shape=[48, D]), "zarr.json is not what was published"),
    "of another fill": (reshaped(fill_value=0.0), "zarr.json is not what was published"),
    "a name": (
        lambda p: edit(head(p) / "zarr.json", "day-1", "day-7"),
        "zarr.json is not what was published",
    ),
    "a figure": (
        lambda p: edit(head(p) / "transform/zarr.json", '"rank": 4', '"rank": 3'),
        "is not what was published",
    ),
    "no metadata": (
        lambda p: (head(p) / "users/id/zarr.json").unlink(),
        "users/id/zarr.json is missing",
    ),
    "no chunk": (
        lambda p: chunk_file(head(p), "users", 3).unlink(),
        "users/vectors/c/3/0 is missing",
    ),
    "no ids": (lambda p: chunk_file(head(p), "items", 3, "id").unlink(), "items/id/c/3 is missing"),
    "a cut chunk": (
        lambda p: os.truncate(chunk_file(head(p), "items", 0), 99),
        "should have 516 bytes and has 99",
    ),
    "no digests": (
        lambda p: next((p / "digests").glob("day-1.*")).unlink(),
        "digests/day-1.* is missing",
    ),
    "other digests": (
        lambda p: edit(next((p / "digests").glob("day-1.*")), "inputs", "inputz"),
        "fails its checksum",
    ),
}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("what", AT_OPENING)
def test_opening_compares_metadata_and_sizes(place: Path, what: str) -> None:
    damage, says = AT_OPENING[what]
    damage(place)
    series = es.Series(place)
    with pytest.raises(es.DamageError, match=f"version 2 cannot be opened: .*{says}"):
        series.open()
    assert series.head().run == "day-1", "the log is whole"
    assert series.open(1).items.n_rows == 60, "and so are other runs"
    with pytest.raises(es.DamageError, match=says):
        series.add(place.parent / "day-2.zarr")
    assert series.verify().damage


@pytest.mark.parametrize("array", ["vectors", "weight"])
def test_a_running_reference_is_the_one_that_was_published(place: Path, array: str) -> None:
    """Exchanged chunks, and weights with a mended checksum, moved what was published next
    by 0.2 %.
    """
    reference = place / "references" / "day-1.zarr"
    if array == "vectors":
        exchange(*(chunk_file(reference, "items", n) for n in (1, 2)))
    else:
        file = chunk_file(reference, "items", 2, "weight")
        file.write_bytes((np.frombuffer(file.read_bytes()[:-4]) * 2).tobytes() + bytes(4))
        mend(file)
    series = es.Series(place)
    with pytest.raises(
        es.DamageError, match=rf"items/{array}/c/[12].* is not the chunk that was published"
    ):
        series.add(place.parent / "day-2.zarr", accept="they are of unrelated worlds")
    assert series.log().versions[-1].version == 2
    assert series.open().items.n_rows == 60


def test_foreign_files_in_a_run_are_nobody_s(place: Path) -> None:
    for folder in (head(place), head(place) / "items/vectors/c", head(place) / "items/vectors/c/1"):
        (folder / ".DS_Store").write_bytes(b"a foreign one")
    series = es.Series(place)
    assert series.open().items.vectors.compute().shape == (60, D)
    assert not series.verify().damage
    assert "runs/day-1.zarr/.DS_Store" not in series.manifest()["files"]


def test_a_store_with_recorded_digests_is_small_to_send(place: Path) -> None:
    run = es.Series(place).open()
    store = run.group.store
    assert isinstance(store, RunStore)
    assert len(pickle.dumps(store)) < 1000
    again = pickle.loads(pickle.dumps(store)).with_read_only(read_only=True)
    assert again.recorded == store.recorded
    version = es.Series(place).log().located(es.Series(place).head())
    assert isinstance(published_reference(es.Series(place).store, version).group.store, RunStore)
    assert isinstance(store.recorded, Recorded)
