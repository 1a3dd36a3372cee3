"""Routes, rank, width, geometry, selections, balance, inputs, bits and moments: what a fit
promises, line by line.
"""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from scipy.linalg import orthogonal_procrustes

import dask_embstab as es
from dask_embstab import ConditionError, EmbstabWarning, InputError

RNG = np.random.default_rng(5)
T, W = (
    RNG.normal(size=(400, 6)) @ RNG.normal(size=(6, 6)),
    RNG.normal(size=(300, 6)) @ RNG.normal(size=(6, 6)),
)
B = RNG.normal(size=(400, 6))
SCORES = W @ T.T


def hostile(kind: str) -> np.ndarray:
    """Tables that fool samplers: lone rows that alone carry a direction, sorted, clustered or spiky
    rows.
    """
    rng = np.random.default_rng(1)
    table = rng.normal(size=(20_000, 5))
    if kind == "lone":
        table[:, 4] = 0
        table[12_345, 4] = 1e-3
    elif kind == "sorted":
        table = np.sort(table, axis=0) @ rng.normal(size=(5, 5))
        table[:, 4] = table[:, 3] + 1e-5 * table[:, 4]
    elif kind == "clustered":
        table = np.repeat(table[:20], 1000, axis=0) + 1e-6 * table
        table[:, 1] = table[:, 0] + 1e-6 * rng.normal(size=20_000)
    else:
        table[::997] *= 1e6
        table[:, 2] = table[:, 1] * (1 + 1e-7 * rng.normal(size=20_000))
    return table


@pytest.mark.parametrize("kind", ["lone", "sorted", "clustered", "spiky"])
def test_auto_is_not_fooled(kind: str) -> None:
    table, users = hostile(kind), np.random.default_rng(2).normal(size=(500, 5))
    auto, qr = (
        es.fit(table, users, method=method, balance="gramians") for method in ("auto", "qr")
    )
    assert auto.diagnostics["rank"] == qr.diagnostics["rank"] == 5
    norms = np.linalg.norm(table, axis=0)
    true = np.linalg.cond(table / norms)
    stated = auto.diagnostics["items"]["condition"]
    assert true / 3 <= stated <= 3 * true
    # Small kappa times sqrt(n) rounding: both routes agree to what the certificates allow together.
    allowed = auto.diagnostics["items"]["certificate"] + qr.diagnostics["items"]["certificate"]
    ours, theirs = table @ auto.items, table @ qr.items
    errors = np.linalg.norm(ours - theirs, axis=0) / np.linalg.norm(theirs, axis=0)
    assert errors.max() <= max(allowed, 1e-12)


