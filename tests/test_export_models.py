"""A transform inside a user's own model: appended to an ONNX tower, folded into a last layer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import Array, world
from test_export_transforms import centred, narrower, rank_deficient, wider

import dask_embstab as es

RNG = np.random.default_rng(3)
KERNELS = RNG.normal(size=(5, 8)), RNG.normal(size=(8, 4))
BIAS = RNG.normal(size=4)
INPUTS = RNG.normal(size=(30, 5)).astype(np.float32)


def tower(
    path: Path, *, opset: int = 17, kind: str = "FLOAT", two: bool = False, turned: Any = None
) -> Path:
    """Two layers, the last one of four components (``turned``, as another training would leave
    them); its output is read by another node too.
    """
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    dtype = {"FLOAT": np.float32, "FLOAT16": np.float16, "INT64": np.int64}[kind]
    element = getattr(kinds, kind)
    A = np.eye(4) if turned is None else turned
    constants = {"W0": KERNELS[0], "W1": KERNELS[1] @ A, "b1": BIAS @ A}
    nodes = [
        helper.make_node("MatMul", ["features", "W0"], ["h0"]),
        helper.make_node("Relu", ["h0"], ["h1"]),
        helper.make_node("MatMul", ["h1", "W1"], ["h2"]),
        helper.make_node("Add", ["h2", "b1"], ["embedding"]),
        helper.make_node("Neg", ["embedding"], ["minus"]),
    ]
    outputs = [helper.make_tensor_value_info("embedding", element, ["n", 4])]
    if two:
        outputs.append(helper.make_tensor_value_info("minus", element, ["n", 4]))
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("features", element, ["n", 5])],
        outputs,
        [onnx.numpy_helper.from_array(a.astype(dtype), n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def run(path: Path, rows: Array) -> list[Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return [np.asarray(one) for one in session.run(None, {"features": rows})]


def by_hand(rows: Array) -> Array:
    return np.asarray(np.maximum(rows @ KERNELS[0], 0) @ KERNELS[1] + BIAS)


@pytest.mark.parametrize("kind", [centred, wider, rank_deficient])
def test_a_tower_with_the_transform_behind_it_gives_what_apply_gives(
    kind: Callable[[], es.Transform], tmp_path: Path
) -> None:
    transform, out = kind(), tmp_path / "out.onnx"
    es.export(transform, out, format="onnx", table="items", append_to=tower(tmp_path / "t.onnx"))
    (output,) = run(out, INPUTS)
    expected = transform.transform_items(by_hand(INPUTS))
    np.testing.assert_allclose(output, expected, atol=1e-6 * np.abs(expected).max(), rtol=0)


def test_a_tower_of_two_outputs_and_half_precision(tmp_path: Path) -> None:
    transform, out = wider(), tmp_path / "out.onnx"
    start = tower(tmp_path / "t.onnx", kind="FLOAT16", two=True)
    es.export(
        transform, out, format="onnx", table="users", append_to=start, tower_output="embedding"
    )
    embedding, minus = run(out, INPUTS.astype(np.float16))
    before, unmoved = run(start, INPUTS.astype(np.float16))
    assert embedding.dtype == np.float16
    np.testing.assert_array_equal(minus, unmoved, "what reads the output inside reads the old one")
    expected = transform.transform_users(before.astype(np.float64))
    np.testing.assert_allclose(embedding, expected, atol=2e-3 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize(
    ("options", "settings", "pattern"),
    [
        ({"two": True}, {}, "has embedding, minus, and none was chosen"),
        ({}, {"tower_output": "nothing"}, "tower_output='nothing' came"),
        ({"opset": 8}, {}, "operator set 9 or later; it uses 8"),
    ],
)
def test_a_tower_that_cannot_be_extended_is_one_error(
    options: Any, settings: Any, pattern: str, tmp_path: Path, refused: Any
) -> None:
    start = tower(tmp_path / "t.onnx", **options)
    with refused(es.InputError, pattern):
        es.export(
            wider(),
            tmp_path / "out.onnx",
            format="onnx",
            table="items",
            append_to=start,
            **settings,
        )


def test_a_transform_of_another_width_twice_or_of_no_model_is_one_error(
    tmp_path: Path, refused: Any
) -> None:
    start, once = tower(tmp_path / "t.onnx"), tmp_path / "once.onnx"
    small = es.fit(world(0, d=3)[0])
    with refused(es.InputError, "floats of 3 components.*it is FLOAT of 4 components"):
        es.export(small, once, format="onnx", append_to=start)
    square: Any = {"what": centred(), "format": "onnx"}
    es.export(out=once, append_to=start, **square)
    with refused(es.InputError, "appended once"):
        es.export(out=tmp_path / "twice.onnx", append_to=once, **square)
    (tmp_path / "no.onnx").write_bytes(b"nothing of the kind")
    with refused(es.InputError, "is no ONNX model"):
        es.export(out=tmp_path / "out.onnx", append_to=tmp_path / "no.onnx", **square)
    with refused(es.InputError, "there is no ONNX model"):
        es.export(out=tmp_path / "out.onnx", append_to=tmp_path / "nowhere.onnx", **square)


def test_a_format_of_one_matrix_asks_which(tmp_path: Path, refused: Any) -> None:
    for name in ("onnx", "sql", "faiss"):
        with refused(es.InputError, "table='items' or table='users'"):
            es.export(wider(), tmp_path / "out", format=name, table=None)
    with refused(es.InputError, "fitted without users"):
        es.export(centred(), tmp_path / "out", format="onnx", table="users")


def test_files_of_both_tables_hold_both(tmp_path: Path) -> None:
    transform, out = wider(), tmp_path / "both.npz"
    es.export(transform, out, format="npz")
    again = es.load_transform(out)
    np.testing.assert_array_equal(again.users, transform.users)
    assert dict(again.diagnostics) == dict(transform.diagnostics)
    es.export(transform, out, format="tf", overwrite=True)
    with np.load(out) as arrays:
        assert set(arrays) == {"items_kernel", "items_bias", "users_kernel", "users_bias"}
    es.export(transform, out, format="safetensors", overwrite=True)
    from safetensors import safe_open

    with safe_open(out, "numpy") as file:
        assert set(file.keys()) == {"items", "users", "singular_values"}
        assert "y = x @ items + offsets" in file.metadata()["embstab.convention"]


def test_float32_formats_say_where_float32_is_not_enough(tmp_path: Path) -> None:
    """Opposed spectra of 1e6: the fit asks for float64 products, which ONNX then uses."""
    T, W = world(5)
    Q = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    A = Q * 10.0 ** -np.arange(0, 8, 2) @ Q[::-1]
    transform = es.fit(T @ A, W @ np.linalg.inv(A).T)
    assert transform.diagnostics["product"]["items"] == "float64"
    with pytest.warns(es.EmbstabWarning, match="multiplies in float32"):
        es.export(transform, tmp_path / "out", format="tf", table="items")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        es.export(transform, tmp_path / "doubles", format="onnx", table="items")


def test_bigquery_computes_it_as_duckdb_does(tmp_path: Path, refused: Any) -> None:
    """BigQuery's statement, translated, gives the transform; too long for a query, one error."""
    import duckdb
    import sqlglot

    transform, out = narrower(), tmp_path / "f.sql"
    es.export(transform, out, format="sql", table="items", dialect="bigquery")
    body = sqlglot.parse_one(out.read_text(), read="bigquery").expression.sql("bigquery")
    (query,) = sqlglot.transpile(f"SELECT {body} FROM t", read="bigquery", write="duckdb")
    rows = world(8)[0]
    with duckdb.connect() as db:
        db.execute("CREATE TABLE t (vector DOUBLE[])")
        db.executemany("INSERT INTO t VALUES (?)", [(row.tolist(),) for row in rows])
        transformed = np.array([row[0] for row in db.execute(query).fetchall()])
        np.testing.assert_allclose(transformed, transform.transform_items(rows), atol=1e-14)
        db.execute("INSERT INTO t VALUES ([1.0, 2.0])")
        with pytest.raises(duckdb.Error, match="must have 4 components"):
            db.execute(query).fetchall()
    wide = es.Transform(RNG.normal(size=(250, 250)), None, np.ones(250))
    with refused(es.InputError, "at most 1000000 bytes"):
        es.export(wide, tmp_path / "wide.sql", format="sql", table="items", dialect="bigquery")


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
@pytest.mark.parametrize("kind", [centred, wider, narrower, rank_deficient])
def test_a_batch_through_the_folded_model_is_what_apply_writes(
    kind: Callable[[], es.Transform], layout: Any, tmp_path: Path
) -> None:
    """The extra layer is free: one matrix product as before, and the rows of `apply`."""
    transform, into = kind(), KERNELS[1].astype(np.float32)
    weight, bias = es.fold(
        transform, into if layout == "in_out" else into.T, BIAS.astype(np.float32), layout=layout
    )
    assert bias is not None
    assert weight.dtype == bias.dtype == np.float32
    hidden = np.maximum(INPUTS @ KERNELS[0], 0).astype(np.float32)
    given = hidden @ into + BIAS.astype(np.float32)
    applied = es.apply(transform, given, tmp_path / "out.zarr").items.vectors.compute()
    result = hidden @ (weight if layout == "in_out" else weight.T) + bias
    np.testing.assert_allclose(result, applied, atol=2e-6 * np.abs(applied).max(), rtol=0)


