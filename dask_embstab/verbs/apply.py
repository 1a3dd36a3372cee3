"""Verbs that write a transformed run."""

from __future__ import annotations

import os
from typing import Any

from dask_embstab.errors import verb
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import require_each, taken
from dask_embstab.passes.apply import transform_run
from dask_embstab.passes.engine.output import require_output
from dask_embstab.tables.coerce import (
    TableLike,
    run_of,
)
from dask_embstab.tables.formats.places import is_in_files
from dask_embstab.tables.inputs import one_reading
from dask_embstab.tables.run import Run, RunLike
from dask_embstab.tables.transform import Transform
from dask_embstab.verbs.fit import fit
from dask_embstab.verbs.given import name_at, paths_of
from dask_embstab.verbs.runs import load_transform


@verb()
def apply(
    transform: Transform | str | os.PathLike[str],
    run: RunLike | TableLike,
    out: Any,
    *,
    dtype: Any = None,
    overwrite: bool = False,
    resume: bool = False,
    sync: bool = True,
    users: TableLike | None = None,
    shard_rows: int | None = None,
    storage_options: StorageOptions | None = None,
) -> Run:
    """Transform every table of ``run`` and write it as a stabilized run at ``out``: one read and
    one write per table.

    Parameters
    ----------
    transform
        A `Transform`, the path of a saved one, or of a stabilized run.
    run
        A run, or its path, with items, users or both; d components. Or tables in memory: one of
        items, or a dict with ``"items"``, ``"users"`` or both.
    out
        Where the result appears, whole or not at all.
    dtype
        float16, float32 or float64 of the output; by default each table's own.
    overwrite
        Replace a run that stands at ``out``: it stays whole until the new one takes its place.
    resume
        Go on from the chunks that an interrupted call with the same arguments left, where their
        checksums are right and they were made of the input as it is now. Tables in memory are
        written from their first row on.
    sync
        Return when the run is on the disk, before it is seen; False leaves that to the system, for
        scratch work.
    users
        The table of users, where ``run`` is a table of items.
    shard_rows
        Write vectors as shards of so many rows: one file or object per task, whose rows can be read
        a few at a time. By default chunks as the input has them.

    Notes
    -----
    The product is float32 where the transform's own estimates allow it (design, step 9), float64
    otherwise.

    Examples
    --------
    >>> fitted = es.fit(tuesday, reference=monday, keep="geometry")
    >>> run = es.apply(fitted, tuesday, folder / "tuesday-stable.zarr")
    >>> run.items.d, run.transform.diagnostics["keep"]
    (4, 'geometry')
    """
    transform, run, out, users = bound(storage_options, transform, run, out, users)
    options = taken(locals(), ("dtype", "overwrite", "resume", "sync", "shard_rows"))
    made = transform if isinstance(transform, Transform) else load_transform(transform)
    source = run_of(run, users)
    inputs = paths_of(source, transform, (made.diagnostics.get("reference") or {}).get("path"))
    name = source.name if source.path is not None else name_at(out)
    return transform_run(made, source, out, name=name, inputs=inputs, **options)


@verb(fit)
def stabilize(
    run: RunLike | TableLike,
    out: Any,
    *,
    reference: RunLike | TableLike | None = None,
    dtype: Any = None,
    overwrite: bool = False,
    resume: bool = False,
    sync: bool = True,
    users: TableLike | None = None,
    shard_rows: int | None = None,
    storage_options: StorageOptions | None = None,
    **options: Any,
) -> Run:
    """`fit` a run onto the reference (``options`` are those of `fit`) and `apply` the result (with
    those of `apply`).

    ``run`` is a run, its path, a table of items (with its ``users``) or a dict with both. Two reads
    and one write per table, in all, where the Gramian serves; what was read is in the diagnostics.

    Examples
    --------
    >>> first = es.stabilize(monday, folder / "first.zarr")
    >>> later = es.stabilize(tuesday, folder / "later.zarr", reference=first)
    >>> later.transform.diagnostics["items"]["matched"]
    200
    """
    run, out, reference, users = bound(storage_options, run, out, reference, users)
    source = run_of(run, users)
    aligned_on = run_of(reference) if is_in_files(reference) else reference
    require_output(out, paths_of(source, aligned_on), overwrite=overwrite)
    require_each("stabilize", {"shard_rows": shard_rows})
    with one_reading():
        transform = fit(source, reference=reference, storage_options=storage_options, **options)
        return apply(
            transform,
            source,
            out,
            dtype=dtype,
            overwrite=overwrite,
            resume=resume,
            sync=sync,
            shard_rows=shard_rows,
        )
