"""Where is a run written until it is whole? In a hidden folder next to its path, which this process
owns.

In it lie the run, the journals of its tables, and, once it has taken its place, what it replaced. A
folder that a kill left carries the fingerprint of what was being written: ``resume`` takes over the
one with its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from dask_embstab.errors import AccessError, RetryError
from dask_embstab.files.atomic import PARTIAL, create_new, sync_one
from dask_embstab.files.owned import OwnedFolder, abandoned, make_owned
from dask_embstab.files.published import publishing
from dask_embstab.files.swap import is_emptied, put, restore, swap
from dask_embstab.tables.layout import ATTRIBUTE
from dask_embstab.tables.read.chunk_layout import chunk_files
from dask_embstab.tables.read.recorded import RunStore
from dask_embstab.tables.write.journal import Journal, number_of
from dask_embstab.tables.write.page_cache import sync_run

_RUN = "run"


@dataclass(frozen=True, slots=True)
class WorkPlace:
    """The hidden folder, the folder in it that will be the ``run``, the place that this will take,
    and whether an earlier call has begun it.
    """

    owned: OwnedFolder
    run: Path
    place: Path
    fingerprint: str
    resumed: bool

    def journal(self, key: str, *arrays: zarr.Array[Any]) -> Journal:
        """The records of the chunks of one table's ``arrays``."""
        path = self.owned.path / f"journal-{key}"
        if not path.exists():
            os.close(create_new(path))
        files = tuple(chunks for array in arrays if (chunks := chunk_files(array)) is not None)
        assert len(files) == len(arrays), "what is written here is plain chunk files"
        return Journal(str(path), files, number_of(self.fingerprint))

    def remove_half_written(self) -> None:
        """What killed processes, workers of a cluster among them, were writing."""
        for half_written in self.run.rglob(f"*{PARTIAL}"):
            half_written.unlink()

    def publish(self, *, overwrite: bool, sync: bool) -> None:
        """Let the run, which is whole, take its place; with ``sync`` it is on the disk before it is
        seen.
        """
        if sync:
            sync_run(self.run)
        if not self.owned.is_ours():
            raise RetryError(
                f"the write of {self.place} was taken over by another process, which saw no sign of"
                " life of this one for a minute; nothing was published; call again"
            )

        with publishing(self.place):
            (swap if overwrite else put)(self.run, self.place)
        if sync:
            sync_one(self.place.parent)


@contextlib.contextmanager
def work_place(place: Path, fingerprint: str, *, resume: bool) -> Iterator[WorkPlace]:
    """A folder to write in: a leftover with this fingerprint where ``resume`` asks for it, else a
    new one.

    It is removed at the end, and after an error too unless ``resume`` shall go on from it.
    """
    folder: OwnedFolder | None = None
    for left in abandoned(place.parent, place.name):
        restore(left, place)
        if resume and folder is None and _fingerprint(left.path / _RUN) == fingerprint:
            folder = left
        else:
            left.discard()

    try:
        owned = make_owned(place.parent, place.name) if folder is None else folder
    except OSError as error:
        raise AccessError(
            f"a run must be written into a folder that can be written in; {place.parent} cannot"
            f" ({error.strerror})"
        ) from error

    try:
        work = WorkPlace(owned, owned.path / _RUN, place, fingerprint, folder is not None)
        work.remove_half_written()
        yield work
    except BaseException:
        try:
            restore(owned, place)
        finally:
            owned.release() if resume or is_emptied(place, owned) else owned.discard()
        raise

    owned.discard()


def _fingerprint(folder: Path) -> str | None:
    with contextlib.suppress(Exception):
        mark = dict(zarr.open_group(RunStore(folder, read_only=True), mode="r").attrs)[ATTRIBUTE]
        return str(mark["fingerprint"])  # type: ignore[index, call-overload]
    return None
