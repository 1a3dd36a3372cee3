"""Verbs about a transform that leaves the house: into the last layer of a model."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt

from dask_embstab.errors import verb
from dask_embstab.exchange.transforms.fold import Layout, folded
from dask_embstab.exchange.transforms.layer import TableKey
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.tables.transform import Transform
from dask_embstab.verbs.runs import load_transform


@verb()
def fold(
    transform: Transform | str | os.PathLike[str],
    weight: Any,
    bias: Any = None,
    *,
    layout: Layout,
    table: TableKey = "items",
    storage_options: StorageOptions | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Weight and bias of a model's last layer with the transform in it: the model then gives
    transformed rows, at no cost (Zielnicki & Hsiao, arXiv 2508.07574).

    Parameters
    ----------
    transform
        A `Transform`, the path of a saved one, or of a stabilized run.
    weight
        Of the linear layer that makes the rows: real numbers, n inputs by d components.
    bias
        Of that layer, (d,); None where it has none.
    layout
        How the weight is stored: ``"out_in"``, (d, n), as ``torch.nn.Linear`` does, or
        ``"in_out"``, (n, d), as Keras' ``Dense`` does. There is no default, because a square
        weight fits both.
    table
        Whose rows the model makes: ``"items"`` or ``"users"``.

    Returns
    -------
    weight, bias
        In the weight's layout and float dtype, (k, n) or (n, k), and (k,). The bias is None where
        the layer had none and the transform moves no origin; else a layer without one needs one.

    Raises
    ------
    InputError
        Where the layer does not give the d components that the transform takes.

    Examples
    --------
    >>> fitted = es.fit(tuesday, reference=monday)
    >>> hidden, kernel = np.ones((2, 3)), np.arange(12.0).reshape(3, 4)
    >>> folded, _ = es.fold(fitted, kernel, layout="in_out")
    >>> bool(np.allclose(hidden @ folded, fitted.transform_items(hidden @ kernel)))
    True
    """
    (transform,) = bound(storage_options, transform)
    made = transform if isinstance(transform, Transform) else load_transform(transform)
    return folded(made, weight, bias, table=table, layout=layout)