def test_the_gramian_refuses_what_it_cannot_hold_and_auto_escalates() -> None:
    Q = np.linalg.qr(RNG.normal(size=(200, 4)))[0]
    ill = Q * [1, 1, 1, 1e-7] @ np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    users = RNG.normal(size=(50, 4))
    with pytest.raises(ConditionError, match="condition number"):
        es.fit(ill, users, method="gram")
    assert es.fit(ill, users).diagnostics["items"]["route"] == "preconditioned"
    assert es.fit(ill, users).diagnostics["items"]["reads"] >= 2
    assert (
        es.fit(ill, users, method="qr").diagnostics["items"] | {"route": "qr", "reads": 1}
        == es.fit(ill, users, method="qr").diagnostics["items"]
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rank_is_seen_per_table_and_in_the_product(dtype: str) -> None:
    thin = (RNG.normal(size=(400, 3)) @ RNG.normal(size=(3, 6))).astype(dtype)
    transform = es.fit(thin, W.astype(dtype))
    assert transform.diagnostics["rank"] == transform.diagnostics["items"]["rank"] == 3
    assert transform.items.shape == (6, 6)
    assert not transform.items[:, 3:].any()
    scores = (W.astype(dtype) @ transform.users) @ (thin @ transform.items).T
    np.testing.assert_allclose(scores, W @ thin.T, atol=1e-5 * abs(W @ thin.T).max())
    both = np.zeros((100, 6)), np.zeros((90, 6))
    both[0][:, :4], both[1][:, 2:] = RNG.normal(size=(100, 4)), RNG.normal(size=(90, 4))
    assert es.fit(*both).diagnostics["rank"] == 2


def test_truncation_is_the_best_of_its_rank() -> None:
    s = np.linalg.svd(SCORES, compute_uv=False)[:6]
    transform = es.fit(T, W, rank=4)
    error = (W @ transform.users) @ (T @ transform.items).T - SCORES
    assert transform.width == 4
    np.testing.assert_allclose(np.linalg.norm(error, 2), s[4])
    np.testing.assert_allclose(np.linalg.norm(error), np.linalg.norm(s[4:]))
    np.testing.assert_allclose(transform.diagnostics["truncation"]["spectral_error"], s[4])
    np.testing.assert_allclose(
        transform.diagnostics["truncation"]["frobenius_error"], np.linalg.norm(s[4:])
    )


def test_width_never_loses_a_component_silently() -> None:
    assert es.fit(T, W, width=9).items.shape == (6, 9)
    with pytest.raises(InputError, match="rank of the run is 6 and the width has 5"):
        es.fit(T, W, width=5)
    with pytest.raises(InputError, match="6 and the reference has 4 components"):
        es.fit(T, W, reference=B[:, :4])
    assert es.fit(T, W, reference=B[:, :4], rank=4).items.shape == (6, 4)
    assert es.fit(T, W, reference=B[:, :4], width=6).items.shape == (6, 6)


@pytest.mark.parametrize("D", [4, 9])
def test_other_widths_are_aligned_by_padding_with_zeros(D: int) -> None:
    reference = RNG.normal(size=(400, D))
    width = max(6, D)
    padded_x, padded_y = (np.pad(X, ((0, 0), (0, width - X.shape[1]))) for X in (T, reference))
    transform = es.fit(T, reference=reference, keep="geometry", width=width)
    Q, _ = orthogonal_procrustes(padded_x, padded_y)
    error = np.linalg.norm(padded_x @ Q - padded_y)
    np.testing.assert_allclose(np.linalg.norm(T @ transform.items - padded_y), error)
    np.testing.assert_allclose(transform.diagnostics["alignment"]["error"], error)
    np.testing.assert_allclose(transform.items @ transform.items.T, np.eye(6), atol=1e-12)


def test_centring_moves_the_means() -> None:
    X, Y = T + 5, B - 3
    transform = es.fit(X, reference=Y, center=True)
    Q, _ = orthogonal_procrustes(X - X.mean(0), Y - Y.mean(0))
    np.testing.assert_allclose(
        transform.transform_items(X), (X - X.mean(0)) @ Q + Y.mean(0), atol=1e-10
    )
    alone = es.fit(X, center=True)
    np.testing.assert_allclose(alone.transform_items(X), X - X.mean(0), atol=1e-10)
    back = transform.compose(transform.inverse())
    np.testing.assert_allclose(back.transform_items(X), X, atol=1e-9)
    with pytest.raises(InputError, match="changes scores"):
        es.fit(T, W, reference=B, center=True)


def test_rotations_only_where_asked() -> None:
    mirrored = T * [-1, 1, 1, 1, 1, 1]
    free = es.fit(T, reference=mirrored)
    proper = es.fit(T, reference=mirrored, rotation_only=True)
    assert np.linalg.det(free.items) < 0 < np.linalg.det(proper.items)
    assert proper.diagnostics["alignment"]["determinant"] == 1
    wider = np.hstack([mirrored, mirrored[:, :2]])
    np.testing.assert_array_equal(
        es.fit(T, reference=wider, rotation_only=True).items, es.fit(T, reference=wider).items
    )
    assert (
        proper.diagnostics["alignment"]["bound"]
        is proper.diagnostics["alignment"]["nuclear_bound"]
        is None
    )
    assert "mirror" in proper.diagnostics["alignment"]["bound_reason"]
    unforced = es.fit(
        T, reference=-mirrored @ np.diag([1, 1, 1, 1, 1, -1]), rotation_only=True
    ).diagnostics["alignment"]
    assert unforced["error"] <= unforced["bound"]
    assert unforced["bound_reason"] is None
    with pytest.raises(InputError, match="sign convention"):
        es.fit(T, W, reference=B, rotation_only=True)


def test_too_few_pairs_name_the_free_directions() -> None:
    with pytest.warns(EmbstabWarning, match=r"determine 4 of 6 directions; 2 are free"):
        es.fit(T, reference=B[:4])


def test_both_tables_decide_one_rotation(tmp_path: Path) -> None:
    A = RNG.normal(size=(300, 6))
    reference = es.create_run(tmp_path / "r", B, A)
    transform = es.fit(T, W, reference=reference, keep="geometry", align_on="both")
    Q, _ = orthogonal_procrustes(np.vstack([T, W]), np.vstack([B, A]))
    np.testing.assert_allclose(transform.items, Q, atol=1e-10)
    users = es.fit(T, W, reference=reference, keep="geometry", align_on="users")
    np.testing.assert_allclose(users.items, orthogonal_procrustes(W, A)[0], atol=1e-10)


def test_weights_are_repetitions_in_the_alignment_alone(tmp_path: Path) -> None:
    weights = RNG.integers(0, 4, 400)
    expected, _ = orthogonal_procrustes(
        np.repeat(T, weights, axis=0), np.repeat(B, weights, axis=0)
    )
    stored = zarr.create_array(tmp_path / "w", shape=(400,), chunks=(100,), dtype="f8")
    stored[:] = weights
    for given in (
        weights,
        weights * 7.5,
        stored,
        da.from_array(weights, chunks=90),
        weights.tolist(),
    ):
        np.testing.assert_allclose(
            es.fit(T, reference=B, weights=given).items, expected, atol=1e-12
        )
    plain, weighted = es.fit(T, W, reference=B), es.fit(T, W, reference=B, weights=weights)
    np.testing.assert_allclose(
        plain.items @ plain.items.T, weighted.items @ weighted.items.T, atol=1e-10
    )
    assert not np.allclose(plain.items, weighted.items)
    norms = np.linalg.norm(B, axis=1)
    by_norm = orthogonal_procrustes(T * norms[:, None], B)[0]
    np.testing.assert_allclose(es.fit(T, reference=B, weights="norm").items, by_norm, atol=1e-12)
    for bad in (-1.0, np.nan):
        with pytest.raises(InputError, match="row 17"):
            es.fit(T, reference=B, weights=np.where(np.arange(400) == 17, bad, 1.0))


def test_unit_rows_and_selected_rows() -> None:
    def unit(X: np.ndarray) -> np.ndarray:
        return X / np.linalg.norm(X, axis=1, keepdims=True)

    transform = es.fit(T, reference=B, unit_rows=True)
    np.testing.assert_allclose(
        transform.items, orthogonal_procrustes(unit(T), unit(B))[0], atol=1e-12
    )
    assert transform.diagnostics["items"]["reads"] == 2
    only = orthogonal_procrustes(T[50:200], B[50:200])[0]
    np.testing.assert_allclose(
        es.fit(T, reference=B, only=np.arange(50, 200)).items, only, atol=1e-12
    )
    counts = np.where((np.arange(400) >= 50) & (np.arange(400) < 200), 9, 1)
    np.testing.assert_allclose(
        es.fit(T, reference=B, counts=counts, min_count=5).items, only, atol=1e-12
    )
    samples = [es.fit(T, reference=B, sample=100, seed=seed) for seed in (0, 0, 1)]
    assert (samples[0].items == samples[1].items).all()
    assert not np.allclose(samples[0].items, samples[2].items)
    assert samples[0].diagnostics["items"]["aligned"] == 100
    assert samples[0].diagnostics["items"]["matched"] == 400


def test_balance_by_rows_does_not_see_how_long_a_table_is() -> None:
    once, four = es.fit(T, W), es.fit(T, np.tile(W, (4, 1)))
    transformed = T @ once.items
    np.testing.assert_allclose(
        T @ four.items, transformed, rtol=0, atol=1e-12 * abs(transformed).max()
    )
    gramians = [es.fit(T, users, balance="gramians") for users in (W, W[:75])]
    ratio = np.linalg.norm(T @ gramians[1].items) / np.linalg.norm(T @ gramians[0].items)
    assert 0.6 < ratio < 0.8  # (1/4)^(1/4) = 0.71


def test_a_random_quarter_of_the_users_leaves_the_items_as_long(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    users = rng.normal(size=(8000, 6)) @ RNG.normal(size=(6, 6))
    whole = es.create_run(tmp_path / "a", T, users, user_ids=range(8000))
    kept = rng.permutation(8000)[:2000]
    quarter = es.create_run(tmp_path / "b", T, users[kept], user_ids=kept)
    for balance, expected in (("rows", 1.0), ("gramians", 0.25**0.25)):
        first, transformed = (
            es.stabilize(run, tmp_path / f"{run.path[-1]}-{balance}", balance=balance)  # type: ignore[arg-type]
            for run in (whole, quarter)
        )
        ratio = es.evaluate(first, transformed).items.norm_ratio
        # A second moment of 2000 rows is off by sqrt(2 / 2000), and a length by half of that.
        assert abs(ratio / expected - 1) < 3 * 0.5 * np.sqrt(2 / 2000)


def test_the_balance_of_the_reference_is_kept(tmp_path: Path) -> None:
    run = es.create_run(tmp_path / "a", T, W)
    first = es.stabilize(run, tmp_path / "b", balance="gramians")
    assert es.fit(run, reference=first).diagnostics["balance"] == "gramians"
    with pytest.warns(EmbstabWarning, match="made with 'gramians'"):
        es.fit(run, reference=first, balance="rows")


def test_inputs_as_they_come(tmp_path: Path) -> None:
    import xarray as xr

    run = es.create_run(tmp_path / "a", T, W, chunk_rows=64)
    wanted = es.fit(run)
    memory = np.memmap(tmp_path / "m", "f8", "w+", shape=T.shape)
    memory[:] = T
    lazy = xr.open_zarr(tmp_path / "a", group="items", chunks=None)["vectors"]
    for items in (
        T,
        T.T.copy().T,
        da.from_array(T, chunks=(64, 6)),
        memory,
        run.items.source.array,
        lazy,
        lazy.chunk(),
        run.items,
    ):
        fitted = es.fit(items, W)
        np.testing.assert_allclose(fitted.items, wanted.items, rtol=1e-9, atol=1e-12)
    unknown = da.from_array(T, chunks=(64, 6))
    unknown = unknown[unknown[:, 0] > 0]
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        es.fit(unknown, W)


def test_a_weight_matrix_is_read_as_its_transpose_without_a_copy(tmp_path: Path) -> None:
    """The last layer of a softmax model, d x n and larger than what the fit may hold."""
    weights = np.lib.format.open_memmap(tmp_path / "w.npy", "w+", "f4", (16, 400_000))
    weights[:] = np.random.default_rng(1).normal(size=weights.shape)
    outputs = np.random.default_rng(2).normal(size=(500, 16)).astype("f4")
    es.fit(weights[:, :100].T, outputs)
    tracemalloc.start()
    fitted = es.fit(weights.T, outputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < weights.nbytes / 2
    np.testing.assert_allclose(
        fitted.items, es.fit(np.ascontiguousarray(weights.T), outputs).items, rtol=1e-9
    )


STORED: dict[str, Any] = {
    "numpy": lambda bias, _: bias,
    "dask": lambda bias, _: da.from_array(bias, chunks=7),
    "zarr": lambda bias, path: zarr.create_array(path, data=bias, chunks=(50,), compressors=None),
    "compressed": lambda bias, path: zarr.create_array(path, data=bias, chunks=(50,)),
}


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("tables", ["numpy", "dask"])
def test_a_folded_bias_is_part_of_the_score(tmp_path: Path, form: str, tables: str) -> None:
    bias = RNG.normal(size=400)
    given = (
        (T, W) if tables == "numpy" else (da.from_array(table, chunks=(90, -1)) for table in (T, W))
    )
    items, users = es.fold_bias(*given, STORED[form](bias, tmp_path / "bias"))
    transform = es.fit(items, users)
    landed_items = np.column_stack([T, bias]) @ transform.items
    landed_users = np.column_stack([W, np.ones(300)]) @ transform.users
    np.testing.assert_allclose(landed_users @ landed_items.T, SCORES + bias, atol=1e-10)
    written = es.create_run(tmp_path / "a", items, users, item_ids=np.arange(400) + 7)
    np.testing.assert_array_equal(written.items.vectors, np.column_stack([T, bias]))
    np.testing.assert_array_equal(written.users.vectors, np.column_stack([W, np.ones(300)]))
    np.testing.assert_array_equal(written.items.rows_of([9, 7]), np.column_stack([T, bias])[[2, 0]])


@pytest.mark.parametrize("method", ["gram", "qr", "auto"])
def test_the_same_bits_on_any_scheduler_and_chunking(tmp_path: Path, method: Any) -> None:
    rng = np.random.default_rng(8)
    items, users = (
        rng.normal(size=(30_000, 48)).astype("f4"),
        rng.normal(size=(9_000, 48)).astype("f4"),
    )
    seen = []
    with dask.config.set({"embstab.task-bytes": 1}):
        for k, (chunk, scheduler) in enumerate(
            [(4096, "sync"), (8192, "threads"), (12288, "threads"), (4096, "processes")]
        ):
            if scheduler == "processes" and method != "auto":
                continue
            run = es.create_run(tmp_path / f"{k}", items, users, chunk_rows=chunk)
            with dask.config.set(scheduler=scheduler, num_workers=1 + k % 4):
                transformed = es.stabilize(run, tmp_path / f"{k}-out", method=method)
            transform = transformed.transform
            assert transform is not None
            digest = transform.diagnostics["items"]["moments_digest"]
            seen.append(
                (transform.items.tobytes(), digest, transformed.items.vectors.compute().tobytes())
            )
    assert len(set(seen)) == 1


def test_moments_are_a_product(tmp_path: Path) -> None:
    whole = es.moments(T, reference=B)
    parts = [es.moments(T[rows], reference=None) for rows in (slice(0, 150), slice(150, 400))]
    plain = es.moments(T)
    np.testing.assert_allclose((parts[0] + parts[1]).gramian, plain.gramian, atol=1e-9)
    np.testing.assert_allclose((plain - parts[0]).gramian, parts[1].gramian, atol=1e-9)
    whole.save(tmp_path / "m.npz")
    loaded = es.TableMoments.load(tmp_path / "m.npz")
    assert loaded.digest() == whole.digest()
    from_moments, from_tables = (
        es.fit(loaded, es.moments(W), method="gram"),
        es.fit(T, W, reference=B, method="gram"),
    )
    np.testing.assert_allclose(from_moments.items, from_tables.items, atol=1e-12)
    with pytest.raises(InputError, match="reference"):
        whole + plain
    with pytest.raises(InputError, match="d is 6"):
        plain + es.moments(T[:, :5])
    with pytest.raises(InputError, match="dtype"):
        plain + es.moments(T.astype("f4"))
    with pytest.raises(es.InputError, match="taken with another"):
        es.fit(whole, es.moments(W), reference=B + 1)
    assert (
        es.fit(whole, es.moments(W), reference=B, method="gram").diagnostics["items"]["matched"]
        == 400
    )
    with pytest.raises(InputError, match="rows that are there"):
        parts[0] - plain


def test_diagnostics_are_what_dense_arithmetic_says() -> None:
    transform = es.fit(T, W, reference=B)
    X, figures = T @ transform.items, transform.diagnostics["alignment"]
    np.testing.assert_allclose(figures["error"], np.linalg.norm(X - B))
    np.testing.assert_allclose(figures["relative_error"], np.linalg.norm(X - B) / np.linalg.norm(B))
    np.testing.assert_allclose(figures["gram_gap"], np.linalg.norm(X @ X.T - B @ B.T))
    nuclear = np.sqrt(np.linalg.norm(X @ X.T - B @ B.T, "nuc"))
    np.testing.assert_allclose(figures["nuclear_bound"], nuclear, rtol=1e-6)
    assert (
        figures["lower_bound"]
        <= figures["error"]
        <= min(figures["nuclear_bound"], figures["bound"])
    )
    np.testing.assert_allclose(sum(transform.diagnostics["explained_share"]), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert es.fit(T, W, reference=X).diagnostics["alignment"]["at_rounding"]
