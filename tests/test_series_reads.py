"""How often does an add read each row of each table? Counted where rows leave the disk."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import snapshot

import dask_embstab as es
from dask_embstab.series.publish import publish as publishing
from dask_embstab.series.publish.figures import figures_of
from dask_embstab.series.store import Folder
from dask_embstab.tables.read.stored.files import OpenChunk
from dask_embstab.tables.read.stored.gather import DirectGatherReader

N_ITEMS, N_USERS, D = 6000, 5000, 8
SAMPLE, OTHERS, SCORED = 4096, 256, 256
"""Rows that the gates look at, of tables that are longer: shared ones by the hash of their ids, and
ones to score.
"""
_VECTORS = re.compile(r"([^/]+)/([^/]+)\.zarr/(items|users)/vectors/c/")


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Rows by kind of group, run and table; of a chunk that is read for its checksum alone, too."""
    counted: Counter[str] = Counter()

    def count(path: str, n_bytes: int) -> None:
        if match := _VECTORS.search(path):
            counted["/".join(match.groups())] += n_bytes // (D * 4)

    read_into, take, blocks = OpenChunk.read_into, DirectGatherReader.take, Folder.blocks

    def reading(self: OpenChunk, target: memoryview, offset: int) -> None:
        count(self.path, len(target))
        read_into(self, target, offset)

    def taking(self: DirectGatherReader, start: int, stop: int) -> Any:
        selected = take(self, start, stop)
        count(f"{self._files.root}/c/", selected.nbytes)
        return selected

    def reading_blocks(self: Folder, key: str) -> Iterator[bytes]:
        for block in blocks(self, key):
            count(f"{self.root}/{key}", len(block))
            yield block

    monkeypatch.setattr(OpenChunk, "read_into", reading)
    monkeypatch.setattr(DirectGatherReader, "take", taking)
    monkeypatch.setattr(Folder, "blocks", reading_blocks)
    return counted


@pytest.fixture
def of_gates(rows_read: Counter[str], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Those of them that the gates alone have read."""
    ours: Counter[str] = Counter()

    def figures(*arguments: Any) -> Any:
        before = rows_read.copy()
        result = figures_of(*arguments)
        ours.update(rows_read - before)
        return result

    monkeypatch.setattr(publishing, "figures_of", figures)
    return ours


def week(folder: Path, number: int) -> es.Run:
    """A world that drifts, with the same ids every week: no join, so that a row is read where it is
    needed only.
    """
    noise = [np.random.default_rng((number, n)).normal(size=(n, D)) for n in (N_ITEMS, N_USERS)]
    world = [np.random.default_rng(n).normal(size=(n, D)) for n in (N_ITEMS, N_USERS)]
    tables = [(a + 0.1 * b).astype("f4") for a, b in zip(world, noise, strict=True)]
    ids = {"item_ids": np.arange(N_ITEMS), "user_ids": np.arange(N_USERS)}
    return es.create_run(folder / f"{number}.zarr", *tables, **ids, chunk_rows=1000)


def test_gaps_read_each_lagged_run_once_and_rewrite_nothing(
    tmp_path: Path, rows_read: Counter[str], of_gates: Counter[str]
) -> None:
    """One read of its aligned table, the head's too; what was published before has the same bytes
    afterwards.
    """
    (tmp_path / "in").mkdir()
    series = es.Series.init(tmp_path / "series", gaps=[1, 2, 9])
    for number in (1, 2, 3, 4):
        series.add(week(tmp_path / "in", number))
    published, run = snapshot(tmp_path / "series"), week(tmp_path / "in", 5)
    rows_read.clear()
    of_gates.clear()
    series.add(run)
    wanted = {
        "in/5": 3,
        "runs/5": 2,
        "references/4": 2,
        "references/5": 1,
        "runs/4": 1,
        "runs/3": 1,
        "runs/1": 1,
    }
    times = {f"{at}/items": n * N_ITEMS for at, n in wanted.items()} | {
        "in/5/users": 2 * N_USERS,
        "runs/5/users": N_USERS,
    }
    assert rows_read - of_gates == times
    after = snapshot(tmp_path / "series")
    assert {name: after.get(name) for name in published} == published


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (
            "consensus",
            {
                "in/3/items": 3,
                "runs/3/items": 2,
                "references/2/items": 2,
                "runs/2/items": 1,
                "references/3/items": 1,
            },
        ),
        ("previous", {"in/3/items": 2, "runs/3/items": 1, "runs/2/items": 1}),
    ],
)
def test_an_add_reads_every_row_as_often_as_it_says(
    tmp_path: Path,
    rows_read: Counter[str],
    of_gates: Counter[str],
    policy: str,
    wanted: dict[str, int],
) -> None:
    """As `Series.add` says it; the gates' share is the same whatever the policy, and however long
    the tables are.
    """
    (tmp_path / "in").mkdir()
    series = es.Series.init(tmp_path / "series", policy=policy)
    for number in (1, 2, 3):
        run = week(tmp_path / "in", number)
        rows_read.clear()
        of_gates.clear()
        series.add(run)
    read = {"runs/3": SAMPLE, "runs/2": SAMPLE + OTHERS}
    sampled = {f"{of}/{key}": n for of, n in read.items() for key in ("items", "users")}
    scored = {f"{of}/{key}": SCORED for of in ("runs/3", "in/3") for key in ("items", "users")}
    assert of_gates == Counter(sampled) + Counter(scored)
    times = wanted | {"runs/1/items": 1, "in/3/users": 2, "runs/3/users": 1}
    rows = {"items": N_ITEMS, "users": N_USERS}
    assert rows_read - of_gates == {
        key: n * rows[key.rpartition("/")[2]] for key, n in times.items()
    }
