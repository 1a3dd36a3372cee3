"""Every figure of `evaluate` against another implementation, or its definition written out."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, draws, rotation, world

import dask_embstab as es
from dask_embstab.core.metrics.estimates import QuantileSketch, estimate

MakeRun = Callable[..., es.Run]
N, D = 400, 6


def tables(seed: int = 0, n: int = N, noise: float = 0.4) -> tuple[Array, Array]:
    """Rows of two related tables with a mean and unequal components."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, D)) * np.linspace(2.0, 0.5, D) + 0.3
    return a, a @ np.diag(np.linspace(0.9, 1.2, D)) + noise * rng.normal(size=a.shape)


def cosines_of(a: Array, b: Array) -> Array:
    return np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def compared() -> tuple[Array, Array, Any]:
    a, b = tables()
    return a, b, es.evaluate(a, b, k=20).items


def test_cosines(compared: tuple[Array, Array, Any]) -> None:
    a, b, metrics = compared
    cosines = cosines_of(a, b)
    assert metrics.mean_cosine == pytest.approx(cosines.mean(), abs=1e-14)
    assert metrics.cosine.std == pytest.approx(cosines.std(), abs=1e-12)
    for percent, value in metrics.cosine.percentiles.items():
        exact = np.sort(1 - cosines)[int(np.ceil((100 - int(percent)) * N / 100)) - 1]
        assert 1 - value == pytest.approx(exact, rel=1e-3)
    histogram, _ = np.histogram(cosines, bins=100, range=(-1, 1))
    assert metrics.cosine.histogram == histogram.tolist()
    unit_a, unit_b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    every = unit_a @ unit_b.T
    chance = (every.sum() - np.trace(every)) / (N * (N - 1))
    assert metrics.cosine.chance == pytest.approx(chance)
    assert metrics.cosine.beyond_chance == pytest.approx((cosines.mean() - chance) / (1 - chance))
    turned = unit_a @ rotation(unit_a, unit_b)
    assert metrics.cosine.ceiling == pytest.approx(np.sum(turned * unit_b, axis=1).mean())
    assert [one.id for one in metrics.most_moved] == np.argsort(cosines)[:10].tolist()


def test_lengths(compared: tuple[Array, Array, Any]) -> None:
    a, b, metrics = compared
    lengths = [np.linalg.norm(rows, axis=1) for rows in (a, b)]
    medians = [np.quantile(side, 0.5, method="inverted_cdf") for side in lengths]
    assert metrics.norms.ratio_of_sums == pytest.approx(lengths[1].sum() / lengths[0].sum())
    assert metrics.norms.ratio_of_medians == pytest.approx(medians[1] / medians[0], rel=1e-3)


def test_components(compared: tuple[Array, Array, Any]) -> None:
    a, b, metrics = compared
    for k in range(D):
        expected = np.corrcoef(a[:, k], b[:, k])[0, 1]
        assert metrics.components.correlation[k] == pytest.approx(expected)
    np.testing.assert_allclose(metrics.components.share_a, (a**2).sum(0) / (a**2).sum())
    np.testing.assert_allclose(metrics.components.share_b, (b**2).sum(0) / (b**2).sum())


