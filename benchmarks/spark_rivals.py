"""PySpark's ways to do the same: NumPy in ``mapInArrow``, ``RowMatrix``, and the Cholesky route of
the LINE article in full.

Imported only where Spark takes part. Vectors are a column of arrays, so a batch's values are one
buffer for NumPy.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import cloudpickle
from pyspark.ml.functions import array_to_vector
from pyspark.mllib.linalg.distributed import RowMatrix
from pyspark.mllib.util import MLUtils
from pyspark.sql import DataFrame, SparkSession
from rival_data import Data, Rows
from rival_mathematics import alignment_matrices, cholesky_factor, singular_values

cloudpickle.register_pickle_by_value(sys.modules[__name__])
"""Workers have no path to this file."""
SETTINGS = {
    "spark.driver.memory": "6g",
    "spark.driver.extraJavaOptions": "-Djava.net.preferIPv4Stack=true",
    "spark.ui.enabled": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "8",
}


@contextlib.contextmanager
def session(threads: int) -> Iterator[SparkSession]:
    """A local session with so many threads."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(f"local[{threads}]")
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()


def fit(spark: SparkSession, data: Data) -> Rows:
    """The Gramian by NumPy in every batch."""
    return singular_values(gramian(_read(spark, data, "items"), data.d))


def row_matrix_fit(spark: SparkSession, data: Data) -> Rows:
    """The Gramian by MLlib, without Python on the way to it."""
    wide = _read(spark, data, "items").selectExpr("cast(v as array<double>) as v")
    vectors = MLUtils.convertVectorColumnsFromML(wide.select(array_to_vector("v").alias("v")), "v")
    return singular_values(RowMatrix(vectors).computeGramianMatrix().toArray())


def apply(spark: SparkSession, data: Data, out: Path) -> None:
    """The table times M, to Parquet."""
    write(_read(spark, data, "items"), data.matrix, out / "items.parquet")


def whole(spark: SparkSession, data: Data, out: Path) -> None:
    """Gramians, cross-product with the reference joined by id, Cholesky and svd here, both tables
    applied.
    """
    items, users, reference = (_read(spark, data, name) for name in ("items", "users", "reference"))
    R_T, R_W = (cholesky_factor(gramian(table, data.d)) for table in (items, users))
    pairs = items.join(reference.withColumnRenamed("v", "b"), "id").select("v", "b")
    M_T, M_W = alignment_matrices(R_T, R_W, gramian(pairs, data.d, other="b"))
    write(items, M_T.astype("f4"), out / "items.parquet")
    write(users, M_W.astype("f4"), out / "users.parquet")


def gramian(table: DataFrame, d: int, *, other: str = "v") -> Rows:
    """V' v of all rows, or v' b, summed by NumPy in float64."""

    def partial(batches: Any) -> Iterator[Any]:
        total = np.zeros((d, d))
        for batch in batches:
            x = _vectors(batch, "v", d).astype(np.float64)
            total += x.T @ (x if other == "v" else _vectors(batch, other, d))
        yield pa.RecordBatch.from_pydict({"G": [total.tobytes()]})

    columns = [name for name in table.columns if name != "id"]
    rows = table.select(*columns).mapInArrow(partial, "G binary").collect()
    return np.asarray(sum(np.frombuffer(row.G).reshape(d, d) for row in rows))


def write(table: DataFrame, M: Rows, path: Path) -> None:
    """Write a transformed table, ids along, as uncompressed Parquet."""
    table.mapInArrow(_transformed(M), table.schema).write.option("compression", "none").parquet(
        str(path)
    )


def _transformed(M: Rows) -> Callable[[Any], Iterator[Any]]:
    d, width = M.shape

    def work(batches: Any) -> Iterator[Any]:
        for batch in batches:
            made = _vectors(batch, "v", d) @ M
            offsets = pa.array(np.arange(0, made.size + 1, width, dtype="i4"))
            columns = [
                batch.column("id"),
                pa.ListArray.from_arrays(offsets, pa.array(made.ravel())),
            ]
            yield pa.RecordBatch.from_arrays(columns, ["id", "v"])

    return work


def _vectors(batch: Any, name: str, d: int) -> Rows:
    rows: Rows = batch.column(name).flatten().to_numpy().reshape(-1, d)
    return rows


def _read(spark: SparkSession, data: Data, name: str) -> DataFrame:
    return spark.read.parquet(str(data.path(name, "parquet")))
