"""Transforms as objects of PyTorch and faiss, saved as these libraries save them."""

from __future__ import annotations

from dask_embstab.exchange.transforms.layer import Layers, Write
from dask_embstab.extras import require_extra


def torch(layers: Layers) -> Write:
    """The state dict of a ``torch.nn.Linear(d, k)``, or of a ``ModuleDict`` of two, ``items`` and
    ``users``: ``weight`` (out, in) and ``bias``, float32.
    """
    library = require_extra("torch", "torch", what="format torch")
    arrays = layers.named("weight", "bias", ".", what="format torch", transposed=True)
    state = {name: library.from_numpy(array.copy()) for name, array in arrays.items()}
    return lambda file: library.save(state, file)


def faiss(layers: Layers) -> Write:
    """A ``faiss.LinearTransform`` for ``faiss.read_VectorTransform`` and ``IndexPreTransform``,
    float32.
    """
    library = require_extra("faiss", "faiss", what="format faiss")
    layer = layers.only("faiss")
    weight, bias = layer.single("format faiss")
    linear = library.LinearTransform(layer.d, layer.width, True)  # noqa: FBT003 (faiss's own)
    library.copy_array_to_vector(weight.T.ravel(), linear.A)
    library.copy_array_to_vector(bias, linear.b)
    linear.is_trained = True
    linear.set_is_orthonormal()
    writer = library.VectorIOWriter()
    library.write_VectorTransform(linear, writer)
    data = library.vector_to_array(writer.data)
    return lambda file: file.write(data.tobytes())
