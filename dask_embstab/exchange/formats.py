"""Which formats can a run, or a transform, be exported to? One record each, which names the
function that writes it: a format is added by adding one here.

That function is imported when it is needed. It is given an `Export` and returns plain values that
say what it wrote; it publishes whole or not at all (`exchange/place.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError
from dask_embstab.repairs import option
from dask_embstab.tables.run import Run
from dask_embstab.tables.transform import Transform

Exported = Literal["run", "transform"]


@dataclass(frozen=True, slots=True)
class Export:
    """A run or a transform, the ``place`` where it goes, and the ``options`` that were given (names
    that `Format.options` has, none of them None or False). ``source`` says which version of a
    series it is, ``base`` is the run of the version that it is compared with.
    """

    what: Run | Transform
    place: Path
    format: str
    options: Mapping[str, Any]
    source: Mapping[str, Any]
    base: Run | None = None
    overwrite: bool = False
    sync: bool = True


Write = Callable[[Export], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of runs or of transforms: ``write`` is ``module:function`` in this package,
    ``options`` are those of `export` that it takes.
    """

    of: Exported
    name: str
    write: str
    options: tuple[str, ...] = ()

    def writer(self) -> Write:
        """The function, imported."""
        module, _, name = self.write.partition(":")
        write: Write = getattr(import_module(f"dask_embstab.exchange.{module}"), name)
        return write


_PARTS = ("table", "dtype", "rows_per_file", "part_mb")
_CHANGES = (
    *("ids_changed_since", "where_moved_more_than", "moved_by"),
    *("duplicates", "scratch", "join_memory"),
)
_TABLES = (*_PARTS, *_CHANGES)

_TRANSFORM = "transforms.writers:write_transform"

FORMATS: tuple[Format, ...] = (
    # --- tables of a run, by exchange/run_tables.py
    Format("run", "parquet", "run_tables:write_tables", (*_TABLES, "vectors_as")),
    Format("run", "arrow", "run_tables:write_tables", (*_TABLES, "vectors_as")),
    Format("run", "npy", "run_tables:write_tables", _TABLES),
    Format("run", "csv", "run_tables:write_tables", (*_TABLES, "formulas")),
    Format("run", "word2vec", "run_tables:write_tables", _TABLES),
    Format("run", "word2vec-binary", "run_tables:write_tables", _TABLES),
    # --- indexes over a run, and files that vector stores load: exchange/indexes/
    Format("run", "faiss", "faiss_index:write_index", ("table", "index", "metric")),
    Format("run", "hnswlib", "run_tables:write_tables", ("table", "metric")),
    Format("run", "usearch", "run_tables:write_tables", ("table", "metric", "dtype")),
    Format("run", "lancedb", "run_tables:write_tables", ("table", "dtype")),
    Format("run", "pgvector", "run_tables:write_tables", _TABLES),
    Format("run", "qdrant", "run_tables:write_tables", _PARTS),
    Format("run", "milvus", "run_tables:write_tables", ("table", "rows_per_file", "part_mb")),
    # --- transforms, by exchange/transforms/writers.py
    Format("transform", "safetensors", _TRANSFORM, ("table",)),
    Format("transform", "npz", _TRANSFORM, ("table",)),
    Format("transform", "onnx", _TRANSFORM, ("table", "append_to", "tower_output")),
    Format("transform", "torch", _TRANSFORM, ("table",)),
    Format("transform", "tf", _TRANSFORM, ("table",)),
    Format("transform", "sql", _TRANSFORM, ("table", "dialect")),
    Format("transform", "faiss", _TRANSFORM, ("table",)),
    Format("transform", "numpy-source", _TRANSFORM, ("table",)),
)
"""In the order in which messages list them."""


def format_named(name: str, of: Exported) -> Format:
    """The format of that name; a run that has none of it is exported by its transform."""
    for kind in dict.fromkeys((of, "transform")):
        for one in FORMATS:
            if (one.of, one.name) == (kind, name):
                return one
    known = [one.name for one in FORMATS if one.of == of]
    raise InputError(
        f"{option('format')} must be one of {', '.join(known)} for a {of}; it is {shown(name)}"
    )


def require_options(exported: Format, given: Mapping[str, Any]) -> None:
    """Raise `InputError` where an option was given that the format does not take."""
    for name in given:
        if name not in exported.options:
            takers = [f.name for f in FORMATS if f.of == exported.of and name in f.options]
            named = f"; {', '.join(takers)} do" if takers else ""
            raise InputError(
                f"a {exported.of} that is exported as {exported.name} takes no"
                f" {option(name)}{named}; leave it out"
            )
