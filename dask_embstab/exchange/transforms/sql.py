"""A transform as one SQL statement that makes a function of it, for DuckDB and BigQuery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from dask_embstab.errors import InputError
from dask_embstab.exchange.transforms.layer import Layer, Layers, Write
from dask_embstab.repairs import option

Dialect = Literal["duckdb", "bigquery"]
_MOST_BIGQUERY_BYTES = 1_000_000
"""Of a query's text, by BigQuery's quotas."""


def sql(layers: Layers, *, dialect: Dialect = "duckdb") -> Write:
    """``CREATE ... embstab_items(vector)``: a list of d numbers in, a list of k doubles out.

    Numbers are written so that they read back bit for bit.
    """
    layer = layers.only("sql")
    comment = "".join(f"-- {name}: {text}\n" for name, text in layers.described.items())
    text = comment + (_bigquery if dialect == "bigquery" else _duckdb)(layer)
    if dialect == "bigquery" and len(text) > _MOST_BIGQUERY_BYTES:
        raise InputError(
            f"a query of BigQuery has at most {_MOST_BIGQUERY_BYTES} bytes; a transform of"
            f" {layer.d} components makes {len(text)}; transform before loading, or export another"
            f" {option('format')}"
        )
    return lambda file: file.write(text.encode())


def _duckdb(layer: Layer) -> str:
    columns = ",\n".join(
        f"  list_dot_product(CAST(vector AS DOUBLE[]), [{weights}]) + {bias}"
        for weights, bias in _columns(layer)
    )
    return f"CREATE OR REPLACE MACRO embstab_{layer.key}(vector) AS [\n{columns}\n];\n"


def _bigquery(layer: Layer) -> str:
    columns = ",\n".join(
        f"  (SELECT SUM(vector[OFFSET(i)] * w) FROM UNNEST([{weights}]) AS w WITH OFFSET AS i)"
        f" + {bias}"
        for weights, bias in _columns(layer)
    )
    return (
        f"CREATE TEMP FUNCTION embstab_{layer.key}(vector ARRAY<FLOAT64>)"
        f" RETURNS ARRAY<FLOAT64> AS (IF(ARRAY_LENGTH(vector) = {layer.d}, [\n{columns}\n],"
        f" ERROR('vector must have {layer.d} components')));\n"
    )


def _columns(layer: Layer) -> Iterator[tuple[str, str]]:
    """The weights of each component that comes out, and its bias."""
    for column, bias in zip(layer.weight.T, layer.bias, strict=True):
        yield ", ".join(map(_number, column)), _number(bias)


def _number(value: float) -> str:
    """With an exponent, so that no dialect reads a decimal; bit for bit the same number."""
    text = repr(float(value))
    return text if "e" in text else f"{text}e0"
