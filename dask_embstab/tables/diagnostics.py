"""Do the diagnostics stored with a transform have the form in which the library writes them?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError

_FIGURES: tuple[tuple[str, str, Any], ...] = (
    ("items", "energy", int | float),
    ("users", "energy", int | float),
    ("items", "digests", list | tuple),
    ("users", "digests", list | tuple),
    ("reference", "path", str),
    ("reference", "name", str),
    ("reference", "space", str),
    ("alignment", "relative_error", int | float),
    ("truncation", "frobenius_error", int | float),
)
"""What is read of stored diagnostics, and what it must be where it is there."""
_LARGEST = int(np.finfo(np.float64).max)


def require_diagnostics(diagnostics: Any) -> None:
    """Raise unless what the library itself asks them for has the form that it writes."""
    if not isinstance(diagnostics, Mapping):
        raise InputError(f"its diagnostics must be an object; they are {shown(diagnostics)}")

    for name in ("items", "users", "reference", "alignment", "truncation", "product"):
        value = diagnostics.get(name, {})
        if not isinstance(value, Mapping) and (value is not None or name == "product"):
            raise InputError(
                f"its {name} among the diagnostics must be an object; it is a"
                f" {type(value).__name__}"
            )

    for name, key, kind in _FIGURES:
        _require_figure(f"{name}.{key}", (diagnostics.get(name) or {}).get(key), kind)
    for name in ("keep", "method"):
        if not isinstance(diagnostics.get(name), str | None):
            raise InputError(
                f"its {name} among the diagnostics must be a text; it is {shown(diagnostics[name])}"
            )

    digests = [
        number
        for name in ("items", "users")
        for number in (diagnostics.get(name) or {}).get("digests") or []
    ]
    if not all(type(number) is int and 0 <= number < 1 << 32 for number in digests):
        raise InputError("its digests must be checksums: whole numbers of 32 bits")


def _require_figure(name: str, value: Any, kind: Any) -> None:
    if value is None:
        return
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"its {name} among the diagnostics cannot be a {type(value).__name__}")
    if isinstance(value, int | float) and not 0 <= value <= _LARGEST:
        raise InputError(f"its {name} among the diagnostics must be at least 0 and within float64")
