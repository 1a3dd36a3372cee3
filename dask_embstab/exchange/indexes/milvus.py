"""Parquet files that Milvus's bulk import loads: a primary field ``id`` (INT64, or VARCHAR) and a
field ``vector`` (FLOAT_VECTOR: lists of float32).

Format: milvus.io/docs/prepare-source-data.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dask_embstab.errors import IdError, InputError
from dask_embstab.exchange.arrow_files import write_parquet
from dask_embstab.exchange.panels import FileSpec, Panel, Panels, Room
from dask_embstab.tables.ids.kinds import listed_ids, plain

_MOST_COMPONENTS, _MOST_BYTES = 32_768, 65_535


def write_milvus(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """``.parquet``; UUIDs are texts."""
    if spec.d > _MOST_COMPONENTS:
        raise InputError(
            f"a vector of Milvus has at most {_MOST_COMPONENTS} components; these have {spec.d}"
        )
    kept = replace(spec, ids="int64" if spec.ids == "int64" else "string", vectors_as="list")
    write_parquet(kept, stem, _named(spec, panels), room)


def _named(spec: FileSpec, panels: Panels) -> Iterator[Panel]:
    for panel in panels:
        ids = listed_ids(plain(panel.ids)) if spec.ids == "uuid" else panel.ids
        if spec.ids == "string":
            for number, name in zip(panel.numbers.tolist(), ids.tolist(), strict=True):
                if len(name) > _MOST_BYTES // 4 and len(name.encode()) > _MOST_BYTES:
                    raise IdError(
                        f"a VARCHAR of Milvus has at most {_MOST_BYTES} bytes; the id of row"
                        f" {number} of {spec.where} has {len(name.encode())}"
                    )
        yield Panel(panel.numbers, ids, panel.rows)
