"""A transform in another format does what `apply` does, to rounding."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import Array, world

import dask_embstab as es
from dask_embstab.exchange.formats import FORMATS
from dask_embstab.exchange.transforms.writers import WRITERS

Rows = Callable[[Array], Array]


def centred() -> es.Transform:
    T, _ = world(0)
    return es.fit(T + 2.0, reference=T[:, ::-1] - 1.0, center=True)


def wider() -> es.Transform:
    return es.fit(*world(1), width=6)


def narrower() -> es.Transform:
    T, _ = world(2)
    return es.fit(T, reference=T[:, :3], width=3)


def rank_deficient() -> es.Transform:
    T, W = world(3)
    twice = np.eye(4)
    twice[3, 3], twice[2, 3] = 0.0, 1.0
    return es.fit(T @ twice, W @ twice)


KINDS = (centred, wider, narrower, rank_deficient)


def linear(weight: Any, bias: Any) -> Rows:
    return lambda rows: np.asarray(rows @ weight + bias)


def of_npz(path: Path, table: str) -> Rows:
    with np.load(path) as arrays:
        offset = {"items": "offsets", "users": "users_offsets"}[table]
        return linear(arrays[table], arrays.get(offset, 0.0))


def of_safetensors(path: Path, table: str) -> Rows:
    from safetensors.numpy import load_file

    arrays = load_file(path)
    return linear(
        arrays[table], arrays.get({"items": "offsets", "users": "users_offsets"}[table], 0)
    )


def of_onnx(path: Path, table: str) -> Rows:
    del table
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda rows: np.asarray(session.run(None, {"x": rows.astype(np.float32)})[0])


def of_torch(path: Path, table: str) -> Rows:
    del table
    torch = pytest.importorskip("torch", reason="torch is a large extra")
    state = torch.load(path, weights_only=True)
    layer = torch.nn.Linear(*state["weight"].T.shape)
    layer.load_state_dict(state)
    return lambda rows: np.asarray(layer(torch.from_numpy(rows.astype(np.float32))).detach())


def of_tf(path: Path, table: str) -> Rows:
    del table
    with np.load(path) as arrays:
        return linear(arrays["kernel"], arrays["bias"])


def of_sql(path: Path, table: str) -> Rows:
    import duckdb

    def rows(given: Array) -> Array:
        with duckdb.connect() as db:
            db.execute(path.read_text())
            db.execute("CREATE TABLE t (n INTEGER, vector FLOAT[])")
            db.executemany(
                "INSERT INTO t VALUES (?, ?)", [(n, r.tolist()) for n, r in enumerate(given)]
            )
            rows_of_query = db.execute(
                f"SELECT embstab_{table}(vector) FROM t ORDER BY n"
            ).fetchall()
        return np.array([row[0] for row in rows_of_query])

    return rows


def of_faiss(path: Path, table: str) -> Rows:
    del table
    import faiss

    read = faiss.read_VectorTransform(str(path))
    return lambda rows: np.asarray(read.apply(np.ascontiguousarray(rows, dtype=np.float32)))


def of_source(path: Path, table: str) -> Rows:
    spec = importlib.util.spec_from_file_location("exported", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    transformed: Rows = getattr(module, f"transform_{table}")
    return transformed


READERS: dict[str, Callable[[Path, str], Rows]] = {
    "npz": of_npz,
    "safetensors": of_safetensors,
    "onnx": of_onnx,
    "torch": of_torch,
    "tf": of_tf,
    "sql": of_sql,
    "faiss": of_faiss,
    "numpy-source": of_source,
}


def test_every_format_is_tried() -> None:
    known = {one.name for one in FORMATS if one.of == "transform"}
    assert READERS.keys() == WRITERS.keys() == known


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long if n == "torch" else ()) for n in READERS],
)
def test_every_exporter_gives_what_the_transform_gives(name: str, tmp_path: Path) -> None:
    """The same float32 rows, with offsets, unequal widths and deficient ranks, by every format."""
    for kind in KINDS:
        transform = kind()
        for table in ("items", "users")[: 1 + (transform.users is not None)]:
            out = tmp_path / f"{kind.__name__}_{table}.py"
            es.export(transform, out, format=name, table=table)
            rows = np.random.default_rng(7).normal(size=(20, transform.d)).astype(np.float32)
            expected = getattr(transform, f"transform_{table}")(rows.astype(np.float64))
            transformed = READERS[name](out, table)(rows)
            assert transformed.shape == (20, transform.width)
            np.testing.assert_allclose(
                transformed, expected, atol=4e-7 * np.abs(expected).max(), rtol=0
            )
