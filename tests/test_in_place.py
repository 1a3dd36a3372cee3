"""Parquet, Arrow and npy files, and frames with an id column, stand wherever a table does: the same
matrices and rows as of the run that they become.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner
from oracle import world
from pyarrow import feather, parquet

import dask_embstab as es
from dask_embstab.cli.main import main

T, W = (rows.astype("float32") for rows in world(11))
T2, W2 = (rows.astype("float32") for rows in world(12))
ORDER = np.random.default_rng(2).permutation(len(T))


def columns(rows: Any, ids: Any, name: str = "id") -> pa.Table:
    return pa.table({name: pa.array(ids), "emb": pa.array(list(rows), pa.list_(pa.float32()))})


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Items (in another order, row groups of 17) and users of one model."""
    items, users = tmp_path / "items.parquet", tmp_path / "users.parquet"
    parquet.write_table(columns(T[ORDER], ORDER, "item_id"), items, row_group_size=17)
    parquet.write_table(columns(W, np.arange(len(W)), "user_id"), users)
    return items, users


@pytest.fixture
def reference(tmp_path: Path) -> es.Run:
    ids = {"item_ids": np.arange(len(T)), "user_ids": np.arange(len(W))}
    return es.create_run(tmp_path / "reference.zarr", T2, W2, **ids)


def test_fit_and_stabilize_give_what_the_run_gives(
    tmp_path: Path, files: tuple[Path, Path], reference: es.Run
) -> None:
    """Bit for bit, also where the reference is a file in another order."""
    items, users = files
    run = es.ingest(items, tmp_path / "run.zarr", users=users)
    expected = es.fit(run, reference=reference)
    fitted = es.fit(items, users, reference=reference)
    assert np.array_equal(fitted.items, expected.items)
    assert np.array_equal(fitted.users, expected.users)
    whole = es.stabilize(run, tmp_path / "a.zarr", reference=reference)
    out = es.stabilize({"items": items, "users": users}, tmp_path / "b.zarr", reference=reference)
    other = es.stabilize(items, tmp_path / "c.zarr", users=users, reference=reference)
    for key in ("items", "users"):
        rows = getattr(whole, key).vectors.compute()
        assert np.array_equal(getattr(out, key).vectors.compute(), rows)
        assert np.array_equal(getattr(other, key).vectors.compute(), rows)
    geometry = es.fit(T2, reference=es.table(T[ORDER]))
    assert np.array_equal(es.fit(es.table(T2, ids=ORDER), reference=items).items, geometry.items), (
        "a reference in a file, in the run's order"
    )
    shuffled = es.fit(es.table(T2, ids=np.arange(len(T))), reference=items)
    straight = es.fit(es.table(T2, ids=np.arange(len(T))), reference=run.items)
    assert np.allclose(shuffled.items, straight.items, rtol=0, atol=1e-12)


def test_every_verb_that_reads_takes_files(
    tmp_path: Path, files: tuple[Path, Path], reference: es.Run
) -> None:
    items, users = files
    run = es.ingest(items, tmp_path / "run.zarr", users=users)
    a = es.evaluate({"items": items, "users": users}, reference, k=5, users=20).to_dict()
    assert a["items"] == es.evaluate(run, reference, k=5, users=20).to_dict()["items"]
    assert es.evaluate(items, reference.items).items.matched == len(T)
    scores, ids = es.search(W[:3], items, 4)
    expected, known = es.search(W[:3], run, 4)
    assert np.array_equal(ids, known)
    assert np.array_equal(scores, expected)
    assert es.moments(items, reference=reference).matched == len(T)
    assert es.compress({"items": items}, tmp_path / "small.zarr").items.n_rows == len(T)
    copy = es.create_run(tmp_path / "copy.zarr", items, users)
    assert np.array_equal(copy.items.vectors.compute(), T[ORDER])


def test_npy_and_arrow_files_stand_for_tables(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", T)
    feather.write_feather(columns(T, np.arange(len(T))), tmp_path / "t.feather")
    expected = es.fit(es.table(T, ids=np.arange(len(T))), reference=T2).items
    assert np.array_equal(es.fit(tmp_path / "t.npy", reference=T2).items, expected)
    named = es.table(T2, ids=np.arange(len(T)))
    assert np.array_equal(es.fit(tmp_path / "t.feather", reference=named).items, expected)


def test_columns_of_files_are_named_in_place(files: tuple[Path, Path]) -> None:
    items, _ = files
    table = es.table(items, ids="item_id", vector="emb", where="item_id < 10", name="few")
    assert table.where == "few"
    assert sorted(table.ids.compute().tolist()) == list(range(10))
    assert np.array_equal(table.rows_of([7]), T[[7]])
    with pytest.raises(es.InputError, match="where= is about columns"):
        es.table(T, where="a = 1")
    with pytest.raises(es.InputError, match="no column 'key'; it has item_id"):
        es.table(items, ids="key")


def frames() -> dict[str, Any]:
    numbers = {f"c{j}": T[:, j] for j in range(T.shape[1])}
    wide = {"sku": [f"s{i}" for i in range(len(T))], "price": np.ones(len(T)), **numbers}
    relation = pd.DataFrame(wide)
    return {
        "pandas": pd.DataFrame(wide),
        "polars": pl.DataFrame(wide),
        "arrow": pa.table(wide),
        "duckdb": duckdb.connect().from_df(relation),
    }


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "duckdb"])
def test_frames_with_an_id_column_are_tables(tmp_path: Path, kind: str) -> None:
    table = es.table(frames()[kind], ids="sku", vector="c*")
    assert np.array_equal(np.asarray(table.vectors), T)
    assert table.ids.compute().tolist() == [f"s{i}" for i in range(len(T))]
    run = es.ingest(frames()[kind], tmp_path / "a.zarr", id="sku", vector="c*")
    assert np.array_equal(run.items.vectors.compute(), T)
    with pytest.raises(es.InputError, match="no column 'key'; it has sku, price, c0"):
        es.table(frames()[kind], ids="key")


def test_the_command_line_takes_files(
    tmp_path: Path, files: tuple[Path, Path], reference: es.Run
) -> None:
    items, users = map(str, files)
    out, place = str(tmp_path / "out.zarr"), str(reference.path)
    arguments = ["stabilize", items, out, "--users-source", users, "--reference", place, "--json"]
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 0, ended.output
    printed = json.loads(ended.stdout)
    assert (printed["items"]["matched"], printed["users"]["rows"]) == (len(T), len(W))
    saved = str(tmp_path / "t.npz")
    ended = CliRunner().invoke(main, ["fit", items, saved, "--users", users, "--reference", place])
    assert ended.exit_code == 0, ended.output
    assert np.array_equal(es.load_transform(saved).items, es.open_run(out).transform.items)
    ended = CliRunner().invoke(main, ["evaluate", items, place, "--json"])
    assert json.loads(ended.stdout)["items"]["matched"] == len(T)
