"""The verb that writes runs and transforms in the formats of other libraries."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError, verb
from dask_embstab.exchange.formats import Export, Exported, format_named, require_options
from dask_embstab.files.npz import npz_kind
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import options_of, taken
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.join.options import KeepDuplicates
from dask_embstab.repairs import option
from dask_embstab.series.log.versions import Version
from dask_embstab.series.places import named_version, series_at
from dask_embstab.series.reader import SeriesReader
from dask_embstab.tables.coerce import TableLike, run_of
from dask_embstab.tables.run import Run, RunLike
from dask_embstab.tables.transform import Transform
from dask_embstab.tables.write.run_writer import require_outside
from dask_embstab.verbs.given import paths_of
from dask_embstab.verbs.runs import load_transform

_OF_FORMATS = options_of("export").keys() - {
    "format",
    "version",
    "overwrite",
    "sync",
    "storage_options",
}
"""Options that a format takes or does not (`Format.options`)."""


@verb()
def export(
    what: RunLike | TableLike | Transform | SeriesReader,
    out: Any,
    *,
    format: str = "parquet",
    version: int | None = None,
    table: Literal["items", "users"] | None = None,
    dtype: Any = None,
    vectors_as: Literal["list", "fixed-list", "binary"] | None = None,
    index: Literal["flat", "ivf"] | None = None,
    formulas: bool = False,
    metric: Metric | None = None,
    rows_per_file: int | None = None,
    part_mb: float | None = None,
    ids_changed_since: int | None = None,
    where_moved_more_than: float | None = None,
    moved_by: Literal["cosine", "distance"] | None = None,
    append_to: str | os.PathLike[str] | None = None,
    tower_output: str | None = None,
    dialect: Literal["duckdb", "bigquery"] | None = None,
    overwrite: bool = False,
    sync: bool = True,
    duplicates: KeepDuplicates = "error",
    scratch: str | os.PathLike[str] | None = None,
    join_memory: int | str | None = None,
    storage_options: StorageOptions | None = None,
) -> dict[str, Any]:
    """Write a run, or a transform, in the format of another library, whole or not at all.

    Of a run every table is read once and written as ``out/items/part-00000.parquet`` and so on,
    ids beside vectors, with the run's provenance in every file that has room for it and in
    ``out/export.json``. The files' bytes depend neither on chunks nor on the scheduler. Memory: a
    few panels and a row group per thread. Formats, types and recipes are in ``docs/export.md``.

    Parameters
    ----------
    what
        A run (raw, stabilized or compressed, which is decoded), a table, a `Series` or its folder
        (its head, or ``version``), the text ``"SERIES@3"``; or a transform or its saved file. A
        stabilized run stands for its transform where the format is one of transforms alone.
    out
        A new local place, in a folder that exists.
    format
        Of a run ``"parquet"``, ``"arrow"`` (IPC files), ``"npy"``, ``"csv"``, ``"word2vec"`` or
        ``"word2vec-binary"``; an index of ``"faiss"`` (one file; codes of a compressed run as they
        are), ``"hnswlib"``, ``"usearch"`` or ``"lancedb"``; or the files that ``"pgvector"``
        (binary COPY), ``"qdrant"`` and ``"milvus"`` (bulk import) load.
        Of a transform ``"safetensors"``, ``"npz"``, ``"onnx"``,
        ``"torch"``, ``"tf"``, ``"sql"``, ``"faiss"`` or ``"numpy-source"``
        (``docs/transforms.md``).
    version
        Of a series; by default its head.
    table
        This table alone; by default all that there are.
    dtype
        Of the vectors; by default the table's own, and float32 in place of float16 in Parquet and
        Arrow, whose half floats few readers know.
    vectors_as
        In Parquet and Arrow: ``"list"`` of elements that are never null (the default), which every
        reader knows; ``"fixed-list"``; or ``"binary"``, the little-endian bytes of a row.
    index
        Of faiss: ``"flat"``, or ``"ivf"`` with lists, all of which are probed until ``nprobe`` is
        lowered.
    formulas
        In CSV: write also ids that a spreadsheet would run as formulas (they begin with one of
        ``=+-@``, a tab or a carriage return), which are refused otherwise.
    metric
        Of an index (hnswlib, usearch): ``"dot"``, the default of a run with users, or ``"cosine"``.
    rows_per_file, part_mb
        Rows of the table that go into one file, or MiB of vectors; by default the power of two of
        rows that is near 128 MiB (word2vec: all). A file is one task.
    ids_changed_since
        Of a series: only rows whose id this earlier version does not have, or has with other bits;
        ids that are gone since are listed in ``out/items-gone/``.
    where_moved_more_than
        Of the changed rows only those that moved by more than this, beside the new ones.
    moved_by
        ``"cosine"`` (one minus the cosine of old and new row, the default) or ``"distance"`` (the
        length of their difference).
    append_to, tower_output
        Of ONNX: the transform goes behind this output (the only one, if there is one) of the
        tower's model, which is left as it is; what is written keeps the output's name.
    dialect
        Of SQL: ``"duckdb"`` (the default) or ``"bigquery"``.
    overwrite
        Replace an earlier export at ``out``, which stays whole until the new one is.
    sync
        As in `apply`.
    duplicates, scratch, join_memory
        As in `fit`, where ids of two versions are joined.

    Returns
    -------
    What was written, as plain values: the format, and of every table rows, files and counts.

    Raises
    ------
    InputError
        Where the format is none, does not take an option, or cannot hold an id or a row, which is
        named; `OutputExistsError` where ``out`` is taken.

    Examples
    --------
    >>> done = es.export(monday, folder / "monday", format="npy")
    >>> done["items"]["rows"], sorted(path.name for path in (folder / "monday/items").iterdir())
    (200, ['part-00000.ids.npy', 'part-00000.vectors.npy'])
    """
    what, scratch = bound(storage_options, what, scratch)
    given = {
        name: value for name, value in taken(locals(), _OF_FORMATS).items() if _is_given(value)
    }
    if given.get("duplicates") == "error":
        del given["duplicates"]
    place = _place(out, what)
    with _resolved(what, version, ids_changed_since) as (exported, source, base):
        of: Exported = "transform" if isinstance(exported, Transform) else "run"
        chosen = format_named(format, of)
        require_options(chosen, given)
        if of == "run" and chosen.of == "transform":
            exported = _transform_of(exported)
        export = Export(
            exported, place, format, given, source, base=base, overwrite=overwrite, sync=sync
        )
        written = chosen.writer()(export)
    return {**written, "format": format, "path": str(place)}


def _is_given(value: Any) -> bool:
    return value is not None and value is not False


def _place(out: Any, what: Any) -> Path:
    """Where it goes: outside of what is read."""
    place = local_path(out) if isinstance(out, str | os.PathLike) else None
    if place is None:
        raise InputError(f"an export must go to a local place; {shown(out)} came; give a path")
    require_outside(place, paths_of(what))
    return place


@contextlib.contextmanager
def _resolved(
    what: Any, version: int | None, since: int | None
) -> Iterator[tuple[Run | Transform, dict[str, Any], Run | None]]:
    """The run or transform that is meant, what is recorded of it, and the run of the version that
    it is compared with; those of a series are pinned.
    """
    reader, number = (what, None) if isinstance(what, SeriesReader) else (series_at(what), None)
    if reader is None and (named := named_version(what)) is not None:
        reader, number = named
        if version is not None:
            raise InputError(f"{what} names a version already; leave out {option(version=version)}")
    if reader is None:
        for name, value in (("version", version), ("ids_changed_since", since)):
            if value is not None:
                raise InputError(f"{option(name)} is of a series; {shown(what)} is none")
        yield _run_or_transform(what), {}, None
        return

    with contextlib.ExitStack() as pins:
        wanted = reader.show(version if number is None else number)
        base = None
        if since is not None:
            _require_one_space(reader, wanted, reader.show(since))
            base = pins.enter_context(reader.pin(since))
        run = pins.enter_context(reader.pin(wanted.version))
        yield run, {"version": wanted.version}, base


def _require_one_space(reader: SeriesReader, wanted: Version, since: Version) -> None:
    """Raise where what is stored was moved between two versions: every row has other numbers."""
    low, high = sorted((wanted.version, since.version))
    for moved in reader.log().moves:
        if low < moved.version <= high and (moved.kind == "rebase" or moved.moved):
            what = "turned all axes" if moved.kind == "rebase" else "removed ids"
            raise InputError(
                "rows are compared with a version that is stored as it was; version"
                f" {moved.version} (a {moved.kind}) {what} since version {since.version}; export"
                f" the whole run, without {option('ids_changed_since')}"
            )


def _run_or_transform(what: Any) -> Run | Transform:
    if isinstance(what, Transform | Run):
        return what
    if isinstance(what, str | os.PathLike) and npz_kind(what) == "transform":
        return load_transform(what)
    return run_of(what)


def _transform_of(run: Any) -> Transform:
    transform: Transform | None = run.transform
    if transform is None:
        raise InputError(
            f"a run is exported by its transform here; {run.where} is as training left it and has"
            " none; stabilize it first"
        )
    return transform
