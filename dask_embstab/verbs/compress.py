"""Verbs about runs whose rows are stored as codes of a few bytes."""

from __future__ import annotations

from typing import Any

from dask_embstab.errors import verb
from dask_embstab.passes.compress import compress_run
from dask_embstab.passes.engine.output import require_output
from dask_embstab.passes.frontier import Frontier, measure, resolve_codes
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
        ``"sign"`` with the row's length; or product quantization, ``"pq16"``: 16 parts, a byte
        each, whose codebooks are fitted to up to 65,536 rows drawn by their ids.
    budget
        ``"recall@10=0.95"``: the smallest code that keeps 95 % of the ten best items of a query;
        ``"bytes=24"``: the best one of at most so many bytes a row. Every code is measured on
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
    source = run_of(run, users)
    name, inputs = source.name if source.path is not None else name_at(out), paths_of(source.path)
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
def frontier(run: RunLike | TableLike, *, k: int = 10, seed: int = 0) -> Frontier:
    """What every code that needs no training keeps of a run, by the bytes of a row.

    Up to 1,000 sampled queries (users by dot product; items by cosine where there are no users)
    search up to 65,536 sampled items, as they are and as each code gives them back, plain and
    rotated: recall at ``k`` and rank-biased overlap with 95 % intervals, the relative error of
    scores, and the slope of exact scores on coded ones. ``seed`` draws the rows and the rotation.
    Reads the sampled rows alone.

    Raises `InputError` where there are not more than ``k`` items.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> items = np.random.default_rng(0).normal(size=(500, 16))
    >>> [(e.code, e.n_bytes) for e in es.frontier({"items": items}).entries if not e.rotate][:3]
    [('sign', 4), ('int4', 10), ('int5', 12)]
    """
    return measure(run_of(run), k=k, seed=seed)
