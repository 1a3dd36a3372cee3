"""How often is a chunk read, and how many tasks does it take?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from oracle import align, assert_close, foreign_run, vectors_of, world

import dask_embstab as es
from dask_embstab.passes.engine.graph import progress
from dask_embstab.tables.read import direct
from dask_embstab.tables.read.stored import chunk_files, gather
from dask_embstab.tables.read.stored.chunk_files import ChunkFiles
from dask_embstab.tables.read.zarr_source import ZarrSource

pytestmark = pytest.mark.usefixtures("small_tasks")
T, W = world(21)
MakeRun = Callable[..., es.Run]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """Counts the chunks that are read, by array and number: chunk files that are opened, chunks
    that Zarr decodes.
    """
    counted: Counter[tuple[str, int]] = Counter()
    opened, decoded = chunk_files.open_chunk, ZarrSource.decode

    def open_chunk(files: ChunkFiles, chunk: int, *ahead: Any) -> Any:
        counted[files.root, chunk] += files.root.endswith("vectors")
        return opened(files, chunk, *ahead)

    def decode(self: ZarrSource, chunk: int) -> Any:
        counted[str(self.array.store_path), chunk] += 1
        return decoded(self, chunk)

    for reader in (direct, gather):
        monkeypatch.setattr(reader, "open_chunk", open_chunk)
    monkeypatch.setattr(ZarrSource, "decode", decode)
    return counted


def by_table(counted: Counter[tuple[str, int]]) -> dict[str, list[int]]:
    """Reads of every chunk that was read at all, by run and table."""
    tables: dict[str, list[int]] = {}
    for (path, _), n in sorted((+counted).items()):
        tables.setdefault("/".join(path.split("/")[-3:-1]), []).append(n)
    return tables


@pytest.fixture
def runs(make_run: MakeRun) -> tuple[es.Run, es.Run]:
    """A float32 reference and a run over the same ids, in the same order: 4 chunks of items and 6
    of users.
    """
    ids = {"item_ids": np.arange(60) * 2, "user_ids": np.arange(90) * 3}
    B, A = world(22)
    return make_run("reference", B, A, dtype="float32", **ids), make_run(
        "in", T, W, dtype="float32", **ids
    )


def test_a_fit_reads_every_chunk_once(
    runs: tuple[es.Run, es.Run], reads: Counter[tuple[str, int]]
) -> None:
    reference, run = runs
    fitted = es.fit(run, reference=reference)
    assert fitted.diagnostics["method"] == "gram"
    assert by_table(reads) == {
        "in.zarr/items": [1] * 4,
        "in.zarr/users": [1] * 6,
        "reference.zarr/items": [1] * 4,
    }
    assert fitted.diagnostics["items"]["reads"] == fitted.diagnostics["users"]["reads"] == 1


@pytest.mark.parametrize(("rows", "reference_rows"), [(32, 16), (48, 16), (16, 32), (32, 48)])
def test_a_reference_in_other_chunks_is_read_once_too(
    make_run: MakeRun, reads: Counter[tuple[str, int]], rows: int, reference_rows: int
) -> None:
    reference = make_run("reference", world(22)[0], chunk_rows=reference_rows)
    es.fit(make_run("in", T, W, chunk_rows=rows), reference=reference)
    assert {n for tables in by_table(reads).values() for n in tables} == {1}


@pytest.mark.parametrize("align_on", ["users", "both"])
def test_a_fit_reads_the_reference_tables_it_is_aligned_on(
    runs: tuple[es.Run, es.Run], reads: Counter[tuple[str, int]], align_on: Any
) -> None:
    es.fit(runs[1], reference=runs[0], align_on=align_on)
    wanted = {"in.zarr/items": [1] * 4, "in.zarr/users": [1] * 6, "reference.zarr/users": [1] * 6}
    assert by_table(reads) == wanted | (
        {"reference.zarr/items": [1] * 4} if align_on == "both" else {}
    )


def test_a_geometry_fit_reads_no_users(
    runs: tuple[es.Run, es.Run], reads: Counter[tuple[str, int]]
) -> None:
    es.fit(runs[1], reference=runs[0], keep="geometry")
    assert by_table(reads) == {"in.zarr/items": [1] * 4, "reference.zarr/items": [1] * 4}


def test_an_apply_reads_every_chunk_once(
    runs: tuple[es.Run, es.Run], reads: Counter[tuple[str, int]], tmp_path: Path
) -> None:
    transform = es.fit(runs[1], reference=runs[0])
    reads.clear()
    es.apply(transform, runs[1], tmp_path / "out.zarr")
    assert by_table(reads) == {"in.zarr/items": [1] * 4, "in.zarr/users": [1] * 6}


def test_stabilize_is_a_fit_and_an_apply(
    runs: tuple[es.Run, es.Run], reads: Counter[tuple[str, int]], tmp_path: Path
) -> None:
    es.stabilize(runs[1], tmp_path / "out.zarr", reference=runs[0])
    assert by_table(reads) == {
        "in.zarr/items": [2] * 4,
        "in.zarr/users": [2] * 6,
        "reference.zarr/items": [1] * 4,
    }


def test_opening_reads_nothing(
    runs: tuple[es.Run, es.Run], reads: Counter[tuple[str, int]]
) -> None:
    run = es.open_run(runs[1].path)
    assert (run.items.n_rows, run.items.vectors.shape, run.items.to_xarray().sizes["item"]) == (
        60,
        (60, 4),
        60,
    )
    assert not +reads


def test_a_join_in_any_order_reads_a_reference_chunk_at_most_once_per_task(
    make_run: MakeRun, reads: Counter[tuple[str, int]]
) -> None:
    order = np.random.default_rng(0).permutation(60)
    reference = make_run("reference", T, item_ids=np.arange(60))
    es.fit(make_run("in", T[order], W, item_ids=order), reference=reference)
    result = by_table(reads)
    assert (result["in.zarr/items"], result["in.zarr/users"]) == ([1] * 4, [1] * 6)
    assert max(result["reference.zarr/items"]) <= 4


def test_a_shard_is_one_read(tmp_path: Path, reads: Counter[tuple[str, int]]) -> None:
    path = foreign_run(
        tmp_path / "in.zarr", {"items": (T, None), "users": (W, None)}, chunk_rows=8, shards=(32, 4)
    )
    run = es.stabilize(path, tmp_path / "out.zarr")
    assert by_table(reads) == {"in.zarr/items": [2] * 2, "in.zarr/users": [2] * 3}
    assert run.items.chunk_rows == 32


def test_every_chunk_has_a_task_of_its_own(runs: tuple[es.Run, es.Run], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    with progress(lambda *event: seen.append(event)):
        es.stabilize(runs[1], tmp_path / "out.zarr", reference=runs[0])
    for label in ("fit: reading", "apply"):
        counts = [(done, total) for name, done, total in seen if name == label]
        assert {total for _, total in counts} == {10}
        assert [done for done, _ in counts][:: len(counts) - 1] == [0, 10]
        assert sorted(done for done, _ in counts) == [done for done, _ in counts]


def test_small_chunks_share_a_task(runs: tuple[es.Run, es.Run]) -> None:
    seen: list[int] = []
    with (
        dask.config.set({"embstab.task-bytes": 2**20}),
        progress(lambda *event: seen.append(event[2])),
    ):
        es.fit(runs[1])
    assert set(seen) == {2}


def test_what_is_refused_is_refused_before_a_chunk_is_read(
    runs: tuple[es.Run, es.Run], reads: Counter[tuple[str, int]]
) -> None:
    for out in (runs[0].path, f"{runs[1].path}/out"):
        with pytest.raises(es.InputError):
            es.stabilize(runs[1], out, reference=runs[0])
    with pytest.raises(es.InputError, match="align_on"):
        es.fit(runs[1], reference=runs[0], align_on="nothing")
    assert not +reads


@pytest.mark.parametrize("rows", [1, 7, 16, 30, 60, 1000])
def test_a_task_writes_whole_chunks_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Every chunk file of the output is put in its place once, whole: no task writes into a part of
    one.
    """
    foreign_run(tmp_path / "in.zarr", {"items": (T, None), "users": (W, None)}, chunk_rows=rows)
    written: Counter[str] = Counter()

    def noting(original: Any) -> Any:
        def rename(source: Any, target: Any, **more: Any) -> Any:
            written[str(target)] += 1
            return original(source, target, **more)

        return rename

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", noting(os.rename))
        patched.setattr(os, "replace", noting(os.replace))
        run = es.stabilize(tmp_path / "in.zarr", tmp_path / "out.zarr", reference=T)
    chunks = [n for target, n in written.items() if "vectors/c/" in target]
    assert chunks == [1] * (-(-60 // rows) + -(-90 // rows))
    assert_close(vectors_of(run), align(T, W, T)[0], 1e-9)


# --- evaluate


def test_evaluate_reads_matched_rows_once_and_items_once_more(
    runs: tuple[es.Run, es.Run], reads: Counter[tuple[str, int]]
) -> None:
    """And single rows: a few of the second run to compare with (its chunks, here), and the sampled
    user. Every pass tells its progress.
    """
    seen: list[str] = []
    with progress(lambda label, done, n_tasks: seen.append(label) if done == n_tasks else None):
        metrics = es.evaluate(*runs, k=5, users=1, groups=np.arange(60) % 3)
    assert metrics.rank_correlation is not None
    counted = by_table(reads)
    assert counted["reference.zarr/items"] == [1 + 1] * 4
    assert counted["in.zarr/items"] == [1 + 1 + 1] * 4
    assert sorted(counted["reference.zarr/users"]) == [1] * 5 + [1 + 1]
    assert sorted(counted["in.zarr/users"]) == [1 + 1] * 5 + [1 + 1 + 1]
    steps = ("rows to compare with", "matched rows", "users", "rankings")
    assert set(seen) == {f"evaluate: {step}" for step in steps}
