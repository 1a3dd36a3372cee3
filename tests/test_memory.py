"""Whole-process peaks, measured from outside, against the projection and the promised 400 MB."""

from __future__ import annotations

import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from common import launched, new_ids, new_vectors
from zarr.codecs import Crc32cCodec, ZstdCodec

import dask_embstab as es
from dask_embstab import InputError
from dask_embstab.diagnose.projection import projected_peaks
from dask_embstab.passes.engine.memory import most_waiting
from dask_embstab.passes.engine.plan import FAN_IN

MB = 10**6


def peak_of(*arguments: object) -> int:
    """The peak of ``embstab`` with these arguments."""
    return launched(
        sys.executable, "-c", "from dask_embstab.cli.main import main; main()", *arguments
    )[1]


def base_of_the_program() -> int:
    """What a new process starts from, with whatever is imported where this runs."""
    code = (
        "import dask_embstab.api; from dask_embstab.passes.engine.memory import base_bytes as n;"
        " print(n())"
    )
    return int(launched(sys.executable, "-c", code)[0])


def stabilize(*arguments: object) -> int:
    return peak_of("stabilize", *arguments)


def make_run(
    path: Path, n: int, d: int, chunk_rows: int, *, codec: object = None, ids: bool = True
) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=3)
    rows = np.random.default_rng(0).standard_normal((min(chunk_rows, n), d)).astype(np.float32)
    for key in ("items", "users"):
        table = group.create_group(key)
        codecs = [codec or Crc32cCodec()]
        vectors = new_vectors(table, n, d, chunk_rows, codecs=codecs)
        for start in range(0, n, chunk_rows):
            vectors[start : start + chunk_rows] = rows[: n - start]
        if ids:
            new_ids(table, n, chunk_rows)[:] = np.arange(n)
    return path


SIZES = [
    (400_000, 64, 1 << 19),
    pytest.param(40_000, 768, 16384, marks=pytest.mark.long),
    pytest.param(6_000_000, 64, 1 << 22, marks=pytest.mark.long),
    pytest.param(8_000_000, 32, 1 << 19, marks=pytest.mark.long),
    pytest.param(200_000, 768, 21845, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("n", "d", "chunk_rows"), SIZES)
def test_peak_does_not_grow_with_table_or_chunk(
    tmp_path: Path, n: int, d: int, chunk_rows: int
) -> None:
    run = make_run(tmp_path / "a.zarr", n, d, chunk_rows)
    allowed = 400 * MB + (400 * d * d if d > 256 else 0)
    first = stabilize(run, tmp_path / "first.zarr")
    second = stabilize(run, tmp_path / "second.zarr", "--reference", tmp_path / "first.zarr")
    assert max(first, second) <= allowed


@pytest.mark.long
@pytest.mark.parametrize(("n", "d", "chunk_rows"), SIZES)
def test_peaks_are_near_the_projection(tmp_path: Path, n: int, d: int, chunk_rows: int) -> None:
    """The ratio of two peaks: on a machine that is at rest."""
    run = make_run(tmp_path / "a.zarr", n, d, chunk_rows)
    first = stabilize(run, tmp_path / "first.zarr")
    second = stabilize(run, tmp_path / "second.zarr", "--reference", tmp_path / "first.zarr")
    opened = es.open_run(run)
    tables = {key: opened.table(key) for key in ("items", "users")}
    projected = projected_peaks(tables, threads=2, base=base_of_the_program())
    for verb, peak in (("stabilize", first), ("stabilize_reference", second)):
        assert peak / 1.3 <= projected[verb] <= 1.3 * peak
    stabilize(run, tmp_path / "third.zarr", "--memory-limit", first)
    assert (tmp_path / "third.zarr").exists()  # a pass that fits is not refused


def test_the_compiler_of_the_kernel_is_projected_for_large_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its library takes 68 MiB of the process."""
    small, large = (
        es.table(zarr.create_array({}, shape=(n, 64), chunks=(1 << 16, 64), dtype="f4"))
        for n in (1 << 19, 1 << 21)
    )
    for is_there, least, most in ((True, 68 << 20, 80 << 20), (False, 0, 4 << 20)):
        monkeypatch.setattr(
            "dask_embstab.passes.engine.memory.is_installed", lambda there=is_there: there
        )
        a, b = (projected_peaks({"items": one}, threads=1, base=0) for one in (small, large))
        assert least <= b["fit"] - a["fit"] <= most


def test_peak_through_a_codec_is_bounded_by_chunks(tmp_path: Path) -> None:
    rows, d = 1 << 16, 64
    run = make_run(tmp_path / "a.zarr", 4 * rows, d, rows, codec=ZstdCodec(level=1))
    peak = stabilize(run, tmp_path / "out.zarr")
    assert peak <= 250 * MB + 2 * 3 * rows * d * 4


@pytest.mark.parametrize("n", [600_000, pytest.param(4_000_000, marks=pytest.mark.long)])
def test_a_join_in_random_order_keeps_to_its_memory(tmp_path: Path, n: int) -> None:
    """The ids alone would take 77 MB to join in memory and the reference's rows are 154 MB, of
    600,000.
    """
    run = make_run(tmp_path / "a.zarr", n, 64, 1 << 16)
    reference = make_run(tmp_path / "b.zarr", n, 64, 1 << 16)
    ids = zarr.open_group(reference)["items/id"]
    ids[:] = np.random.default_rng(0).permutation(n)  # type: ignore[index]
    arguments = [
        "fit",
        run,
        tmp_path / "t.npz",
        "--reference",
        reference,
        "--join-memory",
        "32MiB",
        "--scratch",
        tmp_path,
    ]
    assert peak_of(*arguments) <= 280 * MB
    diagnostics = es.Transform.load(tmp_path / "t.npz").diagnostics["items"]
    assert (diagnostics["paired_by"], diagnostics["vectors"], diagnostics["matched"]) == (
        "partitioned ids",
        "shuffle",
        n,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr", "t.npz"]


def test_what_cannot_fit_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.zarr", 5000, 16, 1000, ids=False)
    needs = pytest.raises(InputError, match=r"needs about .* limit is .*DASK_NUM_WORKERS")
    with dask.config.set({"embstab.memory-limit": "50MB"}), needs:
        es.stabilize(run, tmp_path / "out.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    with (
        dask.config.set({"embstab.memory-limit": "much"}),
        pytest.raises(InputError, match="like '400MB'"),
    ):
        es.fit(run)
    with dask.config.set({"embstab.memory-limit": "8GB"}):
        es.fit(run)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000])
def test_results_that_wait_in_a_tree_are_the_digits_of_a_count(n: int) -> None:
    def digits(count: int) -> int:
        return count and count % FAN_IN + digits(count // FAN_IN)

    assert max(digits(count) for count in range(n)) <= most_waiting(n) <= n
