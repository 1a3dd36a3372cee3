"""A transform as an ONNX model, alone or as the last layer of a tower's own model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dask_embstab.errors import EmbstabError, InputError
from dask_embstab.exchange.transforms.layer import Layer, Layers, Write
from dask_embstab.extras import require_extra
from dask_embstab.files.atomic import open_file
from dask_embstab.repairs import option

_OPSET, _IR = 13, 8
_OLDEST_OPSET = 9
"""From here on MatMul and Add take float64 and broadcast."""


def onnx(
    layers: Layers,
    *,
    append_to: str | os.PathLike[str] | None = None,
    tower_output: str | None = None,
) -> Write:
    """A model of ``x`` (rows, d) to ``y`` (rows, k), float32; or the model ``append_to`` with the
    transform behind its ``tower_output``, which keeps its name.

    Products are float64, between two casts, where the fit's estimates do not allow float32.
    Checked by onnx.checker before it is seen.
    """
    library = require_extra("onnx", "onnx", what="format onnx")
    layer = layers.only("onnx")
    if append_to is None:
        model = _model(library, layer)
    else:
        model = _extended(library, append_to, layer, tower_output)
    library.helper.set_model_props(model, {**_texts(model), **layers.described})
    try:
        library.checker.check_model(model, full_check=True)
        written = model.SerializeToString()
    except Exception as error:  # the checker's, protobuf's and the shape inference's own
        raise InputError(
            f"the model must be valid and of less than 2 GiB with the transform; {error}"
        ) from error
    return lambda file: file.write(written)


def _model(library: Any, layer: Layer) -> Any:
    helper, kind = library.helper, library.TensorProto.FLOAT
    nodes, arrays = _nodes(library, layer, "x", "y", kind)
    graph = helper.make_graph(
        nodes,
        f"embstab_{layer.key}",
        [helper.make_tensor_value_info("x", kind, ["rows", layer.d])],
        [helper.make_tensor_value_info("y", kind, ["rows", layer.width])],
        arrays,
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(
        graph, opset_imports=[opset], ir_version=_IR, producer_name="dask_embstab"
    )


def _nodes(
    library: Any, layer: Layer, source: str, target: str, kind: int
) -> tuple[list[Any], list[Any]]:
    """Nodes and initializers of ``target = source @ weight + bias``, both of this element type."""
    single, double = library.TensorProto.FLOAT, library.TensorProto.DOUBLE
    is_single = layer.product == "float32" and kind != double
    computed, dtype = (single, np.float32) if is_single else (double, np.float64)
    names = {part: f"embstab_{layer.key}_{part}" for part in ("weight", "bias", "in", "mul", "sum")}
    arrays = [
        library.numpy_helper.from_array(array.astype(dtype), names[part])
        for part, array in (("weight", layer.weight), ("bias", layer.bias))
    ]
    cast = kind != computed
    first, last = (names["in"], names["sum"]) if cast else (source, target)
    make = library.helper.make_node
    nodes = [
        make("MatMul", [first, names["weight"]], [names["mul"]]),
        make("Add", [names["mul"], names["bias"]], [last]),
    ]
    if cast:
        nodes.insert(0, make("Cast", [source], [first], to=computed))
        nodes.append(make("Cast", [last], [target], to=kind))
    return nodes, arrays


def _extended(library: Any, place: Any, layer: Layer, output: str | None) -> Any:
    """The tower's model with the transform between its output's node and its output."""
    model = _loaded(library, place)
    graph = model.graph
    last = _output(graph, output, place)
    tensor = last.type.tensor_type
    floats = {getattr(library.TensorProto, name) for name in ("FLOAT16", "FLOAT", "DOUBLE")}
    shape = [dim.dim_value for dim in tensor.shape.dim]
    if tensor.elem_type not in floats or (shape and shape[-1] not in (0, layer.d)):
        kind = library.TensorProto.DataType.Name(tensor.elem_type)
        raise InputError(
            f"the output {last.name!r} of {place} must be floats of {layer.d} components, which the"
            f" transform takes; it is {kind} of {shape[-1] if shape else 'no'} components"
        )
    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 1)
    if version < _OLDEST_OPSET:
        raise InputError(
            f"{place} must use operator set {_OLDEST_OPSET} or later; it uses {version}; convert"
            " it with onnx.version_converter"
        )

    inner = f"{last.name}_before_embstab"
    taken = {name for node in _all_nodes(graph) for name in (*node.input, *node.output)}
    if inner in taken or f"embstab_{layer.key}_mul" in taken:
        raise InputError(
            f"a transform is appended once; {place} has one behind {last.name!r} already; append to"
            " the model as it was trained"
        )
    if not any(last.name in node.output for node in graph.node):
        raise InputError(
            f"the output {last.name!r} of {place} must be computed by the model; it is one of its"
            " inputs or constants"
        )
    _rename(graph, last.name, inner)
    nodes, arrays = _nodes(library, layer, inner, last.name, tensor.elem_type)
    graph.node.extend(nodes)
    graph.initializer.extend(arrays)
    if shape:
        tensor.shape.dim[len(shape) - 1].dim_value = layer.width
    return model


def _loaded(library: Any, place: Any) -> Any:
    try:
        if isinstance(place, str | os.PathLike):
            open_file(place).close()
            return library.load(place)
    except EmbstabError:
        raise
    except FileNotFoundError:
        raise InputError(f"there is no ONNX model at {place}; give the tower's file") from None
    except Exception as error:
        raise InputError(f"{place} is no ONNX model ({error}); give the tower's file") from error
    raise InputError(f"{option('append_to')} must be the path of an ONNX model")


def _output(graph: Any, name: str | None, place: Any) -> Any:
    names = [one.name for one in graph.output]
    if name is None and len(names) == 1:
        return graph.output[0]
    if name not in names:
        came = f"{option(tower_output=name)} came" if name else "none was chosen"
        raise InputError(
            f"the transform goes behind one output; {place} has {', '.join(names)}, and {came};"
            f" name one with {option('tower_output')}"
        )
    return graph.output[names.index(name)]


def _all_nodes(graph: Any) -> Iterator[Any]:
    """Its nodes and those of graphs within them (branches, loops)."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for within in (*inner, *attribute.graphs):
                yield from _all_nodes(within)


def _rename(graph: Any, old: str, new: str) -> None:
    """Another name for a value, wherever nodes write or read it."""
    for node in _all_nodes(graph):
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new


def _texts(model: Any) -> Mapping[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
