"""The result: two small matrices (row vectors, y = x @ M) that align a run, with the diagnostics of
the fit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dask_embstab.arguments import offers, shown
from dask_embstab.core.matrix.inverse import pseudo_inverse
from dask_embstab.core.types import Matrix, Rows, Vector
from dask_embstab.display import Displayed
from dask_embstab.errors import DamageError, EmbstabError, InputError
from dask_embstab.files.atomic import open_file, write_whole
from dask_embstab.files.npz import read_npz
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.files.stored_json import parsed_json
from dask_embstab.repairs import call
from dask_embstab.tables.diagnostics import require_diagnostics

_STORED = {
    "items": "items",
    "users": "users",
    "singular_values": "singular_values",
    "items_offset": "offsets",
    "users_offset": "users_offsets",
}
"""By array, its name on disk."""
STORED_ARRAYS = tuple(_STORED.values())


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Transform(Displayed):
    """``items`` (d, k) and ``users`` (d, k) or None, both float64: a row x becomes ``x @ items +
    offset``.

    ``singular_values`` are those of the score matrix (scores mode) or of the items table (geometry
    mode), descending. ``items_offset`` and ``users_offset`` (k,) stand only where the fit was
    centred. ``diagnostics`` is a nested dict of plain JSON values.

    Examples
    --------
    >>> fitted = es.fit(tuesday, reference=monday)
    >>> fitted.items.shape, fitted.diagnostics["keep"]
    ((4, 4), 'scores')
    """

    items: Matrix
    users: Matrix | None
    singular_values: Vector
    items_offset: Vector | None = None
    users_offset: Vector | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _STORED:
            if (given := getattr(self, name)) is not None or name in ("items", "singular_values"):
                n_axes = 2 if name in ("items", "users") else 1
                array = real_array(given, f"the {name} of a transform", n_axes)
                object.__setattr__(self, name, array)

        if not self.items.size or len(self.singular_values) > max(self.items.shape):
            raise InputError(
                "a transform has components and at most one singular value for each; items has the"
                f" shape {self.items.shape}, and there are {len(self.singular_values)} singular"
                " values"
            )
        if self.users is not None and self.users.shape != self.items.shape:
            raise InputError(
                f"both matrices need one shape; items has {self.items.shape}, users"
                f" {self.users.shape}"
            )

        for name in ("items_offset", "users_offset"):
            if (offset := getattr(self, name)) is not None and len(offset) != self.width:
                raise InputError(
                    f"{name} must have one value per component, ({self.width},); it has"
                    f" {offset.shape}"
                )

        if not isinstance(self.diagnostics, Mapping):
            raise InputError(
                f"the diagnostics of a transform must be a dict; they are {shown(self.diagnostics)}"
            )

    @property
    def d(self) -> int:
        """Components that go in."""
        return int(self.items.shape[0])

    @property
    def width(self) -> int:
        """Components that come out."""
        return int(self.items.shape[1])

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "Transform", self.arrays(), json.dumps(dict(self.diagnostics), sort_keys=True)

    def _facts(self) -> dict[str, object]:
        known = self.diagnostics
        reference = known.get("reference")
        alignment = known.get("alignment")
        return {
            "components": f"{self.d} -> {self.width}",
            "tables": "items" if self.users is None else "items and users",
            "keep": known.get("keep"),
            "method": known.get("method"),
            "reference": (
                reference.get("name") or reference.get("path")
                if isinstance(reference, Mapping)
                else None
            ),
            "relative_error": (
                alignment.get("relative_error") if isinstance(alignment, Mapping) else None
            ),
        }

    def transform_items(self, rows: Rows) -> Rows:
        """Transform item rows, (n, d) to (n, k), or one row, (d,) to (k,); float64 products, the
        rows' float dtype back.

        Examples
        --------
        >>> rows = tuesday.items.rows_of(["i0", "i1"])
        >>> es.fit(tuesday, reference=monday).transform_items(rows).shape
        (2, 4)
        """
        return _transform_rows(rows, self.items, self.items_offset)

    def transform_users(self, rows: Rows) -> Rows:
        """Transform user rows, as ``transform_items`` does items.

        Examples
        --------
        >>> rows = tuesday.users.rows_of(["u0"])
        >>> es.fit(tuesday, reference=monday).transform_users(rows).shape
        (1, 4)
        """
        if self.users is None:
            raise InputError(
                "this transform was fitted without users; fit it on a run that has them"
            )
        return _transform_rows(rows, self.users, self.users_offset)

    def inverse(self) -> Transform:
        """The transform that undoes this one: the pseudo-inverse where it is rank-deficient.

        Examples
        --------
        >>> fitted = es.fit(tuesday, reference=monday)
        >>> rows = tuesday.items.rows_of(["i0", "i1"])
        >>> there = fitted.transform_items(rows)
        >>> bool(np.allclose(fitted.inverse().transform_items(there), rows))
        True
        """
        items, items_offset = _inverse(self.items, self.items_offset)
        users, users_offset = (
            (None, None) if self.users is None else _inverse(self.users, self.users_offset)
        )
        diagnostics = {"inverse_of": dict(self.diagnostics)}
        return Transform(
            items, users, self.singular_values, items_offset, users_offset, diagnostics
        )

    def compose(self, other: Transform) -> Transform:
        """First this transform, then ``other``: ``a.compose(b).transform_items(x) == b(a(x))``.

        Examples
        --------
        >>> fitted = es.fit(tuesday, reference=monday)
        >>> both = fitted.compose(fitted.inverse())
        >>> bool(np.allclose(both.items, np.eye(4)))
        True
        """
        if not isinstance(other, Transform):
            raise InputError(
                f"compose takes another transform; {shown(other)} came; load_transform reads a"
                " saved one"
            )
        if other.d != self.width:
            raise InputError(
                f"compose applies this transform first: it gives {self.width} components and the"
                f" other takes {other.d}"
            )

        users = users_offset = None
        if other.users is not None:
            users = None if self.users is None else self.users @ other.users
            users_offset = _chained(self.users_offset, other.users, other.users_offset)
        return Transform(
            self.items @ other.items,
            users,
            self.singular_values,
            _chained(self.items_offset, other.items, other.items_offset),
            users_offset,
            {"composed_of": [dict(self.diagnostics), dict(other.diagnostics)]},
        )

    def arrays(self) -> dict[str, Matrix | Vector]:
        """Its arrays by the names they have on disk; absent ones are left out.

        Examples
        --------
        >>> sorted(es.fit(tuesday, reference=monday).arrays())
        ['items', 'singular_values', 'users']
        """
        arrays = {name: getattr(self, own) for own, name in _STORED.items()}
        return {name: array for name, array in arrays.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], diagnostics: Mapping[str, Any]) -> Transform:
        """The inverse of ``arrays``; `InputError` where they, or ``diagnostics``, cannot be those
        of a transform.

        Examples
        --------
        >>> fitted = es.fit(tuesday, reference=monday)
        >>> again = es.Transform.from_arrays(fitted.arrays(), fitted.diagnostics)
        >>> bool((again.items == fitted.items).all())
        True
        """
        require_diagnostics(diagnostics)
        if not isinstance(arrays, Mapping) or not {"items", "singular_values"} <= set(arrays):
            raise InputError(
                "a transform is made of arrays by name, items and singular_values among them;"
                f" {shown(arrays)} came"
            )
        named: dict[str, Any] = {field_: arrays.get(name) for field_, name in _STORED.items()}
        return cls(**named, diagnostics=diagnostics)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        sync: bool = True,
        storage_options: StorageOptions | None = None,
    ) -> None:
        """Write one file (NumPy's npz) at ``path`` (or a URL), over what stood there.

        It appears whole or not at all, and with ``sync`` it is on the disk by then.

        Examples
        --------
        >>> es.fit(tuesday, reference=monday).save(folder / "tuesday.npz")
        >>> es.load_transform(folder / "tuesday.npz").d
        4
        """
        diagnostics = np.array(json.dumps(dict(self.diagnostics)))
        arrays: dict[str, Any] = {"diagnostics": diagnostics, **self.arrays()}
        (place,) = bound(storage_options, path)
        write_whole(place, lambda file: np.savez(file, **arrays), sync=sync)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, storage_options: StorageOptions | None = None
    ) -> Transform:
        """Read what ``save`` wrote.

        Examples
        --------
        >>> es.fit(tuesday, reference=monday).save(folder / "tuesday.npz")
        >>> es.Transform.load(folder / "tuesday.npz").d
        4
        """
        try:
            with open_file(*bound(storage_options, path)) as file:
                arrays = read_npz(file)
            if "diagnostics" not in arrays:
                raise InputError(f"{path} holds no transform; write one with {call('fit')}")
            diagnostics = parsed_json(str(arrays.pop("diagnostics")))
        except EmbstabError:
            raise
        except FileNotFoundError:
            repair = f"write one with {call('fit')}"
            raise InputError(f"there is no transform at {path}; {repair}") from None
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise _damaged(path, error) from error
        try:
            return cls.from_arrays(arrays, diagnostics)
        except InputError as error:
            raise _damaged(path, error) from error


def _damaged(path: Any, error: Exception) -> DamageError:
    return DamageError(f"{path} is not a whole transform file ({error}); write it again")


def _numbers(given: Any) -> Any:
    """An array in memory of real numbers; None for anything else, and where a value is masked."""
    if offers(given, "__dask_graph__") or isinstance(given, Mapping):
        return None
    try:
        array = np.asarray(given)
        return None if array.dtype.kind not in "fiu" or np.ma.is_masked(given) else array
    except Exception:  # noqa: BLE001 (whatever a foreign type raises, it cannot be read)
        return None


def real_array(given: Any, what: str, n_axes: int) -> Any:
    """Finite numbers along so many axes, in float64."""
    array = _numbers(given)
    if array is None or array.ndim != n_axes or not np.isfinite(array).all():
        came = f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else shown(given)
        raise InputError(
            f"{what} must be finite numbers on {n_axes} {'axes' if n_axes > 1 else 'axis'}; {came}"
            " came"
        )
    return array.astype(np.float64, copy=False)


def _transform_rows(rows: Rows, M: Matrix, offset: Vector | None) -> Rows:
    given, made = rows, _numbers(rows)
    if made is None:
        kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else shown(given)
        raise InputError(
            f"rows must be an array of real numbers in memory, without masked ones; {kind} came"
        )

    rows = made
    if rows.ndim not in (1, 2) or rows.shape[-1] != len(M):
        raise InputError(f"rows must be (n, {len(M)}) or ({len(M)},); they are {rows.shape}")

    dtype = rows.dtype if rows.dtype.kind == "f" else np.dtype(np.float64)
    transformed = np.asarray(rows, dtype=np.float64, order="C") @ M
    return np.asarray(transformed if offset is None else transformed + offset).astype(
        dtype, copy=False
    )


def _inverse(M: Matrix, offset: Vector | None) -> tuple[Matrix, Vector | None]:
    inverse = pseudo_inverse(M)
    return inverse, None if offset is None else -offset @ inverse


def _chained(offset: Vector | None, M: Matrix, then: Vector | None) -> Vector | None:
    if offset is None:
        return then
    return offset @ M if then is None else offset @ M + then
