"""Land a whole run: the steps that the verbs and a series share."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.fit_transform import Keep
from dask_embstab.errors import InputError
from dask_embstab.passes.apply import Apply
from dask_embstab.passes.engine.output import require_output
from dask_embstab.repairs import option
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.transform import Transform
from dask_embstab.tables.write.run_writer import begin_run


def resolve_keep(keep: Keep | None, *, users: Any) -> Keep:
    """Scores where there are users, geometry where not, unless the user says."""
    if keep == "scores" and users is None:
        raise InputError(
            f"{option(keep='scores')} needs users and items; there are no users; give them",
            f"{option(keep='geometry')} needs items alone",
        )
    return keep or ("geometry" if users is None else "scores")


def transform_run(
    transform: Transform,
    source: Run,
    out: Any,
    *,
    name: str | None,
    dtype: Any,
    overwrite: bool,
    resume: bool,
    sync: bool = True,
    for_series: bool = False,
    inputs: tuple[str, ...],
) -> Run:
    """Write every table of ``source`` as a stabilized run at ``out``, outside of every input, and
    open it.
    """
    require_output(out, inputs, overwrite=overwrite, for_series=for_series)
    work = Apply(transform, source, None if dtype is None else _float_dtype(dtype))
    with (
        begin_run(
            out,
            name=name,
            fingerprint=work.fingerprint(),
            overwrite=overwrite,
            resume=resume,
            sync=sync,
            for_series=for_series,
            inputs=inputs,
        ) as writer,
        unchanged(*work.tables.values()),
    ):
        work.write(writer)

    return open_run(out)


def _float_dtype(dtype: Any) -> np.dtype[Any]:
    made = np.dtype(object)
    if isinstance(
        dtype, str | type | np.dtype
    ):  # what merely has a dtype is something else, given by mistake
        with contextlib.suppress(TypeError, ValueError):
            made = np.dtype(dtype)
    if made.kind != "f" or made.itemsize > 8:
        raise InputError(f"dtype must be float16, float32 or float64; it is {shown(dtype)}")
    return made
