"""Packages that only some functions need: imported where they are used, and a missing one is one
line that names the extra it comes with. Only the standard library is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dask_embstab.errors import InputError


def require_extra(module: str, extra: str, *, what: str) -> Any:
    """The module, imported; `InputError` with the command that installs it where it is missing.

    ``what`` is the subject of the message: what needs the package.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != root:
            raise  # it is installed, and lacks something itself
        raise InputError(
            f"{what} needs the package {root}, which is not installed; pip install"
            f" 'dask_embstab[{extra}]'"
        ) from None
