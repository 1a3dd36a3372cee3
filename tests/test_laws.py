"""Laws over random tables and chunkings, against the plain NumPy oracle."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.linalg
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import (
    Array,
    align,
    align_signs,
    assert_close,
    draws,
    foreign_run,
    pairs_by_id,
    refactored,
    rotation,
    standardize,
    vectors_of,
    world,
)

import dask_embstab as es

pytestmark = pytest.mark.usefixtures("small_tasks")
seeds = st.integers(0, 10_000)
rows = st.integers(1, 100)
widths = st.integers(1, 7)


@st.composite
def chunked(draw: Any, array: Array) -> Any:
    """The same rows as a Dask array of random chunks, a Zarr array in memory, sharded or not, or as
    they are.
    """
    n, d = array.shape
    kind = draw(st.sampled_from(["dask", "zarr", "shards", "numpy"]))
    if kind == "dask":
        cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=6)))
        return da.from_array(array, chunks=(tuple(np.diff([0, *cuts, n]).tolist()), d))
    if kind == "numpy":
        return array
    size = draw(st.integers(1, n))
    shards = (size * draw(st.integers(1, 4)), d) if kind == "shards" else None
    return zarr.create_array(
        zarr.storage.MemoryStore(), data=array, chunks=(size, d), shards=shards
    )


def correlated(seed: int, T: Array, W: Array) -> Array:
    """Reference items that say enough about T to fix every direction of its rotation."""
    rng = np.random.default_rng(seed + 1)
    R = standardize(T, W, balance="rows").items
    return T @ R @ rotation(
        rng.normal(size=(T.shape[1],) * 2), np.eye(T.shape[1])
    ) + 0.05 * rng.normal(size=T.shape)


# --- the answer does not depend on the chunking


@given(data=st.data(), seed=seeds, d=widths)
def test_any_chunking_of_any_table_gives_the_oracle_s_answer(data: Any, seed: int, d: int) -> None:
    T, W = world(seed, 60, 90, d)
    B = correlated(seed, T, W)
    balance = data.draw(st.sampled_from(["rows", "gramians"]))
    transform = es.fit(
        data.draw(chunked(T)),
        data.draw(chunked(W)),
        reference=data.draw(chunked(B)),
        balance=balance,
        method="auto",
    )
    items, users = align(T, W, B, balance=balance)
    assert_close(T @ transform.items, items, 1e-9)
    assert_close(W @ transform.users, users, 1e-9)
    assert_close(transform.singular_values, standardize(T, W).s, 1e-10)
    assert_close(transform.diagnostics["alignment"]["error"], np.linalg.norm(items - B), 1e-6)


@given(data=st.data(), seed=seeds, d=widths, method=st.sampled_from(["auto", "gram", "qr"]))
def test_any_chunking_of_a_first_run_gives_the_oracle_s_frame(
    data: Any, seed: int, d: int, method: Any
) -> None:
    T, W = world(seed, 60, 90, d)
    transform = es.fit(data.draw(chunked(T)), data.draw(chunked(W)), method=method)
    frame = standardize(T, W, balance="rows")
    assert_close(align_signs(T @ transform.items, T @ frame.items), T @ frame.items, 1e-8)
    assert_close(align_signs(W @ transform.users, W @ frame.users), W @ frame.users, 1e-8)
    assert (transform.items[np.abs(transform.items).argmax(axis=0), np.arange(d)] > 0).all(), (
        "signs are fixed"
    )


@settings(max_examples=draws(5))
@given(sizes=st.tuples(rows, rows, rows, rows), seed=seeds)
def test_any_chunking_on_disk_gives_one_result(sizes: tuple[int, ...], seed: int) -> None:
    T, W = world(seed)
    B = correlated(seed, T, W)
    items, users = align(T, W, B)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        es.create_run(path / "b", B, chunk_rows=sizes[0])
        es.create_run(path / "in", T, W, chunk_rows=sizes[1])
        run = es.stabilize(path / "in", path / "out", reference=path / "b")
        assert run.items.chunk_rows == min(sizes[1], 60)
        assert_close(vectors_of(run), items, 1e-9)
        assert_close(vectors_of(run, "users"), users, 1e-9)


@settings(max_examples=draws(5))
@given(sizes=st.lists(st.sampled_from([16, 32, 48, 64]), min_size=4, max_size=4), seed=seeds)
def test_on_the_fixed_grid_the_bits_are_equal(sizes: list[int], seed: int) -> None:
    T, W = (table.astype(np.float32) for table in world(seed))
    B = T[::-1].copy()
    store = zarr.storage.MemoryStore

    def fitted(a: int, b: int, c: int) -> es.Transform:
        tables = [
            zarr.create_array(store(), data=t, chunks=(n, 4))
            for t, n in zip((T, W, B), (a, b, c), strict=True)
        ]
        return es.fit(tables[0], tables[1], reference=tables[2])

    one, other = fitted(*sizes[:3]), fitted(*sizes[1:])
    np.testing.assert_array_equal(one.items, other.items)
    np.testing.assert_array_equal(one.users, other.users)


def test_without_a_common_grid_the_answer_is_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dask_embstab.passes.engine.plan._MOST_BYTES", 0)
    T, W = world(8)
    path = foreign_run(tmp_path / "in", {"items": (T, None), "users": (W, None)}, chunk_rows=7)
    run = es.stabilize(path, tmp_path / "out", reference=T)
    assert_close(vectors_of(run), align(T, W, T)[0], 1e-10)


# --- scores and balance


@given(
    seed=seeds,
    d=widths,
    n=st.tuples(st.integers(10, 80), st.integers(10, 80)),
    reference=st.booleans(),
)
def test_scores_are_kept(seed: int, d: int, n: tuple[int, int], reference: bool) -> None:
    T, W = world(seed, *n, d)
    transform = es.fit(T, W, reference=T if reference else None, min_matched=1)
    assert_close((W @ transform.users) @ (T @ transform.items).T, W @ T.T, 1e-11)


@given(seed=seeds, d=widths, n=st.tuples(st.integers(10, 80), st.integers(10, 80)))
def test_both_tables_get_the_design_s_second_moments(seed: int, d: int, n: tuple[int, int]) -> None:
    T, W = world(seed, *n, d)
    s = np.diag(standardize(T, W).s)
    literal, per_row = es.fit(T, W, balance="gramians"), es.fit(T, W)
    assert (literal.diagnostics["balance"], per_row.diagnostics["balance"]) == ("gramians", "rows")
    for table, key in ((T, "items"), (W, "users")):
        X, Y = table @ getattr(literal, key), table @ getattr(per_row, key)
        assert_close(X.T @ X, s, 1e-9)
        assert_close(Y.T @ Y / len(table), s / np.sqrt(n[0] * n[1]), 1e-9)


def test_tables_of_equal_length_need_no_balance() -> None:
    T, W = world(4, 50, 50)
    assert_close(es.fit(T, W, balance="rows").items, es.fit(T, W, balance="gramians").items, 1e-15)


def test_balance_follows_the_reference_unless_it_is_given(tmp_path: Path) -> None:
    T, W = world(4)
    es.create_run(tmp_path / "in", T, W)
    es.stabilize(tmp_path / "in", tmp_path / "literal", balance="gramians")
    assert es.fit(T, W, reference=tmp_path / "literal").diagnostics["balance"] == "gramians"
    assert es.fit(T, W, reference=tmp_path / "in").diagnostics["balance"] == "rows"
    with pytest.warns(
        es.EmbstabWarning, match="'rows' was asked for and the reference was made with 'gramians'"
    ):
        assert (
            es.fit(T, W, reference=tmp_path / "literal", balance="rows").diagnostics["balance"]
            == "rows"
        )


@given(seed=seeds, rank=st.integers(1, 5))
def test_rank_keeps_the_best_scores_of_that_rank(seed: int, rank: int) -> None:
    T, W = world(seed, d=5)
    transform = es.fit(T, W, rank=rank)
    assert transform.items.shape == (5, rank)
    U, s, Vh = np.linalg.svd(W @ T.T, full_matrices=False)
    assert_close(
        (W @ transform.users) @ (T @ transform.items).T, U[:, :rank] * s[:rank] @ Vh[:rank], 1e-9
    )


# --- re-factored runs


@settings(max_examples=3)
@given(seed=seeds, d=st.integers(2, 6))
def test_refactored_scores_align_alike_by_the_previous_run_or_by_the_first(
    seed: int, d: int
) -> None:
    T, W = world(seed, d=d)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        es.create_run(path / "0", T, W, chunk_rows=16)
        first = es.stabilize(path / "0", path / "chain-0")
        for day in (1, 2):
            es.create_run(path / str(day), *refactored(T, W, seed + day), chunk_rows=16)
            chained = es.stabilize(
                path / str(day), path / f"chain-{day}", reference=path / f"chain-{day - 1}"
            )
            anchored = es.stabilize(
                path / str(day), path / f"anchor-{day}", reference=path / "chain-0"
            )
            for run, key in itertools.product((chained, anchored), ("items", "users")):
                assert_close(vectors_of(run, key), vectors_of(first, key), 1e-9)


# --- a transform as a thing of its own


@given(seed=seeds, d=widths, centred=st.booleans())
def test_inverse_and_compose_undo_each_other(seed: int, d: int, centred: bool) -> None:
    T, W = world(seed, d=d)
    options = {"keep": "geometry", "center": True} if centred else {"keep": "scores"}
    a = es.fit(T, W, reference=world(seed + 1, d=d)[0] + 3, **options)
    b = es.fit(*refactored(T, W, seed), reference=T)
    for table, land_by in ((T, "transform_items"), (W, "transform_users")):
        there = getattr(a, land_by)(table)
        assert_close(getattr(a.inverse(), land_by)(there), table, 1e-8)
        assert_close(getattr(a.compose(a.inverse()), land_by)(table), table, 1e-8)
        assert_close(getattr(a.compose(b), land_by)(table), getattr(b, land_by)(there), 1e-12)


def test_inverse_of_a_truncated_transform_is_the_pseudo_inverse() -> None:
    T, W = world(2)
    cut = es.fit(T, W, rank=2)
    assert_close(cut.inverse().items, np.linalg.pinv(cut.items), 1e-12)


@given(seed=seeds, d=widths, centred=st.booleans(), with_users=st.booleans())
def test_save_and_load_are_a_round_trip(seed: int, d: int, centred: bool, with_users: bool) -> None:
    T, W = world(seed, d=d)
    users, keep = (W, "geometry" if centred else "scores") if with_users else (None, None)
    made = es.fit(T, users, reference=T + 1, keep=keep, center=centred or not with_users)
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder) / "t.npz")
        assert [path.name for path in Path(folder).iterdir()] == ["t.npz"]
        read = es.Transform.load(Path(folder) / "t.npz")
    for name in ("items", "users", "singular_values", "items_offset", "users_offset"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
    assert read.diagnostics == made.diagnostics


@settings(max_examples=draws(5))
@given(seed=seeds, dtype=st.sampled_from(["float16", "float32", "float64"]), centred=st.booleans())
def test_rows_are_transformed_as_apply_transforms_them(
    seed: int, dtype: str, centred: bool
) -> None:
    T, W = (table.astype(dtype) for table in world(seed))
    options: dict[str, Any] = {"keep": "geometry", "center": True} if centred else {}
    transform = es.fit(T, W, reference=T[::-1].copy(), **options)
    with tempfile.TemporaryDirectory() as folder:
        es.create_run(Path(folder) / "in", T, W, chunk_rows=16)
        run = es.apply(transform, Path(folder) / "in", Path(folder) / "out")
        items, users = vectors_of(run), vectors_of(run, "users")
    assert transform.transform_items(T).dtype == np.dtype(dtype)
    tolerance = 4 * np.finfo(dtype).eps
    assert_close(transform.transform_items(T), items, tolerance)
    assert_close(transform.transform_users(W), users, tolerance)
    assert_close(np.stack([transform.transform_items(row) for row in T]), items, tolerance)


# --- geometry


@given(seed=seeds, d=widths, data=st.data())
def test_geometry_is_scipy_s_orthogonal_procrustes_and_keeps_all_cosines(
    seed: int, d: int, data: Any
) -> None:
    T, W = world(seed, d=d)
    B = (
        T @ scipy.linalg.orth(np.random.default_rng(seed).normal(size=(d, d)))
        + 0.1 * world(seed + 1, d=d)[0]
    )
    transform = es.fit(data.draw(chunked(T)), reference=data.draw(chunked(B)))
    Q, _ = scipy.linalg.orthogonal_procrustes(T, B)
    assert transform.diagnostics["keep"] == "geometry"
    assert_close(transform.items, Q, 1e-8)
    transformed = T @ transform.items
    assert_close(transformed @ transformed.T, T @ T.T, 1e-12)
    assert transform.users is None
    both = es.fit(T, W, reference=B, keep="geometry")
    assert_close(both.users, Q, 1e-8)
    assert_close((W @ both.users) @ (T @ both.items).T, W @ T.T, 1e-12)


@pytest.mark.parametrize("align_on", ["items", "users", "both"])
def test_the_rotation_is_that_of_the_tables_it_is_aligned_on(tmp_path: Path, align_on: Any) -> None:
    (T, W), (B, A) = world(5), world(6)
    es.create_run(tmp_path / "reference", B, A)
    pair = {"items": (T, B), "users": (W, A), "both": (np.vstack([T, W]), np.vstack([B, A]))}[
        align_on
    ]
    transform = es.fit(T, W, reference=tmp_path / "reference", keep="geometry", align_on=align_on)
    assert_close(transform.items, rotation(*pair), 1e-9)
    scored = es.fit(T, W, reference=tmp_path / "reference", align_on=align_on)
    M = standardize(T, W, balance="rows")
    x = {"items": T @ M.items, "users": W @ M.users, "both": np.vstack([T @ M.items, W @ M.users])}[
        align_on
    ]
    assert_close(T @ scored.items, T @ M.items @ rotation(x, pair[1]), 1e-8)


def test_centred_geometry_is_procrustes_about_the_means() -> None:
    (T, _), (B, _) = world(5), world(6)
    transform = es.fit(T + 4, reference=B - 7, center=True)
    Q = rotation(T - T.mean(axis=0), B - B.mean(axis=0))
    assert_close(transform.items, Q, 1e-9)
    assert_close(
        transform.transform_items(T + 4), (T - T.mean(axis=0)) @ Q + (B - 7).mean(axis=0), 1e-11
    )


def test_a_narrower_table_is_zero_padded() -> None:
    (T, W), (B, _) = world(5, d=3), world(6, d=5)
    transform = es.fit(T, reference=B)
    assert_close(transform.items, rotation(T, B), 1e-9)
    assert es.fit(T, W, reference=B).items.shape == (3, 5)


def test_weights_are_rows_repeated() -> None:
    (T, W), (B, _) = world(5), world(6)
    times = np.random.default_rng(0).integers(1, 4, len(T))
    M = standardize(T, W, balance="rows").items
    Q = rotation(np.repeat(T @ M, times, axis=0), np.repeat(B, times, axis=0))
    assert_close(T @ es.fit(T, W, reference=B, weights=times).items, T @ M @ Q, 1e-8)


@settings(max_examples=draws(5))
@given(seed=seeds, shared=st.integers(8, 60))
def test_pairs_by_id_align_as_the_oracle_does(seed: int, shared: int) -> None:
    T, W = world(seed)
    B = correlated(seed, T, W)
    rng = np.random.default_rng(seed)
    mine, theirs = rng.permutation(1000)[:60], rng.permutation(1000)[:60]
    theirs = np.setdiff1d(np.arange(1000, 2000), mine)[:60]
    theirs[rng.permutation(60)[:shared]] = rng.permutation(mine)[:shared]
    with tempfile.TemporaryDirectory() as folder:
        es.create_run(Path(folder) / "b", B, item_ids=theirs, chunk_rows=16)
        es.create_run(Path(folder) / "in", T, W, item_ids=mine, chunk_rows=16)
        transform = es.fit(Path(folder) / "in", reference=Path(folder) / "b", min_matched=8)
    pairs = pairs_by_id(mine, theirs)
    assert transform.diagnostics["items"]["matched"] == shared == len(pairs[0])
    assert_close(T @ transform.items, align(T, W, B, pairs)[0], 1e-6)
