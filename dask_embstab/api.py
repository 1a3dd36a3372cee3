"""The verbs: open, create, fit, apply, stabilize, evaluate. Options and their defaults live here and nowhere else."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dask_embstab.core.errors import EmbstabWarning, InputError
from dask_embstab.core.landing import AlignOn, Keep
from dask_embstab.core.transform import Transform
from dask_embstab.passes.apply import Apply, copy_table
from dask_embstab.passes.compute import compute
from dask_embstab.passes.fitting import Balance, FitOptions, Method, Reference, fit_tables
from dask_embstab.passes.measure import Metrics, measure_runs
from dask_embstab.passes.write import Landing
from dask_embstab.tables.coerce import TableLike, as_run, as_table, item_and_user_tables
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.source import default_chunk_rows
from dask_embstab.tables.store import local_path
from dask_embstab.tables.table import Table, make_table, require_one_width
from dask_embstab.tables.writer import begin_run

RunLike = Run | str | os.PathLike[str]


def create_run(
    path: Any,
    items: TableLike | None = None,
    users: TableLike | None = None,
    *,
    item_ids: Any = None,
    user_ids: Any = None,
    name: str | None = None,
    chunk_rows: int | None = None,
) -> Run:
    """Write tables as a run, one read and one write each, and open it.

    Parameters
    ----------
    path
        Where the run will stand (a local path, or any store that Zarr opens); it must be free.
    items, users
        Tables (n, d) of float16, float32 or float64; at least one. Arrays, Dask arrays and Zarr arrays are streamed.
    item_ids, user_ids
        One int64 or string per row; without them the rows are known by their number.
    name
        Recorded name of the run; by default the last part of the path.
    chunk_rows
        Rows of a chunk; near 64 MiB by default.

    Raises
    ------
    InputError
        Where the tables cannot make a run; nothing is left behind.
    OutputExistsError
        Where something stands at ``path``.
    """
    given = {"items": (items, item_ids), "users": (users, user_ids)}
    tables = {key: _with_ids(key, *pair) for key, pair in given.items() if pair[0] is not None}
    if not tables:
        raise InputError("a run holds items, users or both; give at least one table")
    if chunk_rows is not None and chunk_rows < 1:
        raise InputError(f"chunk_rows must be at least 1; it is {chunk_rows}")
    require_one_width(tables.get("items"), tables.get("users"))
    local = local_path(path)
    name = name or (local.name.removesuffix(".zarr") if local else None)
    with begin_run(path, name=name, fingerprint="") as writer:
        nodes = []
        for key, table in tables.items():
            rows = chunk_rows or default_chunk_rows(table.d, table.dtype.itemsize)
            nodes.append(copy_table(writer, key, table, Landing(), dtype=table.dtype, width=table.d, chunk_rows=rows))
        compute([node for node, _ in nodes], label="writing", n_tasks=sum(n for _, n in nodes))
    return open_run(path)


def fit(
    items: TableLike | RunLike,
    users: TableLike | None = None,
    *,
    reference: RunLike | TableLike | None = None,
    keep: Keep | None = None,
    align_on: AlignOn = "items",
    method: Method = "auto",
    rank: int | None = None,
    width: int | None = None,
    balance: Balance | None = None,
    center: bool = False,
    weights: Any = None,
    min_matched: int | None = None,
) -> Transform:
    """Find the two small matrices that land a run in the reference's space.

    One read of each table that is needed (items with the reference's rows beside them, users for scores); where the
    Gramian cannot hold a table's condition number, ``method="auto"`` reads that table again, and the diagnostics say so.
    Memory: a few panels and a few (d, d) matrices per thread, and the ids where they must be joined.

    Parameters
    ----------
    items, users
        Tables (n, d); ``items`` may also be a run, or its path, that holds both.
    reference
        The run (or items table) to land on; None standardizes without a rotation.
    keep
        ``"scores"``: every users @ items.T stays (Zielnicki & Hsiao, arXiv 2508.07574); ``"geometry"``: every cosine and
        distance within the run stays, only a rotation is applied (Maystre et al., arXiv 2510.13406). Default: scores
        with users, geometry without.
    align_on
        The table whose shared rows decide the rotation: ``"items"``, ``"users"`` or ``"both"``.
    method
        Route to the factors: ``"gram"`` refuses what the Gramian cannot hold, ``"qr"`` is tall-skinny QR, ``"auto"``
        takes the Gramian where it serves and a preconditioned one beyond.
    rank
        Keep the best scores of this rank (Eckart & Young); scores mode only.
    width
        Components of the landed tables: by default the reference's, without one d (or ``rank``); zero-filled.
    balance
        Who gets the one scalar that scores leave free: ``"rows"`` gives both tables one second moment per row,
        ``"gramians"`` one Gramian (the paper's). Default: as the reference recorded, else rows.
    center
        Geometry mode: remove the means before rotating, add the reference's afterwards.
    weights
        (n,) weights of the rows in the alignment; standardizing ignores them.
    min_matched
        Refuse a fit with fewer shared rows than this. Default: the number of components in scores mode.

    Raises
    ------
    InputError
        (a ValueError) with what must hold, what came and what to do.
    """
    item_table, user_table = item_and_user_tables(items, users)
    landed_on = _reference(reference)
    keep = keep or ("geometry" if user_table is None else "scores")
    require_one_width(item_table, user_table)
    if keep == "scores" and user_table is None:
        raise InputError("keep='scores' needs users and items; give users, or use keep='geometry'")
    options = FitOptions(
        keep,
        align_on,
        method,
        rank,
        width,
        _balance(balance, landed_on),
        center,
        None if weights is None else _weights(weights, item_table),
        min_matched,
    )
    return fit_tables(item_table, user_table, landed_on, options)


def apply(
    transform: Transform | str | os.PathLike[str],
    run: RunLike,
    out: Any,
    *,
    dtype: Any = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Run:
    """Land every table of ``run`` and write it as a stabilized run at ``out``: one read and one write per table.

    Parameters
    ----------
    transform
        A `Transform`, the path of a saved one, or of a stabilized run.
    run
        A run, or its path, with items, users or both; d components.
    out
        Where the result appears, whole or not at all.
    dtype
        float16, float32 or float64 of the output; by default each table's own.
    overwrite
        Replace a run that stands at ``out``: it stays whole until the new one takes its place.
    resume
        Go on from the whole chunks that an interrupted call with the same arguments left.

    The product is float32 where the transform's own estimates allow it (design, step 9), float64 otherwise.
    """
    how = transform if isinstance(transform, Transform) else load_transform(transform)
    source = open_run(run)
    work = Apply(how, source, None if dtype is None else _float_dtype(dtype))
    with begin_run(
        out,
        name=source.name,
        fingerprint=work.fingerprint(),
        overwrite=overwrite,
        resume=resume,
        inputs=(source.path,),
    ) as writer:
        work.write(writer)
    return open_run(out)


def stabilize(
    run: RunLike,
    out: Any,
    *,
    reference: RunLike | TableLike | None = None,
    keep: Keep | None = None,
    align_on: AlignOn = "items",
    method: Method = "auto",
    rank: int | None = None,
    width: int | None = None,
    balance: Balance | None = None,
    center: bool = False,
    weights: Any = None,
    min_matched: int | None = None,
    dtype: Any = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Run:
    """`fit` a run onto the reference and `apply` the result: two reads and one write per table, in all."""
    source = open_run(run)
    source.table("items")
    transform = fit(
        source,
        reference=reference,
        keep=keep,
        align_on=align_on,
        method=method,
        rank=rank,
        width=width,
        balance=balance,
        center=center,
        weights=weights,
        min_matched=min_matched,
    )
    return apply(transform, source, out, dtype=dtype, overwrite=overwrite, resume=resume)


def evaluate(a: RunLike, b: RunLike, *, k: int = 100, users: int = 1000, seed: int = 0) -> Metrics:
    """How comparable two runs are: same-id cosine and length, and the overlap of their users' top lists.

    ``rank_correlation`` ranks, for ``users`` sampled shared users, a's users on a's items against b's users on b's
    items. Reads every table of both runs once for the cosines and the items once more for the rankings.
    """
    if k < 1 or users < 1:
        raise InputError(f"k and users must be at least 1; they are {k} and {users}")
    first, second = open_run(a), open_run(b)
    return measure_runs(first, second, k=k, n_users=users, seed=seed)


def load_transform(path: str | os.PathLike[str]) -> Transform:
    """The transform saved at ``path``: a file of `Transform.save`, or a stabilized run."""
    if not Path(path).is_dir():
        return Transform.load(path)
    stored = open_run(path).transform
    if stored is None:
        raise InputError(f"{path} is a run as training left it, without a transform; stabilize it first")
    return stored


def _with_ids(key: str, table: TableLike, ids: Any) -> Table:
    made = as_table(table, key=key)
    if ids is None:
        return made
    return make_table(made.source.array, ids, where=made.where, key=key)


def _reference(reference: Any) -> Reference | None:
    if reference is None:
        return None
    run = as_run(reference)
    if run is not None:
        made = run.transform
        balance = None if made is None else made.diagnostics.get("balance")
        return Reference(
            run.items,
            run.users,
            {"path": run.path, "name": run.name, "stabilized": made is not None, "balance": balance},
        )
    table = as_table(reference)
    return Reference(table, None, {"path": table.where, "name": None, "stabilized": None, "balance": None})


def _balance(asked: Balance | None, reference: Reference | None) -> Balance:
    recorded: Balance | None = None if reference is None else reference.described["balance"]
    if asked is None:
        return recorded or "rows"
    if recorded is not None and asked != recorded:
        warnings.warn(
            f"balance={asked!r} was asked for and the reference was made with {recorded!r}: the lengths of landed rows"
            " will differ from the reference's by a constant factor",
            EmbstabWarning,
            stacklevel=3,
        )
    return asked


def _weights(weights: Any, table: Table) -> Any:
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (table.n_rows,):
        raise InputError(
            f"weights needs one number per row of items, ({table.n_rows},); it has the shape {array.shape}"
        )
    if not (np.isfinite(array).all() and (array >= 0).all()):
        row = int(np.flatnonzero(~(np.isfinite(array) & (array >= 0)))[0])
        raise InputError(f"weights must be finite and not negative; row {row} has {array[row]}")
    return array


def _float_dtype(dtype: Any) -> np.dtype[Any]:
    made: np.dtype[Any] = np.dtype(dtype)
    if made.kind != "f" or made.itemsize > 8:
        raise InputError(f"dtype must be float16, float32 or float64; it is {made}")
    return made
