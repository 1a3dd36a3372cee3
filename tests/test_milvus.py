"""Files for Milvus's bulk import: what they hold, the schema of Milvus's own writer, and what its
embedded engine finds in them. A server's import is not run here.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_embstab as es

pq: Any = pytest.importorskip("pyarrow.parquet", reason="pyarrow is the extra parquet")

N, D = 200, 8
KINDS: dict[str, Any] = {
    "int64": np.arange(N) * 7 - 50,
    "string": [f"i-{k}-\u00e9" for k in range(N)],
    "uuid": np.array([uuid.UUID(int=k).bytes for k in range(N)], "V16"),
}


def exported(folder: Path, kind: str) -> tuple[es.Run, list[Path]]:
    rows = np.random.default_rng(0).normal(size=(N, D))
    made = es.create_run(folder / "run", rows, rows[:30], item_ids=KINDS[kind])
    es.export(made, folder / "out", format="milvus", table="items", rows_per_file=90)
    return made, sorted((folder / "out/items").iterdir())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_columns_are_those_of_the_documented_format(kind: str, tmp_path: Path) -> None:
    made, files = exported(tmp_path, kind)
    tables = [pq.read_table(path) for path in files]
    assert [table.num_rows for table in tables] == [90, 90, 20]
    for table in tables:
        assert table.schema.names == ["id", "vector"]
        assert str(table.schema.field("id").type) == ("int64" if kind == "int64" else "string")
        assert str(table.schema.field("vector").type.value_type) == "float"
    ids = [name for table in tables for name in table["id"].to_pylist()]
    wanted = KINDS[kind]
    texts = [str(uuid.UUID(bytes=one.tobytes())) for one in wanted] if kind == "uuid" else wanted
    assert ids == list(texts)
    vectors = np.concatenate([np.stack(table["vector"].to_numpy()) for table in tables])
    np.testing.assert_array_equal(vectors, np.asarray(made.items.vectors).astype(np.float32))  # type: ignore[union-attr]
    assert es.space_of(tmp_path / "out").origin == es.space_of(made).origin


def test_ids_that_a_varchar_cannot_hold_are_refused(tmp_path: Path) -> None:
    names = [str(n) for n in range(199)]
    made = es.create_run(tmp_path / "run", np.ones((200, D)), item_ids=[*names, "\u00e9" * 33_000])
    with pytest.raises(es.IdError, match="65535 bytes"):
        es.export(made, tmp_path / "out", format="milvus")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["int64", "string"])
def test_the_schema_is_that_of_milvus_own_bulk_writer(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is a test's own package")
    writers: Any = pytest.importorskip("pymilvus.bulk_writer", reason="it needs more packages")
    from pymilvus import CollectionSchema, DataType, FieldSchema

    _, files = exported(tmp_path, kind)
    of_id = {"dtype": DataType.INT64} if kind == "int64" else {"dtype": DataType.VARCHAR}
    length = {} if kind == "int64" else {"max_length": 100}
    fields = [
        FieldSchema("id", is_primary=True, **of_id, **length),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=D),
    ]
    writer = writers.LocalBulkWriter(
        schema=CollectionSchema(fields),
        local_path=str(tmp_path / "theirs"),
        file_type=writers.BulkFileType.PARQUET,
    )
    ours = pq.read_table(files[0])
    for row in ours.to_pylist():
        writer.append_row(row)  # which checks every value against the schema
    writer.commit()
    theirs = pq.read_table(writer.batch_files[0][0])
    assert theirs.schema.names == ours.schema.names
    for name in ours.schema.names:
        ours_type, theirs_type = (table.schema.field(name).type for table in (ours, theirs))
        of_ours, of_theirs = (getattr(one, "value_type", one) for one in (ours_type, theirs_type))
        assert str(of_ours).replace("large_", "") == str(of_theirs).replace("large_", "")
        assert ours[name].to_pylist() == theirs[name].to_pylist()


@pytest.mark.long
def test_the_embedded_engine_ranks_the_rows_of_the_files(tmp_path: Path) -> None:
    milvus: Any = pytest.importorskip("pymilvus", reason="pymilvus is a test's own package")
    pytest.importorskip("milvus_lite", reason="milvus-lite is a test's own package")
    made, files = exported(tmp_path, "int64")
    client = milvus.MilvusClient(str(tmp_path / "lite.db"))
    client.create_collection("items", dimension=D, metric_type="IP", auto_id=False)
    for path in files:
        client.insert("items", pq.read_table(path).to_pylist())
    queries = np.asarray(made.users.vectors).astype(np.float32)  # type: ignore[union-attr]
    result = client.search("items", queries.tolist(), limit=5, consistency_level="Strong")
    _, names = es.search(made, made, 5)
    assert [[one["id"] for one in row] for row in result] == names.tolist()
    client.close()
