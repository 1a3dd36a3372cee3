"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
from typing import Any


def call(names: tuple[str, ...], *arguments: Any) -> int | None:
    """The error number (0: it went well) of the first of these functions that the C library has;
    None where it has none.
    """
    library = ctypes.CDLL(None, use_errno=True)
    function = next(
        (symbol for name in names if (symbol := getattr(library, name, None)) is not None), None
    )
    if function is None:
        return None
    return ctypes.get_errno() if function(*arguments) else 0
