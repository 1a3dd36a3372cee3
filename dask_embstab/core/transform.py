"""The result: two small matrices (row vectors, y = x @ M) that land a run, and what is known about them."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dask_embstab.core.inverse import pseudo_inverse
from dask_embstab.core.types import Matrix, Rows, Vector
from dask_embstab.display import Displayed
from dask_embstab.errors import DamageError, EmbstabError, InputError
from dask_embstab.files.atomic import open_file, write_whole
from dask_embstab.files.npz import read_npz
from dask_embstab.repairs import call

_ARRAYS = {"items": 2, "users": 2, "singular_values": 1, "offsets": 1, "users_offsets": 1}
"""Stored arrays and their axes."""
_FIGURES: tuple[tuple[str, str, Any], ...] = (
    ("items", "energy", int | float),
    ("users", "energy", int | float),
    ("items", "digests", list | tuple),
    ("users", "digests", list | tuple),
    ("reference", "path", str),
    ("truncation", "frobenius_error", int | float),
)
"""What is read of stored diagnostics, and what it must be where it is there."""


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Transform(Displayed):
    """``items`` (d, k) and ``users`` (d, k) or None, both float64: a row x lands at ``x @ items + offset``.

    ``singular_values`` are those of the score matrix (scores mode) or of the items table (geometry mode), descending.
    ``items_offset`` and ``users_offset`` (k,) stand only where the fit was centred. ``diagnostics`` is a nested dict of
    plain JSON values.
    """

    items: Matrix
    users: Matrix | None
    singular_values: Vector
    items_offset: Vector | None = None
    users_offset: Vector | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.items.ndim != 2:
            raise InputError(f"a transform's items must be a (d, k) matrix; it has the shape {self.items.shape}")
        if self.users is not None and self.users.shape != self.items.shape:
            raise InputError(f"both matrices need one shape; items has {self.items.shape}, users {self.users.shape}")

    @property
    def d(self) -> int:
        """Components that go in."""
        return int(self.items.shape[0])

    @property
    def width(self) -> int:
        """Components that come out."""
        return int(self.items.shape[1])

    def _facts(self) -> dict[str, object]:
        known = self.diagnostics
        reference = known.get("reference")
        alignment = known.get("alignment")
        return {
            "components": f"{self.d} -> {self.width}",
            "tables": "items" if self.users is None else "items and users",
            "keep": known.get("keep"),
            "method": known.get("method"),
            "reference": reference.get("name") or reference.get("path") if isinstance(reference, Mapping) else None,
            "relative_error": alignment.get("relative_error") if isinstance(alignment, Mapping) else None,
        }

    def transform_items(self, rows: Rows) -> Rows:
        """Land item rows, (n, d) to (n, k), or one row, (d,) to (k,); float64 products, the rows' float dtype back."""
        return _land(rows, self.items, self.items_offset)

    def transform_users(self, rows: Rows) -> Rows:
        """Land user rows, as ``transform_items`` does items."""
        if self.users is None:
            raise InputError("this transform was fitted without users; fit it on a run that has them")
        return _land(rows, self.users, self.users_offset)

    def inverse(self) -> Transform:
        """The transform that undoes this one: the pseudo-inverse where it is rank-deficient."""
        items, items_offset = _inverse(self.items, self.items_offset)
        users, users_offset = (None, None) if self.users is None else _inverse(self.users, self.users_offset)
        diagnostics = {"inverse_of": dict(self.diagnostics)}
        return Transform(items, users, self.singular_values, items_offset, users_offset, diagnostics)

    def compose(self, other: Transform) -> Transform:
        """First this transform, then ``other``: ``a.compose(b).transform_items(x) == b(a(x))``."""
        if other.d != self.width:
            raise InputError(
                f"compose applies this transform first: it gives {self.width} components and the other takes {other.d}"
            )
        users = None if self.users is None or other.users is None else self.users @ other.users
        return Transform(
            self.items @ other.items,
            users,
            self.singular_values,
            _chained(self.items_offset, other.items, other.items_offset),
            None if other.users is None else _chained(self.users_offset, other.users, other.users_offset),
            {"composed_of": [dict(self.diagnostics), dict(other.diagnostics)]},
        )

    def arrays(self) -> dict[str, Matrix | Vector]:
        """Its arrays by the names they have on disk; absent ones are left out."""
        named = {
            "items": self.items,
            "users": self.users,
            "singular_values": self.singular_values,
            "offsets": self.items_offset,
            "users_offsets": self.users_offset,
        }
        return {name: array for name, array in named.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], diagnostics: Mapping[str, Any]) -> Transform:
        """The inverse of ``arrays``; ValueError where they, or ``diagnostics``, cannot be those of a transform."""
        _require_diagnostics(diagnostics)
        made = {name: _stored(name, array) for name, array in arrays.items() if name in _ARRAYS}
        users, offset, users_offset = (made.get(name) for name in ("users", "offsets", "users_offsets"))
        for name, of in (("offsets", offset), ("users_offsets", users_offset)):
            if of is not None and of.shape != made["items"].shape[1:]:
                raise ValueError(f"its {name} have the shape {of.shape}, its items {made['items'].shape}")
        return cls(made["items"], users, made["singular_values"], offset, users_offset, diagnostics)

    def save(self, path: str | os.PathLike[str], *, sync: bool = True) -> None:
        """Write one file (NumPy's npz) at ``path``, over what stood there.

        It appears whole or not at all, and with ``sync`` it is on the disk by then.
        """
        arrays: dict[str, Any] = {"diagnostics": np.array(json.dumps(dict(self.diagnostics))), **self.arrays()}
        write_whole(path, lambda file: np.savez(file, **arrays), sync=sync)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Transform:
        """Read what ``save`` wrote."""
        try:
            with open_file(path) as file:
                arrays = read_npz(file)
            return cls.from_arrays(arrays, json.loads(str(arrays.pop("diagnostics"))))
        except EmbstabError:
            raise
        except FileNotFoundError:
            raise InputError(f"there is no transform at {path}; write one with {call('fit')}") from None
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise DamageError(f"{path} is not a whole transform file ({error}); write it again") from error


