"""What does every exporter of a transform write? A linear layer for each table, ``rows @ weight +
bias``, and the convention in words.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import Matrix, Vector
from dask_embstab.errors import EmbstabWarning, InputError
from dask_embstab.repairs import option
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.transform import Transform

TableKey = Literal["items", "users"]
Write = Callable[[IO[bytes]], Any]
"""What fills a file."""
Arrays = dict[str, npt.NDArray[Any]]
CONVENTION = (
    "row vectors: y = x @ items + offsets; y = x @ users + users_offsets; no offsets: zeros"
)


@dataclass(frozen=True, slots=True)
class Layer:
    """The part of a transform that is for one table: a row x becomes ``x @ weight + bias``.

    ``weight`` (d, k) and ``bias`` (k,), zeros where the fit was not centred, are float64.
    ``product`` is the precision in which the fit's own estimates allow rows to be multiplied; None
    where they are not known.
    """

    key: TableKey
    weight: Matrix
    bias: Vector
    has_offset: bool
    product: str | None

    @property
    def d(self) -> int:
        """Components that go in."""
        return len(self.weight)

    @property
    def width(self) -> int:
        """Components that come out."""
        return int(self.weight.shape[1])

    def single(self, what: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Weight and bias in float32, for a format that computes in it; a warning where that is
        less than the fit's estimates ask for.
        """
        if self.product == "float64":
            warnings.warn(
                EmbstabWarning(
                    f"{what} multiplies in float32; the fit estimates that the {self.key} need"
                    " float64 to be within 1e-5 of apply; compare a batch with transform_items or"
                    " transform_users, or use numpy-source, sql or onnx, which use float64"
                ),
                stacklevel=2,
            )
        return self.weight.astype(np.float32), self.bias.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Layers:
    """What is exported: one layer or two, and texts that say where they come from."""

    layers: tuple[Layer, ...]
    transform: Transform
    described: Mapping[str, str]

    def only(self, format_name: str) -> Layer:
        """The one layer; an error where a format of one matrix was asked for two."""
        if len(self.layers) > 1:
            raise InputError(
                f"a file of format {format_name} holds the matrix of one table; the transform has"
                f" items and users; choose by {option(table='items')} or {option(table='users')}"
            )
        return self.layers[0]

    def named(
        self, weight: str, bias: str, separator: str, *, what: str, transposed: bool
    ) -> Arrays:
        """Arrays of all layers by ``weight`` and ``bias``; where there are two, by table and name.

        ``what`` is the format, ``transposed`` says that weights are stored (out, in).
        """
        arrays: Arrays = {}
        for layer in self.layers:
            before = f"{layer.key}{separator}" if len(self.layers) > 1 else ""
            matrix, offset = layer.single(what)
            arrays[f"{before}{weight}"] = np.ascontiguousarray(matrix.T) if transposed else matrix
            arrays[f"{before}{bias}"] = offset
        return arrays


def layers_of(transform: Transform, table: TableKey | None) -> Layers:
    """The layer of this table, or of every table that the transform has."""
    wanted = TABLES if table is None else (table,)
    layers = tuple(_layer(transform, key) for key in wanted if getattr(transform, key) is not None)
    if not layers:
        raise InputError(
            f"this transform was fitted without {table}; fit it on a run that has them"
        )
    return Layers(layers, transform, _described(transform))


def _layer(transform: Transform, key: Any) -> Layer:
    offset = getattr(transform, f"{key}_offset")
    return Layer(
        key,
        getattr(transform, key),
        np.zeros(transform.width) if offset is None else offset,
        offset is not None,
        (transform.diagnostics.get("product") or {}).get(key),
    )


def _described(transform: Transform) -> dict[str, str]:
    """Texts for a file's metadata, in ASCII: the convention, and how the transform came to be."""
    from importlib.metadata import version  # slow to import, and only a file needs it

    known = transform.diagnostics
    reference = known.get("reference") or {}
    alignment = known.get("alignment") or {}
    texts = {
        "convention": CONVENTION,
        "components": f"{transform.d} -> {transform.width}",
        "keep": known.get("keep"),
        "method": known.get("method"),
        "reference": reference.get("name") or reference.get("path"),
        "relative_error": alignment.get("relative_error"),
        "dask_embstab": version("dask_embstab"),
    }
    return {
        f"embstab.{name}": ascii(text)[1:-1] if isinstance(text, str) else str(text)
        for name, text in texts.items()
        if text is not None
    }
