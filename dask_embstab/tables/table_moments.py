"""Moments as a product: what is known of a table (or a part of one), to be stored, merged,
subtracted and fitted from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.moments import Moments, Pairs
from dask_embstab.core.types import Matrix
from dask_embstab.core.zero_rows import ZeroRows
from dask_embstab.display import Displayed
from dask_embstab.errors import DamageError, EmbstabError, InputError
from dask_embstab.files.atomic import open_file, write_whole
from dask_embstab.files.npz import npz_kind, read_npz
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.files.stored_json import parsed_json
from dask_embstab.repairs import call

_PAIR_ARRAYS = ("joint", "total")
_ARRAYS = ("total", "rest", "partnered")


def is_moments(given: Any) -> bool:
    """Whether this is the path of a file that `TableMoments.save` wrote."""
    return isinstance(given, str | os.PathLike) and npz_kind(given) == "moments"


@dataclass(frozen=True, slots=True)
class Shared:
    """What a fit must know of the reference besides the sums over pairs.

    ``matched`` rows of the table have a reference row, before any weights or selection. The
    reference has ``rows`` rows of ``d`` components, of which ``zero_rows`` were read as zeros;
    ``described`` is what is recorded of it (its balance).
    """

    matched: int
    rows: int
    d: int
    zero_rows: int = 0
    described: Mapping[str, Any] = field(default_factory=dict)

    def __add__(self, other: Shared) -> Shared:
        """Of both parts of a table."""
        return replace(
            self,
            matched=self.matched + other.matched,
            zero_rows=max(self.zero_rows, other.zero_rows),
        )

    def __sub__(self, other: Shared) -> Shared:
        """Of this without a part of it."""
        return replace(self, matched=self.matched - other.matched)


@dataclass(frozen=True, slots=True, repr=False)
class TableMoments(Displayed):
    """Moments of one table with what must agree before they are merged: d, dtype and the
    reference's identity.

    ``a + b`` is the moments of the rows of both (a shard per region, a table in parts), ``a - b``
    those of the rows of a that are not in b (deleted rows). Both are exact but for float64
    rounding.

    Examples
    --------
    >>> part, rest = (es.moments(rows) for rows in np.split(np.eye(6), [2]))
    >>> (part + rest).n_rows
    6
    """

    moments: Moments
    dtype: str
    where: str
    reference: str | None = None
    shared: Shared | None = None

    @property
    def n_rows(self) -> int:
        """Rows."""
        return self.moments.n

    @property
    def d(self) -> int:
        """Components."""
        return self.moments.d

    @property
    def matched(self) -> int:
        """Rows with a reference row, before any weights or selection."""
        return 0 if self.shared is None else self.shared.matched

    def _facts(self) -> dict[str, object]:
        return {
            "table": self.where,
            "rows": self.n_rows,
            "components": self.d,
            "dtype": self.dtype,
            "matched": None if self.shared is None else self.matched,
        }

    @property
    def gramian(self) -> Matrix:
        """T'T, (d, d)."""
        return self.moments.gramian

    @property
    def eps(self) -> float:
        """Rounding unit of the stored vectors."""
        return float(np.finfo(self.dtype).eps)

    def __add__(self, other: TableMoments) -> TableMoments:
        """Moments of the rows of both."""
        shared = self.shared + other.shared if self.shared and other.shared else self.shared
        return self._with(other, self.moments + self._mergeable(other).moments, shared)

    def __sub__(self, other: TableMoments) -> TableMoments:
        """Moments of the rows of this that are not in ``other``."""
        ours, theirs = self.moments, self._mergeable(other).moments
        if theirs.n > ours.n or other.matched > self.matched:
            raise InputError(
                f"only rows that are there can be taken away; {self.where} has {ours.n} rows"
                f" ({self.matched} matched) and {other.where} {theirs.n} ({other.matched})"
            )
        shared = self.shared - other.shared if self.shared and other.shared else self.shared
        return self._with(other, ours - theirs, shared)

    def digest(self) -> str:
        """sha256 of the counts and of every bit of the sums: equal moments, equal digest.

        Examples
        --------
        >>> es.moments(np.eye(4)).digest() == es.moments(np.eye(4)).digest()
        True
        """
        header = self._header()
        matched = self.shared and self.shared.matched
        sha = hashlib.sha256(json.dumps([header["counts"], header["zeros"], matched]).encode())
        for name, array in sorted(self._arrays().items()):
            sha.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        sync: bool = True,
        storage_options: StorageOptions | None = None,
    ) -> None:
        """Write one file (NumPy's npz) at ``path`` (or a URL), whole or not at all; with ``sync``
        it is on the disk by then.

        Examples
        --------
        >>> es.moments(monday.items).save(folder / "items.npz")
        >>> es.TableMoments.load(folder / "items.npz").d
        4
        """
        header = np.array(json.dumps(self._header()))
        arrays: dict[str, Any] = {"header": header, **self._arrays()}
        (place,) = bound(storage_options, path)
        write_whole(place, lambda file: np.savez(file, **arrays), sync=sync)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, storage_options: StorageOptions | None = None
    ) -> TableMoments:
        """Read what ``save`` wrote.

        Examples
        --------
        >>> es.moments(monday.items).save(folder / "items.npz")
        >>> es.TableMoments.load(folder / "items.npz").d
        4
        """
        try:
            with open_file(*bound(storage_options, path)) as file:
                arrays = read_npz(file)
            header = parsed_json(str(arrays.pop("header", "{}")))
            if "counts" not in header:
                raise InputError(f"{path} holds no moments; make them: {call('moments')}")
            counts = header["counts"]
            pairs = None
            if "pairs_joint" in arrays:
                joint, total = arrays["pairs_joint"], arrays.get("pairs_total")
                pairs = Pairs(
                    counts["pairs"], counts["weight"], counts["squares"], counts["d"], joint, total
                )
            sums = {name: arrays.get(name) for name in _ARRAYS}
            zeros = ZeroRows(**header["zeros"])
            moments = Moments(counts["n"], counts["d"], **sums, pairs=pairs, zeros=zeros)
            shared = None if header["shared"] is None else Shared(**header["shared"])
            return cls(moments, header["dtype"], header["where"], header["reference"], shared)
        except EmbstabError:
            raise
        except FileNotFoundError:
            raise InputError(
                f"there are no moments at {path}; make them: {call('moments')}"
            ) from None
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise DamageError(
                f"{path} is not a whole file of moments ({error}); write it again"
            ) from error

    def _mergeable(self, other: TableMoments) -> TableMoments:
        if not isinstance(other, TableMoments):
            raise InputError(
                f"moments are added to moments and taken from them; {shown(other)} came; reduce a"
                " table first"
            )

        ours = {"d": self.d, "dtype": self.dtype, "reference": self.reference}
        theirs = {"d": other.d, "dtype": other.dtype, "reference": other.reference}
        for name, value in ours.items():
            if value != theirs[name]:
                raise InputError(
                    f"moments can be merged where {', '.join(ours)} are equal; {name} is {value} in"
                    f" {self.where} and {theirs[name]} in {other.where}"
                )

        return other

    def _with(self, other: TableMoments, moments: Moments, shared: Shared | None) -> TableMoments:
        where = (
            self.where
            if self.where == other.where
            else f"{Path(self.where).name} with {Path(other.where).name}"
        )
        return replace(self, moments=moments, where=where, shared=shared)

    def _header(self) -> dict[str, Any]:
        pairs = self.moments.pairs
        counts: dict[str, Any] = {"n": self.n_rows, "d": self.d}
        if pairs is not None:
            counts |= {"pairs": pairs.n, "weight": pairs.weight, "squares": pairs.squares}
        known = {"zeros": asdict(self.moments.zeros), "shared": self.shared and asdict(self.shared)}
        return {
            "counts": counts,
            **known,
            "dtype": self.dtype,
            "where": self.where,
            "reference": self.reference,
        }

    def _arrays(self) -> dict[str, Matrix]:
        named = {name: getattr(self.moments, name) for name in _ARRAYS}
        if self.moments.pairs is not None:
            named |= {f"pairs_{name}": getattr(self.moments.pairs, name) for name in _PAIR_ARRAYS}
        return {name: array for name, array in named.items() if array is not None}
