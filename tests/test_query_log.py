"""The user's own queries, ids or vectors, stand in place of random samples: in plans, comparisons,
reports and the gates of a series.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from oracle import Array

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.passes.join.queries import as_query_log

pa: Any = pytest.importorskip("pyarrow", reason="pyarrow is the extra parquet")
pq: Any = pytest.importorskip("pyarrow.parquet")

N, USERS, D, K = 120, 60, 4, 5
NAMES = [f"u{n}" for n in range(USERS)]
ASKED = ["u7", "u3", "u7", "u55", "u7"]
ROWS = [7, 3, 7, 55, 7]


def runs(folder: Path, *, users: bool = True) -> tuple[es.Run, es.Run]:
    """A model and its retraining: in other axes, and a little noise."""
    rng = np.random.default_rng(0)
    T, W = rng.normal(size=(N, D)), rng.normal(size=(USERS, D))
    A = rng.normal(size=(D, D))
    made = []
    for name, items, of_users in (
        ("old", T, W),
        ("new", (T + 0.3 * rng.normal(size=T.shape)) @ A, W @ np.linalg.inv(A).T),
    ):
        given: Any = {"user_ids": NAMES} if users else {}
        tables = (items, of_users) if users else (items,)
        made.append(es.create_run(folder / name, *tables, item_ids=np.arange(N) * 2, **given))
    return made[0], made[1]


def recall(queries: Array, fresh: Array, sent: Array, stale: Array, k: int) -> float:
    wanted, seen = (
        np.argsort(-q @ t.T, axis=1)[:, :k] for q, t in ((queries, fresh), (sent, stale))
    )
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(wanted, seen, strict=True)]))


def logs(folder: Path, vectors: Array) -> dict[str, Any]:
    """One log in every form, of ids and of vectors."""
    of_ids = pa.table({"at": pa.array(range(5)), "user_id": ASKED})
    pq.write_table(of_ids, folder / "ids.parquet", row_group_size=2)
    (folder / "ids.csv").write_text("user\n" + "\n".join(ASKED) + "\n")
    np.save(folder / "ids.npy", np.array(ASKED))
    np.save(folder / "vectors.npy", vectors)
    lists = pa.array(vectors.tolist(), pa.list_(pa.float64()))
    pq.write_table(pa.table({"query": ["a"] * 5, "vector": lists}), folder / "vectors.parquet")
    files = {name: str(folder / name) for name in ("ids.parquet", "ids.csv", "ids.npy")}
    files |= {name: str(folder / name) for name in ("vectors.npy", "vectors.parquet")}
    return {**files, "list": ASKED, "array": np.array(ASKED), "rows": vectors}


def test_a_plan_by_a_log_in_any_form_is_that_of_its_queries(tmp_path: Path) -> None:
    """Repeated ids count as often as they were asked."""
    old, new = runs(tmp_path)
    (T, W), (T2, W2) = (
        (np.asarray(run.items.vectors), np.asarray(run.users.vectors))  # type: ignore[union-attr]
        for run in (old, new)
    )
    del W
    expected = recall(W2[ROWS], T2, W2[ROWS], T, K)
    for name, log in logs(tmp_path, W2[ROWS]).items():
        plan = es.upgrade_plan(old, new, k=K, queries=log)
        assert plan.leave is not None
        assert plan.leave.mean == pytest.approx(expected), name
        kind = "log of vectors" if name.startswith("vectors") or name == "rows" else "log of ids"
        assert plan.asked == {"from": kind, "of": 5, "unknown": 0, "sampled": 5}
        assert plan.leave.low < plan.leave.mean  # a log stands for the queries to come


def test_ids_that_the_new_run_does_not_have_are_left_out_and_told(tmp_path: Path) -> None:
    old, new = runs(tmp_path)
    with pytest.warns(es.EmbstabWarning, match="2 of 5 queries"):
        plan = es.upgrade_plan(old, new, k=K, queries=["u7", "gone", "u3", "away", "u7"])
    assert plan.asked == {"from": "log of ids", "of": 5, "unknown": 2, "sampled": 3}
    for wrong in (["gone"], [7, 8], []):
        with pytest.raises(es.EmbstabError):
            es.upgrade_plan(old, new, k=K, queries=wrong)
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "two.parquet")
    with pytest.raises(es.InputError, match="only column"):
        es.upgrade_plan(old, new, k=K, queries=str(tmp_path / "two.parquet"))


def test_of_a_long_log_a_sample_is_drawn(tmp_path: Path) -> None:
    old, new = runs(tmp_path)
    ids = np.random.default_rng(1).choice(NAMES, 5000)
    pq.write_table(pa.table({"id": ids}), tmp_path / "log.parquet", row_group_size=700)
    plan = es.upgrade_plan(old, new, k=K, users=40, queries=tmp_path / "log.parquet")
    assert (plan.asked["of"], plan.asked["sampled"]) == (5000, 40)
    log = as_query_log(str(tmp_path / "log.parquet"), "users")
    drawn, unknown = log.rows_in(new.table("users"), 40, 0)
    chosen = np.random.default_rng(0).choice(5000, 40, replace=False)
    assert sorted(NAMES.index(one) for one in ids[chosen]) == drawn.tolist()
    assert unknown == 0


@pytest.mark.parametrize("users", [True, False])
def test_a_comparison_asks_the_log(users: bool, tmp_path: Path) -> None:
    a, b = runs(tmp_path, users=users)
    table = "users" if users else "items"
    everything = np.asarray(a.table(table).ids).tolist()
    whole, logged = es.evaluate(a, b, k=K), es.evaluate(a, b, k=K, queries=everything)
    assert whole.retrieval is not None
    assert logged.retrieval is not None
    for name in ("stale_queries", "stale_table", "retrained"):
        ours, theirs = getattr(logged.retrieval, name), getattr(whole.retrieval, name)
        assert ours.rbo.mean == pytest.approx(theirs.rbo.mean)
        assert ours.rbo.low < theirs.rbo.low  # a log stands for the queries to come
    one = es.evaluate(a, b, k=K, queries=everything[:1] * 3).retrieval
    two = es.evaluate(a, b, k=K, queries=everything[:1] * 2).retrieval
    assert one is not None
    assert two is not None
    assert one.retrained.rbo.mean == pytest.approx(two.retrained.rbo.mean)
    assert (one.sampled, one.population) == (3, 3)


def test_vectors_ask_both_runs_and_nothing_is_stale(tmp_path: Path) -> None:
    a, b = runs(tmp_path)
    queries = np.random.default_rng(2).normal(size=(30, D))
    metrics = es.evaluate(a, b, k=K, queries=queries)
    assert metrics.rank_correlation is None
    assert metrics.retrieval is not None
    assert (metrics.retrieval.queries, metrics.retrieval.stale_queries) == ("vectors", None)
    T, T2 = (np.asarray(run.items.vectors) for run in (a, b))  # type: ignore[union-attr]
    expected = recall(queries, T2, queries, T, K)
    assert metrics.retrieval.retrained.recall[K].mean == pytest.approx(expected)
    json.dumps(metrics.to_dict())
    es.report(a, b, k=K, queries=queries, out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "retrained" in page
    assert "stale queries:" not in page


def test_commands_take_a_log(tmp_path: Path) -> None:
    runs(tmp_path)
    logs(tmp_path, np.ones((5, D)))
    log, a, b = (str(tmp_path / name) for name in ("ids.parquet", "old", "new"))

    def call(*words: str) -> Any:
        ended = CliRunner().invoke(main, [*words, "--queries", log, "--json"])
        assert ended.exit_code == 0, ended.stderr
        return json.loads(ended.stdout)

    assert call("upgrade", "plan", a, b)["queries"]["of"] == 5
    assert call("evaluate", a, b)["retrieval"]["population"] == 5
    page = str(tmp_path / "page.html")
    assert call("report", a, b, page)["metrics"]["retrieval"]["sampled"] == 5
    alone = CliRunner().invoke(main, ["report", a, page, "--queries", log])
    assert (alone.exit_code, alone.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("form", ["ids", "vectors"])
def test_a_gate_looks_at_what_logged_queries_find(form: str, tmp_path: Path) -> None:
    old, new = runs(tmp_path)
    series = es.Series.init(tmp_path / "series", policy="first")
    series.add(old)
    rows = np.arange(40)
    W2 = np.asarray(new.users.vectors)[rows]  # type: ignore[union-attr]
    log: Any = [NAMES[row] for row in rows] if form == "ids" else W2
    gates = {"query_recall": 1.0}
    series.change(gates=gates)
    with pytest.raises(es.HoldError, match="query_recall of users"):
        series.add(new, queries=log)
    series.change(gates={"query_recall": 0.3})
    version = series.add(new, queries=log).version
    numbers = (1, version.version)
    T, T2 = (np.asarray(series.open(n).items.vectors) for n in numbers)  # type: ignore[union-attr]
    sent = series.transform_for(version=version.version).transform_users(W2)
    verdict = next(one for one in version.verdicts if one["gate"] == "query_recall")
    assert verdict["figure"] == pytest.approx(recall(sent, T2, sent, T, 10))
    assert version.figures["sampled"]["queries"] == {"rows": 40, "unknown": 0}
    assert version.figures["sampled"]["users"]["rows"] == (40 if form == "ids" else USERS)


def test_a_log_of_few_ids_turns_no_gate_off(tmp_path: Path) -> None:
    old, new = runs(tmp_path)
    series = es.Series.init(tmp_path / "series", policy="first")
    series.add(old)
    version = series.add(new, queries=["u1", "u2"]).version
    assert version.figures["sampled"]["users"]["rows"] == USERS
    figures = {one["gate"]: one["figure"] for one in version.verdicts}
    assert figures["agreement"] is not None
    assert figures["query_recall"] is not None
