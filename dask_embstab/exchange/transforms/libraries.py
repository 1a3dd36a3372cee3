"""Transforms as objects of PyTorch and faiss, saved as these libraries save them."""

from __future__ import annotations

from typing import Any

from dask_embstab.exchange.transforms.layer import Layers
from dask_embstab.extras import require_extra
from dask_embstab.files.atomic import write_whole


def write_torch(layers: Layers, out: Any) -> None:
    """The state dict of a ``torch.nn.Linear(d, k)``, or of a ``ModuleDict`` of two, ``items`` and
    ``users``: ``weight`` (out, in) and ``bias``, float32.
    """
    torch = require_extra("torch", "torch", what="format torch")
    arrays = layers.named("weight", "bias", ".", what="format torch", transposed=True)
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    write_whole(out, lambda file: torch.save(state, file))


def write_faiss(layers: Layers, out: Any) -> None:
    """A ``faiss.LinearTransform`` for ``faiss.read_VectorTransform`` and ``IndexPreTransform``,
    float32.
    """
    faiss = require_extra("faiss", "faiss", what="format faiss")
    layer = layers.only("faiss")
    weight, bias = layer.single("format faiss")
    linear = faiss.LinearTransform(layer.d, layer.width, True)  # noqa: FBT003 (faiss's own)
    faiss.copy_array_to_vector(weight.T.ravel(), linear.A)
    faiss.copy_array_to_vector(bias, linear.b)
    linear.is_trained = True
    linear.set_is_orthonormal()
    writer = faiss.VectorIOWriter()
    faiss.write_VectorTransform(linear, writer)
    data = faiss.vector_to_array(writer.data)
    write_whole(out, lambda file: file.write(data.tobytes()))
