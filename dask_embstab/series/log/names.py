"""Where do the files of a series lie, and what may name a run or a model? Whatever becomes part of
a path is checked here, when a version is written as when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType
from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.repairs import option
from dask_embstab.series.log.digests import DIGESTS_KEY

REBASING = ".rebase"
"""The lock of whoever moves what is stored: rebases and forgets; no run has this name."""
BASIS_KEY = re.compile(r"bases/[0-9a-f]{16}\.npz")
PLACE = ("run", "digests_file", "digests_crc32c", "has_reference", "reference_at")
"""Fields of a version that say where its run is stored."""
_RUN_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")
_RUN_NAME_BYTES = 200
"""What file systems allow (255) less what is put around a name while its run is written."""
_REWRITTEN = re.compile(r"(?P<name>.+)@[0-9a-f]{8}")
_MODEL_BYTES = 1024


def version_key(number: int) -> str:
    """Where a version lies."""
    return f"versions/{number}.json"


def run_key(name: str) -> str:
    """Where a run lies."""
    return f"runs/{name}.zarr"


def reference_key(name: str) -> str:
    """Where the running reference lies that a run has moved on."""
    return f"references/{name}.zarr"


def candidate_key(name: str) -> str:
    """Where the candidate of a run lies until it is published."""
    return f"candidates/{name}/candidate.npz"


def held_key(name: str) -> str:
    """Where the verdicts on a run lie that is held."""
    return f"candidates/{name}/held.json"


def require_run_name(name: Any) -> None:
    """Raise `InputError` unless this may name a run: it becomes a folder's name."""
    if not is_text_of(_RUN_NAME, name) or not 0 < _n_bytes(name) <= _RUN_NAME_BYTES:
        raise InputError(
            f"a run's name becomes a folder's: at most {_RUN_NAME_BYTES} bytes without slashes, no"
            f" dot first; it is {name!r}",
            f"{option('name')} gives it another",
        )


def require_model(model: Any) -> None:
    """Raise `InputError` unless this may name a model."""
    if not isinstance(model, str) or not 0 < _n_bytes(model) <= _MODEL_BYTES:
        raise InputError(
            f"a model's name is a text of at most {_MODEL_BYTES} bytes; it is {model!r}",
            f"{option('model')} gives another",
        )


def _n_bytes(name: str) -> int:
    """Bytes of a name; none of one that has no UTF-8 (a lone surrogate)."""
    try:
        return len(name.encode())
    except UnicodeEncodeError:
        return 0


def require_place(place: Mapping[str, Any]) -> None:
    """Raise `InputError` unless these fields say where a run and its digests are stored."""
    file, crc = place["digests_file"], place["digests_crc32c"]
    for name in (place["run"], place["reference_at"]):
        if name is None:
            continue
        rewritten = _REWRITTEN.fullmatch(name) if isinstance(name, str) else None
        require_run_name(rewritten["name"] if rewritten else name)
    if file is not None and not is_text_of(DIGESTS_KEY, file):
        raise InputError(f"it names digests at {file!r}")
    if (crc is None) != (file is None) or not isinstance(crc, (int, NoneType)):
        raise InputError("digests have a checksum")
    if not isinstance(place["has_reference"], bool):
        raise InputError("a run has a running reference or not")


def is_text_of(pattern: re.Pattern[str], text: Any) -> bool:
    """Whether it is a text that the whole pattern matches."""
    return isinstance(text, str) and pattern.fullmatch(text) is not None