def test_linear_cka_is_that_of_centred_kernels(compared: tuple[Array, Array, Any]) -> None:
    """By scikit-learn's kernel centring, on the n x n kernels that the product never makes."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    a, b, metrics = compared
    K, L = (preprocessing.KernelCenterer().fit_transform(rows @ rows.T) for rows in (a, b))
    assert metrics.cka == pytest.approx(np.sum(K * L) / np.linalg.norm(K) / np.linalg.norm(L))
    turned = 3 * a @ np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0] + 5
    assert es.evaluate(a, turned).items.cka == pytest.approx(1)


def test_the_alignment_error_is_that_of_the_rows(compared: tuple[Array, Array, Any]) -> None:
    a, b, metrics = compared
    assert metrics.alignment.error == pytest.approx(np.linalg.norm(a - b))
    assert metrics.alignment.gram_gap == pytest.approx(np.linalg.norm(a @ a.T - b @ b.T))
    turned = a @ rotation(a, b)
    bounded = es.evaluate(turned, b).items.alignment
    assert bounded.lower_bound <= bounded.error <= bounded.nuclear_bound <= bounded.bound


def test_unrelated_rows_are_at_chance_and_equal_ones_agree() -> None:
    a, _ = tables(0, 3000)
    other, _ = tables(1, 3000)
    unrelated, same = es.evaluate(a, other, k=10), es.evaluate(a, a, k=10)
    assert abs(unrelated.items.cosine.beyond_chance) < 0.05
    assert unrelated.items.cosine.share_at_chance > 0.8
    assert unrelated.retrieval.stale_queries.recall[10].mean < 0.02
    assert (same.items.mean_cosine, same.items.cka) == (pytest.approx(1), pytest.approx(1))
    assert same.items.cosine.share_at_chance == 0
    for result in (
        same.retrieval.stale_queries,
        same.retrieval.stale_table,
        same.retrieval.retrained,
    ):
        assert all(one.mean == 1 for one in result.recall.values())
        assert result.rbo.mean == pytest.approx(1)


# --- retrieval


def best(queries: Array, rows: Array, k: int, own: Any = None) -> Array:
    scores = queries @ rows.T
    if own is not None:
        scores[np.arange(len(queries)), own] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def recall(ranked: Array, wanted: Array, k: int) -> Array:
    shared = [len(set(a) & set(b)) for a, b in zip(ranked[:, :k], wanted[:, :k], strict=True)]
    return np.array(shared) / k


@pytest.mark.usefixtures("small_tasks")
def test_recall_of_stale_queries_and_its_groups(make_run: MakeRun) -> None:
    (T, W), (U, V) = world(0), world(1)
    items, users = (T, T + 0.4 * U), (W, W + 0.4 * V)
    markets = np.array(["north", "south", "east"])[np.arange(90) % 3]
    metrics = es.evaluate(
        *(make_run(f"{i}", items[i], users[i]) for i in (0, 1)), k=10, groups={"users": markets}
    ).retrieval
    assert (metrics.queries, metrics.metric, metrics.sampled) == ("users", "dot", 90)
    lists = [[best(users[q], items[t], 10) for q in (0, 1)] for t in (0, 1)]
    for k in (1, 5, 10):
        stale = recall(lists[1][0], lists[1][1], k)
        assert metrics.stale_queries.recall[k].mean == pytest.approx(stale.mean())
        for name in ("north", "south", "east"):
            grouped = metrics.stale_queries.groups[name].recall[k].mean
            assert grouped == pytest.approx(stale[markets == name].mean())
        mirrored = recall(lists[0][1], lists[0][0], k).mean()
        assert metrics.stale_table.recall[k].mean == pytest.approx(mirrored)
        own = recall(lists[0][0], lists[1][1], k).mean()
        assert metrics.retrained.recall[k].mean == pytest.approx(own)


@pytest.mark.parametrize("metric", [None, "dot"])
def test_without_users_neighbours_of_one_id_are_compared(metric: Any) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    a, b = tables(3, 120)
    shuffled = np.random.default_rng(0).permutation(120)
    ids = np.arange(120) + 1000
    metrics = es.evaluate(
        es.table(a, ids=ids), es.table(b[shuffled], ids=ids[shuffled]), k=7, metric=metric
    ).retrieval
    assert (metrics.queries, metrics.metric) == ("items", metric or "cosine")
    if metric is None:
        sides = [
            neighbors.NearestNeighbors(n_neighbors=8, metric="cosine")
            .fit(rows)
            .kneighbors(rows, return_distance=False)[:, 1:]
            for rows in (a, b)
        ]
    else:
        sides = [best(rows, rows.copy(), 7, np.arange(120)) for rows in (a, b)]
    assert metrics.retrained.recall[7].mean == pytest.approx(recall(*sides, 7).mean())


# --- judgments


@pytest.fixture(scope="module")
def judged_runs() -> tuple[Any, Any, pd.DataFrame]:
    rng = np.random.default_rng(5)
    T, W = rng.normal(size=(150, 5)), rng.normal(size=(30, 5))
    runs = [
        {
            "items": es.table(T + e * rng.normal(size=T.shape), ids=[f"d{i}" for i in range(150)]),
            "users": es.table(W, ids=[f"q{i}" for i in range(30)]),
        }
        for e in (0.0, 0.5)
    ]
    scores = W @ T.T + rng.normal(size=(30, 150))
    rows = [
        (f"q{q}", f"d{d}", int(rng.integers(0, 4)))
        for q in range(30)
        for d in np.argsort(-scores[q])[: rng.integers(1, 12)]
    ]
    rows += [("q3", "d999", 2), ("unknown", "d1", 1)]
    return *runs, pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])


def test_judged_figures_are_those_of_ir_measures(judged_runs: tuple[Any, Any, Any]) -> None:
    ir = pytest.importorskip("ir_measures")
    a, b, qrels = judged_runs
    metrics = es.evaluate(a, b, k=20, judgments=qrels).judged
    relevant = qrels[qrels.relevance > 0].query_id.unique()
    kept = qrels[qrels.query_id.isin(relevant) & (qrels.query_id != "unknown")]
    assert (metrics.queries, metrics.unknown_queries) == (kept.query_id.nunique(), 1)
    assert metrics.missing_a == 1
    measures = {
        "ndcg": ir.nDCG @ 10,
        "recall": ir.R @ 10,
        "precision": ir.P @ 10,
        "mrr": ir.RR @ 10,
    }
    for name, (queries, items) in {
        "b": (b, b),
        "stale_queries": (a, b),
        "stale_table": (b, a),
    }.items():
        users, rows = queries["users"].vectors.compute(), items["items"].vectors.compute()
        run = {
            f"q{q}": {f"d{d}": float(s) for d, s in enumerate(users[q] @ rows.T)}
            for q in range(30)
            if f"q{q}" in set(kept.query_id)
        }
        run = {q: dict(sorted(s.items(), key=lambda one: -one[1])[:20]) for q, s in run.items()}
        expected = ir.calc_aggregate(list(measures.values()), kept, run)
        for metric, measure in measures.items():
            mean = getattr(getattr(metrics, name), metric)[10].mean
            assert mean == pytest.approx(expected[measure]), (name, metric)


def test_judgments_come_in_many_forms(judged_runs: tuple[Any, Any, Any], tmp_path: Path) -> None:
    a, b, qrels = judged_runs
    nested: dict[str, dict[str, int]] = {}
    for query, item, grade in qrels.itertuples(index=False):
        nested.setdefault(query, {})[item] = grade
    qrels.to_csv(tmp_path / "j.csv", index=False)
    qrels.to_csv(tmp_path / "j.tsv", index=False, sep="\t")
    qrels.to_parquet(tmp_path / "j.parquet")
    lines = (f"{q} 0 {d} {g}" for q, d, g in qrels.itertuples(index=False))
    (tmp_path / "j.qrels").write_text("\n".join(lines))
    forms: list[Any] = [
        nested,
        list(qrels.itertuples(index=False, name=None)),
        tuple(qrels[name].to_numpy() for name in qrels),
        *(tmp_path / f"j.{kind}" for kind in ("csv", "tsv", "parquet", "qrels")),
    ]
    expected = es.evaluate(a, b, k=10, judgments=qrels).judged
    for form in forms:
        assert es.evaluate(a, b, k=10, judgments=form).judged == expected


@pytest.mark.parametrize(
    ("judgments", "message"),
    [
        ([("q1", "d1", 1), ("q1", "d1", 2)], "judged once"),
        ([("q1", "d1", "good")], "finite numbers"),
        ([("q1", "d1", float("nan"))], "finite numbers"),
        ([("q1", "d1")], "triples"),
        ([("q1", "d1", 1), ("q1", "d2")], "triples"),
        ((["q1", "q2"], ["d1", "d2"], [1, 2, 3]), "triples"),
        (range(3), "triples"),
        ([], "triples"),
        ({"q1": 3}, "triples"),
        (7, "triples"),
        ("nowhere.csv", "cannot be read"),
        ("s3://bucket/j.csv", "local file"),
        ([("none", "d1", 1)], "must be in both runs"),
        ([("q1", "d1", 0)], "grade above 0"),
        ([(1, 2, 1)], "string"),
    ],
)
def test_bad_judgments_are_one_clear_error(
    judged_runs: tuple[Any, Any, Any], judgments: Any, message: str
) -> None:
    with pytest.raises(es.InputError, match=message):
        es.evaluate(*judged_runs[:2], judgments=judgments)


# --- groups


def test_figures_by_group_are_those_of_the_groups_rows() -> None:
    a, b = tables(4)
    age = np.random.default_rng(0).exponential(size=N)
    age[:7] = np.nan
    metrics = es.evaluate(a, b, k=5, groups=age).items
    cosines = cosines_of(a, b)
    edges = np.nanquantile(age, [0.25, 0.5, 0.75])
    codes = np.where(np.isnan(age), 4, np.searchsorted(edges, age, side="right"))
    assert list(metrics.groups)[-1] == "missing"
    for number, group in enumerate(metrics.groups.values()):
        own = cosines[codes == number]
        assert group.rows == len(own)
        assert group.mean_cosine == pytest.approx(own.mean())
        for name, share in (("p10_cosine", 0.1), ("median_cosine", 0.5)):
            exact = np.quantile(own, share, method="inverted_cdf")
            assert getattr(group, name) == pytest.approx(exact, abs=4e-3)
        lengths = [np.linalg.norm(x[codes == number], axis=1).sum() for x in (a, b)]
        assert group.norm_ratio == pytest.approx(lengths[1] / lengths[0])


def test_groups_come_in_many_forms(make_run: MakeRun, tmp_path: Path) -> None:
    a, b = tables(4, 60)
    ids = [f"i{k}" for k in range(60)]
    names = np.array(["new", "old"])[np.arange(60) % 2]
    runs = [make_run(f"{i}", rows, item_ids=ids) for i, rows in enumerate((a, b))]
    zarr.open_group(runs[0].path)["items"].create_array("kind", data=np.arange(60) % 2)
    shuffled = np.random.default_rng(0).permutation(60)
    labelled = pd.Series(names[shuffled], index=np.array(ids)[shuffled])
    labelled.rename("kind").rename_axis("id").reset_index().to_csv(tmp_path / "g.csv", index=False)
    np.save(tmp_path / "g.npy", names)
    for form in (names, list(names), labelled, tmp_path / "g.csv", str(tmp_path / "g.npy")):
        metrics = es.evaluate(*runs, k=5, groups=form).items.groups
        assert list(metrics) == ["new", "old"], form
        assert metrics["new"].mean_cosine == pytest.approx(cosines_of(a, b)[::2].mean())
    by_name = es.evaluate(runs[0].path, runs[1], k=5, groups="kind").items.groups
    assert list(by_name) == ["0", "1"]
    lazy = es.evaluate(*runs, k=5, groups=dask.array.from_array(names, chunks=7)).items.groups
    assert list(lazy) == ["new", "old"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.arange(59), "one value per row"),
        ([f"group {k}" for k in range(65)], "one value per row"),
        ({"users": np.arange(60)}, "by the name of a table"),
        ("nowhere", "no array stored"),
    ],
)
def test_bad_groups_are_one_clear_error(groups: Any, message: str) -> None:
    a, b = tables(4, 60)
    with pytest.raises(es.InputError, match=message):
        es.evaluate(a, b, groups=groups)


def test_too_many_texts_are_no_groups() -> None:
    a, b = tables(4, 64)
    assert len(es.evaluate(a, b, k=5, groups=[f"g{k}" for k in range(64)]).items.groups) == 64
    a, b = tables(4, 70)
    with pytest.raises(es.InputError, match="64 different values at most"):
        es.evaluate(a, b, groups=[f"g{k}" for k in range(70)])


# --- displacement


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("kind", ["zarr", "parquet"])
def test_every_displacement_is_written_by_id(make_run: MakeRun, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    a, b = tables(6, 60)
    a[3] = 0
    order = np.random.default_rng(0).permutation(60)
    ids = np.array([f"i{k}" for k in range(60)], object)
    runs = (
        make_run("a", a, a[:20], item_ids=ids),
        make_run("b", b[order][:50], b[:20], item_ids=ids[order][:50]),
    )
    place = tmp_path / f"moved.{kind}"
    metrics = es.evaluate(*runs, k=5, displacement=place)
    if kind == "zarr":
        opened = xr.open_zarr(place, group="items").load()
        read = pd.DataFrame({name: opened[name].to_numpy() for name in opened})
        assert opened["cosine"].dims == ("item",)
    else:
        read = pd.read_parquet(place / "table=items" / "part-0.parquet")
        assert len(pd.read_parquet(place / "table=users" / "part-0.parquet")) == 19
    kept = np.array([k for k in range(60) if k in set(order[:50]) and k != 3])
    assert read["id"].tolist() == ids[kept].tolist()
    assert len(read) == metrics.items.rows
    np.testing.assert_allclose(read["cosine"], cosines_of(a[kept], b[kept]))
    np.testing.assert_allclose(read["distance"], np.linalg.norm(a[kept] - b[kept], axis=1))
    np.testing.assert_allclose(read["norm_b"], np.linalg.norm(b[kept], axis=1))
    moved = [one.id for one in metrics.items.most_moved]
    assert moved == read.sort_values("cosine")["id"].tolist()[:10]
    assert es.evaluate(*runs, k=5, most_moved=0).items.most_moved == ()
    with pytest.raises(es.OutputExistsError, match="stands already"):
        es.evaluate(*runs, k=5, displacement=place)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("place", "message"), [("s3://bucket/x", "local place"), ("no/such/folder/x", "does not exist")]
)
def test_a_bad_place_of_displacements_is_refused_before_anything_is_read(
    place: str, message: str
) -> None:
    a, b = tables(6, 20)
    b[0] = np.nan
    with pytest.raises(es.InputError, match=message):
        es.evaluate(a, b, displacement=place)


# --- laws


@pytest.mark.usefixtures("small_tasks")
@settings(max_examples=2)
@given(chunks=st.integers(1, 6), scheduler=st.sampled_from(["sync", "threads"]))
def test_any_chunking_and_scheduler_gives_the_same_bits(
    tmp_path_factory: Any, chunks: int, scheduler: str
) -> None:
    (T, W), (U, V) = world(0, 150, 200), world(1, 150, 200)
    given_tables = ((T, W), (T + 0.3 * U, W + 0.3 * V))
    place = tmp_path_factory.mktemp("bits")
    groups = {"items": np.arange(150) % 3, "users": np.arange(200) % 2}

    def measured(name: str, rows: int) -> Any:
        runs = [
            es.create_run(place / f"{name}-{i}.zarr", *both, chunk_rows=rows)
            for i, both in enumerate(given_tables)
        ]
        return es.evaluate(*runs, k=9, users=50, groups=groups).to_dict()

    with dask.config.set(scheduler=scheduler):
        assert measured("cut", 16 * chunks) == measured("fine", 16)


def lazy_rows(n: int, seed: int) -> Any:
    """Rows that are made a block at a time."""

    def block(block_id: Any = None) -> Array:
        rng = np.random.default_rng([7, *block_id])
        rows = rng.normal(size=(20_000, 8)) + 0.1 * np.random.default_rng(seed).normal(size=8)
        return rows.astype(np.float32)

    chunks = ((20_000,) * (n // 20_000), (8,))
    return da.map_blocks(block, chunks=chunks, dtype=np.float32)


@pytest.mark.long
def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the rows, of which neither table nor any column of them is held."""
    monkeypatch.setattr("dask_embstab.passes.evaluate.ranked._SEED_ROWS", 1000)

    def peak(n: int) -> int:
        given_tables = lazy_rows(n, 0), lazy_rows(n, 1)
        tracemalloc.start()
        try:
            es.evaluate(*given_tables, k=10, users=20)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    with dask.config.set({"scheduler": "sync", "embstab.task-bytes": 1}):
        peak(20_000)
        assert peak(320_000) < 1.1 * peak(80_000)


