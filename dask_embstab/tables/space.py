"""Which coordinate system are vectors of? Those of one space may be compared, mixed and indexed
together; those of two must not.

Retraining gives every run a space of its own. A run that was aligned is in the space of its
reference, whatever that is; so a space is known by where the chain of references began.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.display import Displayed
from dask_embstab.errors import InputError, SpaceError
from dask_embstab.tables.transform import Transform

SPACE_SUFFIX = ".space.json"
"""A file of vectors that has no room for the fingerprint has it in a file beside it."""


@dataclass(frozen=True, slots=True, repr=False)
class Space(Displayed):
    """The fingerprint of vectors, which exports and indexes carry.

    ``origin`` (32 hexadecimal digits) is equal for all that may meet. ``transform`` is the digest
    of the matrices that made the vectors (None: as training left them), ``name`` their run,
    ``reference`` the run they were aligned to and ``version`` its number in a series; they say
    whose vectors these are and decide nothing.

    Examples
    --------
    >>> es.space_of(series.open(1)).origin == es.space_of(series.open(2)).origin
    True
    """

    origin: str
    transform: str | None = None
    name: str | None = None
    reference: str | None = None
    version: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for metadata of files and indexes.

        Examples
        --------
        >>> sorted(es.space_of(monday).to_dict())
        ['name', 'origin', 'reference', 'transform', 'version']
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Space:
        """The fingerprint that `to_dict` made plain; InputError where it is none.

        Examples
        --------
        >>> space = es.space_of(monday)
        >>> es.Space.from_dict(space.to_dict()) == space
        True
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or not {"origin"} <= set(values) <= names:
            raise InputError(
                f"the fingerprint of a space is an object with {', '.join(sorted(names))}; it is"
                f" {shown(values)}"
            )
        for name, value in values.items():
            kind = int | None if name == "version" else str if name == "origin" else str | None
            if not isinstance(value, kind) or isinstance(value, bool):
                raise InputError(f"the {name} of a space may not be {shown(value)}")
        return cls(**values)

    def _facts(self) -> dict[str, object]:
        return self.to_dict()


def digest_of(transform: Transform) -> str:
    """SHA-256 of its matrices, by name, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, array in sorted(transform.arrays().items()):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name} {little.dtype.str} {little.shape}".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def space_of_transform(transform: Transform) -> Space:
    """The space into which a transform leads: that of its reference, where both keep the same, else
    one of its own.
    """
    known, digest = transform.diagnostics, digest_of(transform)
    last = _last(known)
    reference = last.get("reference") or {}
    origin = _reached(last)
    if origin is None and isinstance(last.get("inverse_of"), Mapping):
        origin = _taken(last["inverse_of"])
    if origin is None:
        # Matrices alone would not do: without a reference the geometry of every run is kept by one
        # and the same identity.
        text = digest + json.dumps(_inputs(known), sort_keys=True, default=str)
        origin = hashlib.sha256(text.encode()).hexdigest()[:32]
    name = reference.get("name") or reference.get("path")
    return Space(origin, digest, None, name)


def source_origin(transform: Transform) -> str | None:
    """The origin of the space of the vectors that a transform takes; None where it does not say."""
    return _taken(transform.diagnostics)


def _taken(known: Any) -> str | None:
    """The same, by what is known of it."""
    if not isinstance(known, Mapping):
        return None
    if "inverse_of" in known:
        return _reached(_last(known["inverse_of"])) if known["inverse_of"] else None
    if isinstance(parts := known.get("composed_of"), list | tuple) and parts:
        return _taken(parts[0])
    source = known.get("source")
    origin = source.get("space") if isinstance(source, Mapping) else None
    return origin if isinstance(origin, str) else None


def _reached(last: Mapping[str, Any]) -> str | None:
    """The origin of a reference's space, or of that where the other of scores and geometry is kept;
    None where there is no reference.
    """
    if rebased := last.get("rebased"):
        return rebased_origin(rebased)
    reference = last.get("reference") or {}
    origin = reference.get("space")
    if origin is None:
        return None
    if (keep := last.get("keep")) and (keep == "scores") != bool(reference.get("balance")):
        # Rows that are standardized have other lengths and angles than rows as trained, and no
        # rotation leads from one into the other.
        return hashlib.sha256(f"{keep} {origin}".encode()).hexdigest()[:32]
    return str(origin)


def _last(known: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is known of the last of composed transforms: it says where they lead, unless that was
    said of all of them.
    """
    parts = known.get("composed_of")
    if "reference" in known or not isinstance(parts, list | tuple) or not parts:
        return known
    return _last(parts[-1]) if isinstance(parts[-1], Mapping) else {}


def _inputs(known: Any) -> Any:
    """What a transform was fitted on, also through inverses and compositions."""
    if not isinstance(known, Mapping):
        return None
    inputs: dict[str, Any] = {
        key: {name: (known.get(key) or {}).get(name) for name in ("rows", "energy", "digests")}
        for key in ("items", "users")
    }
    if "inverse_of" in known:
        inputs["inverse_of"] = _inputs(known["inverse_of"])
    if isinstance(parts := known.get("composed_of"), list | tuple):
        inputs["composed_of"] = [_inputs(part) for part in parts]
    return inputs


def rebased_origin(basis: Mapping[str, Any]) -> str:
    """The space to which a rebase moved a series: its matrices are known by a digest of them."""
    return hashlib.sha256(f"{basis.get('file')} {basis.get('onto')}".encode()).hexdigest()[:32]


def require_one_space(a: Space, b: Space, what_a: str, what_b: str) -> None:
    """Raise `SpaceError` unless vectors of both may meet."""
    if a.origin != b.origin:
        raise SpaceError(
            f"vectors of {what_a} and of {what_b} must be of one space to meet; their origins are"
            f" {a.origin} and {b.origin}; transform one into the other's space, or build it anew"
        )
