"""Where do files of one call go that nobody needs afterwards, and how do they go away whatever
happens?

At the end of the call; what a killed process left is found by its lock and removed by the next
call.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dask_embstab.errors import InputError
from dask_embstab.files.atomic import new_token
from dask_embstab.files.owned import OwnedFolder, make_owned, reclaim
from dask_embstab.files.place import local_path
from dask_embstab.repairs import option

_NAME = "embstab"


@dataclass(slots=True)
class Scratch:
    """A folder that is made when it is first asked for, in ``parent`` (None: the system's for
    temporary files).
    """

    parent: str | None
    _owned: OwnedFolder | None = field(default=None)

    @property
    def place(self) -> Path:
        """The folder in which it is made."""
        place = local_path(self.parent or tempfile.gettempdir())
        if place is None:
            raise InputError(
                f"the scratch folder must be a local one; {self.parent} is the URL of another store"
            )
        return place

    def folder(self, *, needs: int) -> str:
        """A new folder for ``needs`` bytes at most.

        Raises `InputError` where the disk has less room than that, or the folder cannot be written.
        """
        if self._owned is None:
            self._owned = _make_scratch(self.place)
        place = self._owned.path
        free = shutil.disk_usage(place).free
        if free < needs:
            raise InputError(
                f"the join needs up to {needs} bytes of scratch and {place.parent} has {free} free;"
                " name a folder with more room as embstab.scratch in Dask's configuration",
                f"{option('scratch')} names one",
            )
        made = place / new_token()
        made.mkdir()
        return str(made)

    def remove(self) -> None:
        """Remove everything; tasks of a failed pass may still be ending."""
        if self._owned is not None:
            self._owned.discard()


@contextlib.contextmanager
def scratch_space(parent: str | None) -> Iterator[Scratch]:
    """Scratch for the length of the block, on success and on failure."""
    scratch = Scratch(parent)
    reclaim(scratch.place, _NAME)
    try:
        yield scratch
    finally:
        scratch.remove()


def _make_scratch(parent: Path) -> OwnedFolder:
    try:
        return make_owned(parent, _NAME, mode=0o700)
    except OSError as error:
        raise InputError(
            f"the scratch folder {parent} must exist and be writable ({error.strerror})"
        ) from error
