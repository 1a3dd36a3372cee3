"""Verbs about runs whose rows are stored as codes of a few bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dask_embstab.errors import InputError, verb
from dask_embstab.files.atomic import require_file_place, write_whole
from dask_embstab.files.published import publishing
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.passes.code_trials import Frontier, measure
from dask_embstab.passes.compress import compress_run
from dask_embstab.passes.engine.output import require_output
from dask_embstab.passes.frontier import resolve_codes
from dask_embstab.repairs import option
from dask_embstab.tables.coerce import TableLike, run_of
from dask_embstab.tables.inputs import one_reading, unchanged
from dask_embstab.tables.run import Run, RunLike
from dask_embstab.verbs.given import name_at, paths_of


@verb()
def compress(
    run: RunLike | TableLike,
    out: Any,
    *,
    code: str | None = None,
    budget: str | None = None,
    rotate: bool = False,
    rank: int | None = None,
    seed: int = 0,
    like: RunLike | None = None,
    force: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    sync: bool = True,
    users: TableLike | None = None,
    storage_options: StorageOptions | None = None,
) -> Run:
    """Write a run whose rows are stored as codes of a few bytes: one read and one write per table.

    The result opens and reads like any run: rows are decoded, to float32, by whoever reads them.
    Codes are fixed, or fitted once and frozen (``like``): one row has one code on every day, so
    that the codes of runs aligned to one space are comparable (``docs/compression.md``).

    Parameters
    ----------
    run
        A run, or its path, with items, users or both; or tables in memory, as `apply` takes them.
    out
        Where the result appears, whole or not at all.
    code
        What a component becomes: ``"float16"``, ``"bfloat16"``, or a whole number of 8, 6, 5 or 4
        bits with a 16-bit scale per row (``"int8"``, the default, ... ``"int4"``), or its
        ``"sign"`` with the row's length; ``"int8-component"`` and so on: whole numbers with a scale
        per component, frozen at 1.25 times the range of this run (one more read); or product
        quantization, ``"pq16"``: 16 parts, a byte each; or residual quantization, ``"rq16"``: 16
        entries that add up to the row, a byte each. Codebooks are fitted to up to 65,536 rows drawn
        by their ids.
    budget
        ``"recall@10=0.95"``: the smallest code that keeps 95 % of the ten best items of a query;
        ``"bytes=24"``: the best one of at most so many bytes a row; ``"score_error=0.05"``: the
        smallest one whose scores are off by at most 5 % (root mean square, relative), truncations
        to the fewest leading directions that allow it among them. Every code is measured on
        sampled queries (users, or items where there are none) and items; the choice is certified on
        other queries over all items, whose 95 % interval must reach the recall. What was measured
        is recorded in the attributes of the run (``compressed``).
    rotate
        Turn rows by a random rotation first, the same for every run with this ``seed``: components
        of very different size are then coded alike.
    rank
        Keep that many leading directions of the items: of a stabilized run the best scores of that
        rank. One more read.
    seed
        Of the rotation, the sampled rows and the codebooks.
    like
        A compressed run whose code, codebooks included, is used as it is.
    force
        Fit codebooks to fewer rows than the 10,000 that they need.
    overwrite, resume, sync
        As in `apply`.
    users
        The table of users, where ``run`` is a table of items.

    Raises
    ------
    InputError
        Where the code or an option is none, or no code is within the budget; `NotFiniteError` where
        a row is not finite, or lies beyond the range of its code.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> items = np.random.default_rng(0).normal(size=(1000, 32))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     small = es.compress({"items": items}, f"{folder}/small.zarr", code="int8")
    ...     print(small.items.dtype, round(es.evaluate(items, small).items.mean_cosine, 4))
    float32 1.0
    """
    run, out, like, users = bound(storage_options, run, out, like, users)
    source = run_of(run, users)
    name, inputs = source.name if source.path is not None else name_at(out), paths_of(source)
    require_output(out, inputs, overwrite=overwrite)
    with one_reading():
        with unchanged(source.items, source.users):  # from the first look, which chooses the code
            codes, record = resolve_codes(
                source,
                code=code,
                budget=budget,
                rotate=rotate,
                rank=rank,
                seed=seed,
                like=None if like is None else run_of(like),
                force=force,
            )
        return compress_run(
            source,
            out,
            codes,
            record=record,
            name=name,
            overwrite=overwrite,
            resume=resume,
            sync=sync,
            inputs=inputs,
        )


@verb()
def frontier(
    run: RunLike | TableLike,
    *,
    k: int = 10,
    seed: int = 0,
    groups: Any = None,
    codes: str | Sequence[str] | None = None,
    rank: int | None = None,
    force: bool = False,
    out: str | os.PathLike[str] | None = None,
    storage_options: StorageOptions | None = None,
) -> Frontier:
    """What codes keep of a run, by the bytes of a row: measured on its own rows, and drawn.

    Up to 1,000 sampled queries (users by dot product; items by cosine where there are no users)
    search up to 65,536 sampled items, as they are and as each code gives them back, plain and
    rotated: recall at ``k``, nDCG and rank-biased overlap with 95 % intervals, the relative error
    of scores, and the slope of exact scores on coded ones; the same for the head of the items (the
    fewest that fill half of the exact lists) and for the long tail. Coarse codes are measured once
    more with their best rescored by float16 rows. Reads the sampled rows alone.

    Parameters
    ----------
    run
        A run, or its path, or tables in memory, as `compress` takes them.
    k
        Length of the lists.
    seed
        Another sample, other rotations and codebooks.
    groups
        Groups of the items or of the queries whose figures are given apart: as in `evaluate`.
    codes
        Names as `compress` takes them, ``pq16`` too, or one text with commas. Default: all that
        need no training.
    rank
        Also chains: truncated to so many leading directions, then rotated or not, then coded.
    force
        Fit codebooks to fewer than 10,000 rows.
    out
        Where the drawing is written as an HTML page; in a notebook the result draws itself.

    Notes
    -----
    Raises `InputError` where there are not more than ``k`` items, or an option is none.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> items = np.random.default_rng(0).normal(size=(500, 16))
    >>> frontier = es.frontier({"items": items}, codes="sign,int4")
    >>> [(one.code, one.n_bytes, one.rescored) for one in frontier.entries if not one.rotate]
    [('sign', 4, 0), ('sign', 4, 100), ('int4', 10, 0), ('int4', 10, 100)]
    """
    run, out = bound(storage_options, run, out)
    if out is not None:
        require_file_place(out)
    source = run_of(run)
    if rank is not None and not 0 < rank <= source.table("items").d:
        raise InputError(
            f"{option(rank=rank)} must lie between 1 and {source.table('items').d}, the components"
        )
    with unchanged(source.items, source.users):
        measured = measure(
            source,
            k=k,
            seed=seed,
            groups=groups,
            codes=codes,
            ranks=() if rank is None else (rank,),
            force=force,
        )
    if out is not None:
        data = measured.html.encode()
        with publishing(out):
            write_whole(out, lambda file: file.write(data), sync=True)
    return measured