def _stored(name: str, array: Any) -> Any:
    """An array as it was written: finite numbers along as many axes as it has."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu" or array.ndim != _ARRAYS[name] or not np.isfinite(array).all():
        raise ValueError(
            f"its {name} must be finite numbers on {_ARRAYS[name]} axes; they are {array.dtype} {array.shape}"
        )
    return array.astype(np.float64, copy=False)


def _require_diagnostics(diagnostics: Any) -> None:
    """Raise ValueError unless what the library itself asks them for has the form that it writes."""
    if not isinstance(diagnostics, Mapping):
        raise ValueError(f"its diagnostics must be an object; they are a {type(diagnostics).__name__}")
    for name in ("items", "users", "reference", "alignment", "truncation", "product"):
        value = diagnostics.get(name, {})
        if not isinstance(value, Mapping) and (value is not None or name == "product"):
            raise ValueError(f"its {name} among the diagnostics must be an object; it is a {type(value).__name__}")
    for name, key, kind in _FIGURES:
        found = (diagnostics.get(name) or {}).get(key)
        if found is not None and (not isinstance(found, kind) or isinstance(found, bool)):
            raise ValueError(f"its {name}.{key} among the diagnostics cannot be a {type(found).__name__}")
    digests = [number for name in ("items", "users") for number in (diagnostics.get(name) or {}).get("digests") or []]
    if not all(type(number) is int for number in digests):
        raise ValueError("its digests must be whole numbers")


def _land(rows: Rows, M: Matrix, offset: Vector | None) -> Rows:
    rows = np.asarray(rows)
    if rows.ndim not in (1, 2) or rows.shape[-1] != len(M):
        raise InputError(f"rows must be (n, {len(M)}) or ({len(M)},); they are {rows.shape}")
    dtype = rows.dtype if rows.dtype.kind == "f" else np.dtype(np.float64)
    landed = np.asarray(rows, dtype=np.float64, order="C") @ M
    return np.asarray(landed if offset is None else landed + offset).astype(dtype, copy=False)


def _inverse(M: Matrix, offset: Vector | None) -> tuple[Matrix, Vector | None]:
    inverse = pseudo_inverse(M)
    return inverse, None if offset is None else -offset @ inverse


def _chained(offset: Vector | None, M: Matrix, then: Vector | None) -> Vector | None:
    if offset is None:
        return then
    return offset @ M if then is None else offset @ M + then