def test_a_layer_without_bias_gets_one_only_where_the_origin_moves() -> None:
    kernel = KERNELS[1]
    assert es.fold(wider(), kernel, layout="in_out", table="users")[1] is None
    _, bias = es.fold(centred(), kernel, layout="in_out")
    np.testing.assert_allclose(np.asarray(bias), centred().items_offset)


def test_a_layer_that_does_not_fit_is_one_error(refused: Any) -> None:
    with refused(es.InputError, r"4 components.*layout='out_in'.*\(out, in\), and it is \(8, 4\)"):
        es.fold(wider(), KERNELS[1], layout="out_in")
    with refused(es.InputError, r"one value per component, \(4,\); it has \(3,\)"):
        es.fold(wider(), KERNELS[1], np.ones(3), layout="in_out")
    with pytest.raises(TypeError, match="layout"):
        es.fold(wider(), KERNELS[1])  # type: ignore[call-arg]


@pytest.mark.long
def test_keras_and_torch_take_a_folded_layer_and_the_exported_arrays(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is a large extra")
    transform, (first, last) = wider(), KERNELS
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 8, bias=False),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 4),
        torch.nn.Linear(4, 6),
    ).double()
    with torch.no_grad():
        model[0].weight[:] = torch.from_numpy(first.T.copy())
        model[2].weight[:] = torch.from_numpy(last.T.copy())
        model[2].bias[:] = torch.from_numpy(BIAS)
    expected = transform.transform_items(by_hand(INPUTS.astype(np.float64)))
    weight, bias = es.fold(
        transform, model[2].weight.detach(), model[2].bias.detach(), layout="out_in"
    )
    merged = torch.nn.Linear(8, 6).double()
    merged.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    result = torch.nn.Sequential(model[0], model[1], merged)(torch.from_numpy(INPUTS).double())
    np.testing.assert_allclose(result.detach().numpy(), expected, atol=1e-12)

    np.savez(tmp_path / "given.npz", rows=by_hand(INPUTS), expected=expected)
    es.export(transform, tmp_path / "keras.npz", format="tf", table="items")
    code = (
        "import sys, numpy as np, keras\n"
        "given, arrays = np.load(sys.argv[1]), np.load(sys.argv[2])\n"
        "layer = keras.layers.Dense(arrays['kernel'].shape[1])\n"
        "layer.build((None, arrays['kernel'].shape[0]))\n"
        "layer.set_weights([arrays['kernel'], arrays['bias']])\n"
        "found = keras.ops.convert_to_numpy(layer(given['rows'].astype('float32')))\n"
        "assert np.abs(found - given['expected']).max() < 1e-5 * np.abs(given['expected']).max()\n"
    )
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is no extra of ours")
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "given.npz", tmp_path / "keras.npz"],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        check=True,
    )
