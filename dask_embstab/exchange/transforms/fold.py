"""A transform folded into the last layer of the model that makes the rows: no layer is added."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dask_embstab.errors import InputError
from dask_embstab.exchange.transforms.layer import TableKey, layers_of
from dask_embstab.repairs import option
from dask_embstab.tables.transform import Transform, real_array

Layout = Literal["out_in", "in_out"]


def folded(
    transform: Transform, weight: Any, bias: Any, *, table: TableKey, layout: Layout
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Weight and bias of a layer that gives what the transform makes of this layer's rows."""
    layer = layers_of(transform, table).layers[0]
    W = real_array(weight, "the weight of a layer", 2)
    into = W if layout == "in_out" else W.T
    if not len(into):
        raise InputError(f"a layer must have at least one input; its weight is {W.shape}")
    if into.shape[1] != layer.d:
        order = "(in, out)" if layout == "in_out" else "(out, in)"
        raise InputError(
            f"a layer must give the {layer.d} components that the transform takes; with"
            f" {option(layout=layout)} the weight is {order}, and it is {W.shape}"
        )
    b = None if bias is None else real_array(bias, "the bias of a layer", 1)
    if b is not None and b.shape != (layer.d,):
        raise InputError(
            f"the bias of a layer must have one value per component, ({layer.d},); it has {b.shape}"
        )

    made = into @ layer.weight
    kind = np.asarray(weight).dtype
    dtype = kind if kind.kind == "f" else np.dtype(np.float64)
    out = np.ascontiguousarray(made if layout == "in_out" else made.T).astype(dtype, copy=False)
    if b is None and not layer.has_offset:
        return out, None
    moved = layer.bias if b is None else b @ layer.weight + layer.bias
    return out, moved.astype(dtype, copy=False)
