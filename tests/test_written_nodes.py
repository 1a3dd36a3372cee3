"""Documents that are written without Zarr are Zarr's own, and small runs wait for no event loop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from oracle import world
from zarr.storage import LocalStore

import dask_embstab as es
from dask_embstab.tables.ids.kinds import IdKind
from dask_embstab.tables.read.stored.nodes import child, local_node
from dask_embstab.tables.write import nodes
from dask_embstab.tables.write.output_folder import OutputFolder
from dask_embstab.tables.write.table_layout import TableLayout

T, W = world(31)
MakeRun = Callable[..., es.Run]


def documents(folder: Path) -> dict[str, Any]:
    return {
        str(file.relative_to(folder)): json.loads(file.read_bytes())
        for file in sorted(folder.rglob("zarr.json"))
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("ids", [None, "int64", "string", "uuid"])
@pytest.mark.parametrize("inner_rows", [None, 2])
@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
def test_documents_and_their_copies_are_those_of_zarr(
    tmp_path: Path, dtype: Any, ids: IdKind | None, inner_rows: int | None
) -> None:
    layout = TableLayout(
        "items", (10, 3), np.dtype(dtype), 4, ids, weights=True, inner_rows=inner_rows
    )
    ours = nodes.root_group(OutputFolder(tmp_path / "ours"), {"a": [1, None, {"b": "c"}]})
    zarrs = zarr.open_group(LocalStore(tmp_path / "zarrs"), attributes={"a": [1, None, {"b": "c"}]})
    for group in (ours, zarrs):
        layout.create(group, overwrite=False)
        made = nodes.make_group(group, "transform", {"of": "it"}, overwrite=True)
        matrices: nodes.Matrices = {
            "items": (np.arange(6.0).reshape(2, 3), ("x", "y")),
            "none": (np.zeros((0, 3)), ("x", "y")),
            "scalar": (math.pi, ()),
        }
        nodes.write_matrices(made, matrices)
    assert documents(tmp_path / "ours") == documents(tmp_path / "zarrs")
    assert sorted(p.relative_to(tmp_path / "ours") for p in (tmp_path / "ours").rglob("*")) == (
        sorted(p.relative_to(tmp_path / "zarrs") for p in (tmp_path / "zarrs").rglob("*"))
    )
    for name in ("items", "none", "scalar"):
        array: Any = zarrs[f"transform/{name}"]
        assert np.array_equal(zarr.open_array(tmp_path / "ours/transform" / name), array[...])
    for group in (ours, zarrs):
        nodes.finish(group, {"b": 2})
    assert documents(tmp_path / "ours") == documents(tmp_path / "zarrs")


def test_a_run_is_opened_and_applied_without_an_event_loop(
    monkeypatch: pytest.MonkeyPatch, make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("a", T, W, item_ids=np.arange(len(T)))
    place = tmp_path / "a.zarr"
    fitted = es.fit(place)

    def refuse() -> None:
        raise AssertionError("Zarr's event loop was asked for")

    monkeypatch.setattr("zarr.core.sync._get_loop", refuse)
    run = es.apply(fitted, place, tmp_path / "out.zarr")
    assert run.items is not None
    assert run.items.stored_ids is not None


def test_what_is_no_such_document_is_left_to_zarr(make_run: MakeRun, tmp_path: Path) -> None:
    group = make_run("a", T, W).group
    assert isinstance(child(group, "items"), zarr.Group)
    assert child(group, "nothing") is None
    old = zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
    old.create_array("x", shape=(3,), dtype="f8")
    assert isinstance(child(old, "x"), zarr.Array)
    file = tmp_path / "a.zarr/items/zarr.json"
    file.write_text("{")
    assert local_node(group.store, "items") is None
    with pytest.raises(ValueError, match="Expecting property name"):
        child(group, "items")
    file.unlink()
    assert child(group, "items") is None


@pytest.mark.parametrize("name", ["vectors", "id"])
@pytest.mark.parametrize(
    "change",
    [
        {"node_type": "table"},
        {"consolidated_metadata": {"must_understand": True}},
        {"storage_transformers": [{"name": "mirrored"}]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 0]}}},
    ],
)
def test_a_node_that_zarr_refuses_is_no_missing_node(
    make_run: MakeRun, tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    make_run("a", T, W, item_ids=np.arange(len(T)) + 5)
    file = tmp_path / "a.zarr/items" / name / "zarr.json"
    document = json.loads(file.read_text()) | change
    if "chunk_grid" in change:
        document["chunk_grid"]["configuration"]["chunk_shape"] = [0, 3][: len(document["shape"])]
    file.write_text(json.dumps(document))
    with pytest.raises(es.EmbstabError, match=r"metadata|must hold values|without storage trans"):
        es.open_run(tmp_path / "a.zarr")
