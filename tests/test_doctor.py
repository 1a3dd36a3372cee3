"""The machine's report; kernels chosen before NumPy is imported; workers that are not like the
client.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from oracle import snapshot, world
from zarr.codecs import TransposeCodec, ZstdCodec

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.diagnose import projection
from dask_embstab.diagnose.projection import factorize_seconds
from dask_embstab.diagnose.rates import limits, measured, steps_of
from dask_embstab.passes.engine import cluster
from dask_embstab.passes.engine.plan import plan
from dask_embstab.tables import identity

T, W = world(7)
QUICK = ("--disk-bytes", "1MiB", "--seconds", "0.001", "--json")


def doctor(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *map(str, arguments), *QUICK])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    return dict(json.loads(out))


# --- the report


def test_it_projects_a_run_and_leaves_nothing(
    make_run: Callable[..., es.Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("a", T, W, dtype="float32")
    before = snapshot(tmp_path)
    report = doctor(capsys, run.path)
    assert snapshot(tmp_path) == before
    assert report["disk"]["folder"] == str(tmp_path)
    assert set(report["disk"]["GB/s"]) == {"read", "cold_read", "write", "durable_write"}
    assert report["machine"]["cores"] == os.cpu_count()
    assert report["blas"]["family"] == cluster.loaded_family()
    assert report["blas"]["libraries"][0]["library"] == "openblas"
    assert set(report["tables"]) == {"items", "users"}
    items = report["tables"]["items"]
    assert (items["rows"], items["components"], items["dtype"], items["bytes"]) == (
        60,
        4,
        "float32",
        60 * 4 * 4,
    )
    assert items["read"] == "by panels"
    projected = report["run"]
    assert projected["fits_page_cache"]
    seconds, peaks = projected["seconds"], projected["peak_bytes"]
    assert min(projected["start_seconds"].values()) >= 0
    assert seconds["stabilize"] == pytest.approx(seconds["fit"] + seconds["apply"])
    assert seconds["stabilize_reference"] == pytest.approx(
        seconds["fit_reference"] + seconds["apply"]
    )
    assert 0 < projected["factorize_seconds"]["first"] < seconds["fit"]
    assert projected["sampled_rows"]["items"] == {"fit": 60, "apply": 60, "fit_reference": 60}
    assert 0 < peaks["stabilize"] <= peaks["stabilize_reference"]
    assert peaks["stabilize"] == max(peaks["fit"], peaks["apply"])
    assert set(report["steps"]) == {"d = 4, float32"}


def test_it_takes_arrays_of_any_codec_and_no_path_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    for key, options in (
        ("items", {"compressors": [ZstdCodec()]}),
        ("users", {"filters": [TransposeCodec(order=(1, 0))]}),
    ):
        array = group.create_array(
            f"{key}/vectors", shape=(100, 8), chunks=(20, 8), dtype="f2", **options
        )
        array[:] = np.ones((100, 8))
    report = doctor(capsys, tmp_path / "a.zarr")
    items, users = report["tables"]["items"], report["tables"]["users"]
    assert (items["read"], items["dtype"], items["chunk_bytes"]) == ("by chunks", "float16", 320)
    assert (users["read"], users["chunk_bytes"]) == ("by Zarr", 320)
    report = doctor(capsys, "--components", "9")
    assert report["tables"] is None
    assert report["steps"]["d = 9, float32"]["limit GB/s"]["fit"] > 0


def test_a_path_with_nothing_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", str(tmp_path / "none"), *QUICK])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: there is nothing at")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_limit_is_below_every_step_it_needs(dtype: str) -> None:
    rates = {
        "read": 8.0,
        "crc": 7.0,
        "upcast": 6.0,
        "cast": 5.0,
        "syrk": 4.0,
        "gemm64": 3.0,
        "gemm32": 4.0,
        "write": 2.0,
    }
    for job, needs in steps_of(dtype).items():
        limit = limits(rates, dtype)[job]
        assert limit < min(rates[step] for step in needs)
        assert 1 / limit == pytest.approx(sum(1 / rates[step] for step in needs))
    assert ("upcast" in steps_of(dtype)["fit"]) == (dtype != "float64")
    assert ("gemm64" in steps_of(dtype)["apply"]) == (dtype == "float64")


def test_rates_are_medians_after_a_warm_up_and_products_their_best_panel() -> None:
    taken = iter([99.0, 99.0, 1.0, 7.0, 3.0, 9.0, 2.0, 8.0])
    rates_measured = measured({f"syrk {rows}": lambda: next(taken) for rows in (512, 1024)}, 3)
    assert rates_measured == {"syrk 512": 2.0, "syrk 1024": 8.0, "syrk": 8.0}


def test_a_pass_is_tried_on_more_rows_until_it_takes_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, tried, clock = 1 << 22, [0], [0.0]
    monkeypatch.setattr(projection.time, "perf_counter", lambda: clock[0])
    table = es.table(np.broadcast_to(np.float32(1), (rows, 64)))

    def job(heads: Any) -> Any:
        n_rows = sum(head.n_rows for head in heads.values())
        tried.append(n_rows)
        clock[0] += 0.25 + n_rows / 1e6
        return lambda: clock.__setitem__(0, clock[0] + 99)  # tidying up is not the job

    tables = {"items": table, "users": table}
    line = projection._line(job, tables, 1, 1.2)
    assert 2 * line.sampled["items"] == max(tried) < 2 * rows
    assert line.seconds(2 * rows) == pytest.approx(0.25 + 2 * rows / 1e6)
    whole = projection._line(job, tables, 1, 99.0)
    assert (whole.start, whole.fixed, whole.sampled) == (0.0, 0.0, {"items": rows, "users": rows})
    assert whole.seconds(2 * rows) == pytest.approx(0.25 + 2 * rows / 1e6)


def test_every_table_is_tried_in_its_own_share() -> None:
    """A pass over a small and a large table leaves threads idle as it will."""
    large, small = (
        es.table(
            zarr.create_array(zarr.storage.MemoryStore(), shape=(n, 4), chunks=(100, 4), dtype="f4")
        )
        for n in (1 << 20, 1 << 10)
    )
    heads = projection._heads({"items": large, "users": small}, 0.25)
    assert {key: head.n_rows for key, head in heads.items()} == {"items": 262_200, "users": 300}
    assert projection._heads({"items": large}, 1.0) == {"items": large}


@pytest.mark.parametrize("threads", [1, 2])
def test_of_very_many_chunks_a_few_are_tried_by_every_thread(threads: int) -> None:
    """A million chunks of 512 bytes; a task of the table itself has 32,768 of them."""
    table = es.table(
        zarr.create_array(
            zarr.storage.MemoryStore(), shape=(8_000_000, 16), chunks=(8, 16), dtype="f4"
        )
    )
    assert plan(table)[0].rows == 32_768 * 8
    tried: list[tuple[int, int]] = []
    projection._line(
        lambda heads: tried.append((heads["items"].n_rows, len(plan(heads["items"])[0]))),
        {"items": table},
        threads,
        0.0,
    )
    (rows_tried, tasks), *_ = tried
    assert rows_tried == threads * plan(table)[1].rows, "a panel each"
    assert tasks == threads


def test_the_files_of_inputs_are_looked_at_before_and_after_and_not_in_every_trial(
    make_run: Callable[..., es.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after all trials: of a million chunk files that takes seconds, however few rows
    are tried.
    """
    run, looked = make_run("a", T, W), []
    of = identity.identity_of
    monkeypatch.setattr(
        identity, "identity_of", lambda array: looked.append(array.path) or of(array)
    )
    tables = {key: run.table(key) for key in ("items", "users")}
    projected = projection.project_run(tables, tmp_path, threads=1, base=0, seconds=0.001)
    assert sorted(looked) == sorted(2 * list(set(looked))) != []
    assert projected["seconds"]["fit"] > 0


def test_the_work_on_small_matrices_goes_with_their_cube(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_for: list[int] = []

    def timed(_: Any, tables: Any, *__: Any) -> float:
        timed_for.append(tables["items"].d)
        return float(tables["items"].d)

    monkeypatch.setattr(projection, "_timed", timed)
    monkeypatch.setattr(projection, "_MEASURED_COMPONENTS", 128)
    monkeypatch.setattr(projection, "_REPEATED_COMPONENTS", 64)
    assert factorize_seconds(50, scores=True, aligned=False) == 50
    assert timed_for == [50] * 3
    assert factorize_seconds(1280, scores=True, aligned=True) == 128_000
    assert timed_for[3:] == [128], "what takes long is done once"
