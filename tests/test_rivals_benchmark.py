"""The benchmark against others, at a small size and without Spark: everybody computes the same, and
nothing is left.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rivals
import zarr
from contestants import CONTESTANTS
from distributed import LocalCluster

import dask_embstab as es

WITHOUT_SPARK = ["embstab", "tsqr-1", "dask-1", "memmap", "zarr"]


@pytest.mark.long
def test_everybody_computes_the_same(tmp_path: Path) -> None:
    files = {kind: tmp_path / f"rivals.{kind}" for kind in ("markdown", "json", "picture")}
    sizes = ["--gb", "1e-3", "--small-gb", "5e-4", "--d", "8", "--repeats", "1"]
    arguments = [*sizes, "--dir", str(tmp_path)]
    places = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    chosen = ["--contestants", *WITHOUT_SPARK, "--jobs", "fit", "apply", "whole"]
    results = rivals.main([*arguments, *places, *chosen])
    rows = {(row["job"], row["name"]): row for row in results["rows"]}
    assert set(rows) == {
        *(("fit", name) for name in WITHOUT_SPARK),
        *(("apply", name) for name in ("embstab", "dask-1", "memmap", "zarr")),
        *(("whole", name) for name in ("embstab", "tsqr-1", "dask-1", "memmap")),
    }
    for (job, name), row in rows.items():
        assert row["peak"] > 5e7
        assert row["of ours"] == pytest.approx(row["seconds"] / rows[job, "embstab"]["seconds"])
        assert (row["off by"] is None) == (name == "zarr")
    assert "| NumPy memmap loop |" in files["markdown"].read_text()
    assert files["picture"].read_text().count("<rect") == 1 + len(rows)
    assert json.loads(files["json"].read_text()) == results
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "rivals.json",
        "rivals.markdown",
        "rivals.picture",
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", ["svd-compressed-1", "cubed", "jax", "tensorstore", "zarrs"])
def test_other_array_libraries_compute_the_same(tmp_path: Path, name: str) -> None:
    contestant = CONTESTANTS[name]
    for needed in contestant.needs:
        pytest.importorskip(needed, reason=f"a rival of the benchmark, {needed}, is not installed")
    sizes = ["--gb", "1e-3", "--small-gb", "5e-4", "--d", "8", "--repeats", "1"]
    arguments = [*sizes, "--dir", str(tmp_path), "--contestants", "embstab", name]
    rows = rivals.main([*arguments, "--jobs", "fit", "apply"])["rows"]
    assert {row["job"] for row in rows if row["name"] == name} == set(contestant.jobs)


@pytest.mark.long
def test_it_takes_a_table(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((400, 6)).astype("f4")
    run = es.create_run(tmp_path / "mine.zarr", rows, chunk_rows=100)
    arguments = [
        "--table",
        run.path,
        "--repeats",
        "1",
        "--contestants",
        "embstab",
        "memmap",
        "--jobs",
        "fit",
        "apply",
    ]
    results = rivals.main([*arguments, "--dir", str(tmp_path)])
    assert [(row["job"], row["name"], row["bytes"]) for row in results["rows"]] == [
        (job, name, rows.nbytes) for job in ("fit", "apply") for name in ("embstab", "memmap")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.zarr"]


@pytest.mark.long
def test_it_takes_a_bare_array_and_a_scheduler(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((400, 6)).astype("f4")
    place = tmp_path / "mine.zarr"
    array = zarr.create_array(place, shape=rows.shape, chunks=(100, 6), dtype="f4")
    array[:] = rows
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        arguments = [
            "--table",
            str(place),
            "--scheduler",
            cluster.scheduler_address,
            "--repeats",
            "1",
        ]
        chosen = ["--contestants", "embstab", "dask-1", "--jobs", "fit", "apply"]
        results = rivals.main([*arguments, *chosen, "--dir", str(tmp_path)])
    assert [(row["job"], row["name"]) for row in results["rows"]] == [
        (job, name) for job in ("fit", "apply") for name in ("embstab", "dask-1")
    ]


def test_easier_work_is_an_error() -> None:
    rows = [
        {"name": name, "job": "fit", "bytes": 8, "seconds": 1.0, "sample": [1.0, value]}
        for name, value in (("embstab", 0.5), ("dask", 0.501))
    ]
    with pytest.raises(RuntimeError, match=r"agree to 0\.0001; dask, fit is 1\.0e-03 off"):
        rivals.compare(rows)


def test_spark_is_left_out_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        rivals.importlib.util, "find_spec", lambda name: None if name == "pyspark" else name
    )
    assert list(rivals.taking_part(["memmap", "spark", "rowmatrix"])) == ["embstab", "memmap"]
    assert capsys.readouterr().err.startswith("left out: spark, rowmatrix; missing here: pyspark")
