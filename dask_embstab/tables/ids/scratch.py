"""Where do files of one call go that nobody needs afterwards, and how do they go away whatever
happens?

At the end of the call; what a killed process left is found by its lock, in an object store by its
age, and removed by the next call.
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
from dask_embstab.files.owned_prefix import OwnedPrefix
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import Url, is_remote, options_of, require_writable
from dask_embstab.repairs import option
from dask_embstab.tables.ids.scratch_files import make_folder

_NAME = "embstab"


@dataclass(slots=True)
class Scratch:
    """A place that is made when it is first asked for, in ``parent`` (None: the system's folder for
    temporary files): a local folder, or the URL of an object store.
    """

    parent: str | None
    _owned: OwnedFolder | OwnedPrefix | None = field(default=None)

    @property
    def place(self) -> Path | Url:
        """Where it is made; raises `InputError` where that is no place for scratch."""
        place = local_path(self.parent or tempfile.gettempdir())
        if place is not None:
            return place
        assert self.parent is not None
        require_writable(self.parent)
        if not is_remote(self.parent):
            raise InputError(
                f"{option('scratch')} must be a local folder, or a URL of S3, Google Cloud Storage"
                f" or Azure, which other processes reach too; {self.parent} came"
            )
        return Url(self.parent, options_of(self.parent))

    def folder(self, *, needs: int) -> str:
        """A new folder for ``needs`` bytes at most.

        Raises `InputError` where the disk has less room than that, or the folder cannot be written;
        `AccessError` where the store cannot be reached.
        """
        if self._owned is None:
            place = self.place
            self._owned = (
                OwnedPrefix(place, _NAME) if isinstance(place, Url) else _make_scratch(place)
            )
        path = self._owned.path
        if isinstance(path, Url):
            return make_folder(path, new_token())
        free = shutil.disk_usage(path).free
        if free < needs:
            raise InputError(
                f"the join needs up to {needs} bytes of scratch and {path.parent} has {free} free;"
                " name a folder with more room as embstab.scratch in Dask's configuration",
                f"{option('scratch')} names one",
            )
        return make_folder(str(path), new_token())

    def remove(self) -> None:
        """Remove everything; tasks of a failed pass may still be ending."""
        if self._owned is not None:
            self._owned.discard()


@contextlib.contextmanager
def scratch_space(parent: str | None) -> Iterator[Scratch]:
    """Scratch for the length of the block, on success and on failure."""
    scratch = Scratch(parent)
    place = scratch.place
    if isinstance(place, Path):
        reclaim(place, _NAME)
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