def test_intervals_cover_the_mean_of_all_queries() -> None:
    """95 % intervals from samples of skewed values of a finite population; 300 seeded samples."""
    rng = np.random.default_rng(0)
    population = rng.beta(4.0, 1.0, 2000)
    truth, covered = population.mean(), 0
    for _ in range(300):
        estimated = estimate(rng.choice(population, 200, replace=False), len(population))
        covered += estimated.low <= truth <= estimated.high
    assert 0.91 < covered / 300 <= 0.985
    whole = estimate(population, len(population))
    assert (whole.low, whole.high) == (whole.mean, whole.mean)
    assert np.isnan(estimate(population[:1], 10).low)


def test_a_sampled_figure_is_within_its_interval_of_that_of_all(make_run: MakeRun) -> None:
    (T, W), (U, V) = world(0, 80, 600), world(1, 80, 600)
    runs = make_run("a", T, W), make_run("b", T + 0.4 * U, W + 0.4 * V)
    exact = es.evaluate(*runs, k=10, users=600)
    covered = 0
    for seed in range(8):
        metrics = es.evaluate(*runs, k=10, users=80, seed=seed)
        low, high = metrics.rank_correlation.intervals["rbo"]
        covered += low <= exact.rank_correlation.rbo <= high
        assert metrics.retrieval.sampled == 80
    assert covered >= 6


@settings(max_examples=draws(15))
@given(seed=st.integers(0, 999), n=st.integers(1, 300), cut=st.integers(0, 300))
def test_quantiles_of_a_sketch_are_those_of_the_values(seed: int, n: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(n) < 0.1, 0.0, rng.lognormal(sigma=3, size=n))
    shares = np.array([0.0, 0.01, 0.5, 0.9, 1.0])
    whole, parts = QuantileSketch.of(values), [values[:cut], values[cut:]]
    merged = QuantileSketch.of(parts[0]) + QuantileSketch.of(parts[1])
    np.testing.assert_array_equal(whole.quantiles(shares), merged.quantiles(shares))
    exact = np.quantile(values, shares, method="inverted_cdf")
    np.testing.assert_allclose(whole.quantiles(shares), exact, rtol=5e-4)


def test_plain_values_survive_json() -> None:
    a, b = tables(7, 50)
    values = es.evaluate(a, b, k=5, groups=np.arange(50) % 2).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert len(repr(es.evaluate(a, b, k=5))) < 300
