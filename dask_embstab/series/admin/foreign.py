"""What in a series is nobody's of ours? It is left alone by every verb, and named by `series
status` and `series gc`.
"""

from __future__ import annotations

import re

from dask_embstab.series.store import Store

_ZARR = r"(?!\.).+\.zarr|\..+\.zarr\..+"
_WRITTEN = r"\..+\.[0-9a-f]{8,32}\.(tmp|partial)"
_OURS = {
    "versions": re.compile(rf"[1-9][0-9]*\.json|{_WRITTEN}"),
    "digests": re.compile(rf"(?!\.).+\.[0-9a-f]{{8}}\.json|{_WRITTEN}"),
    "attempts": re.compile(rf"[0-9a-f]{{16}}\.json|{_WRITTEN}"),
    "pins": re.compile(rf"[0-9a-f]{{32}}\.json|{_WRITTEN}"),
    "bases": re.compile(rf"[0-9a-f]{{16}}\.npz|{_WRITTEN}"),
    "runs": re.compile(_ZARR),
    "references": re.compile(_ZARR),
}
"""By folder, the names that this library gives."""


def foreign(store: Store) -> list[str]:
    """Keys of what lies in the folders of a series under names that this library does not give,
    each once.
    """
    names = [
        f"{folder}/{name}"
        for folder, ours in _OURS.items()
        for name in store.names(folder)
        if not ours.fullmatch(name)
    ]
    folders = set(store.folders("candidates"))
    return [
        *names,
        *(f"candidates/{name}" for name in store.names("candidates") if name not in folders),
    ]
