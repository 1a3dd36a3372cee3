"""Where do files of one call go that nobody needs afterwards, and how do they go away whatever happens?"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dask_embstab.errors import InputError
from dask_embstab.repairs import option


@dataclass(slots=True)
class Scratch:
    """A folder that is made when it is first asked for, in ``parent`` (None: the system's for temporary files)."""

    parent: str | None
    _folder: Path | None = field(default=None)

    def folder(self, *, needs: int) -> str:
        """A new folder for ``needs`` bytes at most.

        Raises `InputError` where the disk has less room than that, or the folder cannot be written.
        """
        if self._folder is None:
            self._folder = _made(Path(self.parent or tempfile.gettempdir()))
        free = shutil.disk_usage(self._folder).free
        if free < needs:
            raise InputError(
                f"the join needs up to {needs} bytes of scratch and {self._folder.parent} has {free} free; name a folder"
                " with more room as embstab.scratch in Dask's configuration",
                f"{option('scratch')} names one",
            )
        made = self._folder / uuid.uuid4().hex[:12]
        made.mkdir()
        return str(made)

    def remove(self) -> None:
        """Remove everything; tasks of a failed pass may still be ending."""
        if self._folder is not None:
            remove_folder(self._folder)


@contextlib.contextmanager
def scratch_space(parent: str | None) -> Iterator[Scratch]:
    """Scratch for the length of the block, on success and on failure."""
    scratch = Scratch(parent)
    try:
        yield scratch
    finally:
        scratch.remove()


def remove_folder(folder: Path) -> None:
    """Remove a folder in which tasks of a failed pass may still be ending: none of them makes the folder itself anew."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.02)


def _made(parent: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="embstab-", dir=parent.absolute()))
    except OSError as error:
        raise InputError(f"the scratch folder {parent} must exist and be writable ({error.strerror})") from error
