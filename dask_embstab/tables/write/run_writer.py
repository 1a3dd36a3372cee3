"""How does a run appear whole or not at all?

On a local file system it is written in a hidden folder beside its place (`workplace`) and renamed
when the last byte is in it. On any other store it is written in place, and a mark in its
attributes, taken away last, says that it is not whole. The mark stands in both cases, so a
half-written run is refused wherever it is found.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_embstab.errors import InputError, OutputExistsError
from dask_embstab.files.place import local_path
from dask_embstab.files.published import publishing
from dask_embstab.files.remote import Url, is_remote, options_of, read_remote
from dask_embstab.files.swap import finish_swap, taken
from dask_embstab.repairs import call, option
from dask_embstab.tables.ids.kinds import IdKind
from dask_embstab.tables.layout import (
    ATTRIBUTE,
    INCOMPLETE,
    SERIES_FOLDERS,
    SERIES_MARK,
    run_attributes,
)
from dask_embstab.tables.output import OUTPUT, record_output
from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.store import place_name
from dask_embstab.tables.stores.run_files import RunFiles, run_files
from dask_embstab.tables.transform import Transform
from dask_embstab.tables.write.nodes import (
    finish,
    make_group,
    put_attributes,
    quiet_metadata,
    root_group,
    write_matrices,
)
from dask_embstab.tables.write.object_store import OutputGroup, require_store, stored_files
from dask_embstab.tables.write.output_folder import OutputFolder
from dask_embstab.tables.write.sink import Sink
from dask_embstab.tables.write.table_layout import TableLayout, rows_of_objects
from dask_embstab.tables.write.workplace import WorkPlace, work_place

if TYPE_CHECKING:
    from dask_embstab.core.codes.row_code import RowCode

_BUCKET = 2
"""The part of a URL that names a bucket."""


@dataclass(slots=True)
class RunWriter:
    """A run being written; `begin_run` makes one and publishes it."""

    group: zarr.Group
    attributes: dict[str, Any]
    work: WorkPlace | None
    sync: bool = False
    is_stored: bool = False
    """Whether every chunk was seen in a store that is no folder."""

    def table(
        self,
        key: str,
        *,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        chunk_rows: int,
        ids: IdKind | None,
        weights: bool = False,
        code: RowCode | None = None,
        vectors: bool = True,
        shard_rows: int | None = None,
        inner_rows: int | None = None,
    ) -> Sink:
        """Make the arrays of one table and give the sink that tasks write it through.

        ``weights``: with one number per row, in an array of that name. ``code``: rows are stored as
        codes, with a scale per row where the code has one; as ``vectors`` too, unless that is
        False. ``shard_rows``: vectors are shards of so many rows, whose inner chunks have
        ``inner_rows``; other arrays have chunks of as many rows as a shard.
        """
        chunk_rows, inner_rows = rows_of_objects(
            shape[0], shape[1] * dtype.itemsize, chunk_rows, shard_rows, inner_rows
        )
        layout = TableLayout(key, shape, dtype, chunk_rows, ids, weights, code, vectors, inner_rows)
        resumed, left = self.work is not None and self.work.resumed, None
        if resumed:  # whatever is wrong with what an interrupted write left, it is made anew
            with contextlib.suppress(Exception):
                left = layout.left(self.group)

        if left is None:
            with quiet_metadata():
                arrays = layout.create(self.group, overwrite=resumed)

        identifiers, *stored = left or arrays
        recorded = [array for array in stored if array is not None]
        journal = None if self.work is None else self.work.journal(key, *recorded)
        rows, numbers, codes, scales = stored
        return Sink(
            ids=identifiers,
            vectors=rows,
            weights=numbers,
            codes=codes,
            scales=scales,
            journal=journal,
            shape=shape,
            chunk_rows=chunk_rows,
            resume=left is not None,
            sync=self.sync,
            code=code,
        )

    def transform(
        self,
        transform: Transform,
        attributes: Mapping[str, Any],
        written: Mapping[str, Digests] | None = None,
    ) -> None:
        """Write ``transform/``, after the tables: the small matrices, and in its attributes how the
        run came to be.

        The digests of all files are recorded with it; ``written`` are those of the vectors, where
        known.
        """
        node = self._group("transform")
        dims = {
            "singular_values": ("component",),
            "offsets": ("component",),
            "users_offsets": ("component",),
        }
        made: dict[str, tuple[Any, tuple[str, ...]]] = {}
        for name, array in transform.arrays().items():
            names = dims.get(name, ("component_in", "component"))
            names = ("singular_value",) if name == "singular_values" else names
            made[name] = array, names
        write_matrices(node, made)

        known = {name: value for name, value in attributes.items() if name != OUTPUT}
        put_attributes(node, record_output(self._files(), self.attributes, known, written or {}))

    def record(self, written: Mapping[str, Digests]) -> None:
        """The same of a run that has no transform: the digests alone, in ``output/``."""
        node = self._group(OUTPUT)
        put_attributes(node, record_output(self._files(), self.attributes, {}, written))

    def _group(self, name: str) -> zarr.Group:
        """A new group; over that of an interrupted write, where there may be one, or an earlier one
        of this write.
        """
        stands = self.work is not None or name in self.group
        return make_group(self.group, name, overwrite=stands)

    def _files(self) -> RunFiles:
        """Of the run, all of whose chunks are written."""
        store = self.group.store
        if isinstance(store, LocalStore):
            return run_files(Path(store.root, self.group.path))
        self.is_stored = True
        return stored_files(self.group)


@contextlib.contextmanager
def begin_run(
    out: Any,
    *,
    name: str | None,
    fingerprint: str,
    overwrite: bool = False,
    resume: bool = False,
    sync: bool = True,
    for_series: bool = False,
    inputs: tuple[str, ...] = (),
    more: Mapping[str, Any] | None = None,
) -> Iterator[RunWriter]:
    """Write a run at ``out``: it is published when the block ends well, and leaves nothing behind
    when it does not (with ``resume``: its whole chunks, to go on from). With ``sync`` it is on the
    disk before it is seen; a series, which alone writes into its own folders, makes that sure
    itself. ``more`` are further attributes of its root group.
    """
    attributes = run_attributes(name, **(more or {}))
    place = local_path(out)
    if place is None:
        require_place(out, inputs, overwrite=overwrite, for_series=for_series, claims=True)
        yield from _in_place(out, attributes, overwrite=overwrite, resume=resume)
        return

    require_place(place, inputs, overwrite=overwrite, for_series=for_series)
    with work_place(place, fingerprint, resume=resume) as work:
        if work.resumed:
            group = zarr.open_group(OutputFolder(work.run), mode="r+")
        else:
            marked = _marked(attributes, fingerprint=work.fingerprint)
            group = root_group(OutputFolder(work.run), marked)
        yield RunWriter(group, attributes, work, sync or for_series)
        work.remove_half_written()
        finish(group, attributes)  # the mark goes, in one write with the consolidated metadata
        work.publish(overwrite=overwrite, sync=sync and not for_series)


def _in_place(
    out: Any, attributes: dict[str, Any], *, overwrite: bool, resume: bool
) -> Iterator[RunWriter]:
    """On a store without renames: the mark alone says when the run is whole."""
    if resume:
        raise InputError(
            f"{place_name(out)} is no local folder, so its writing cannot be resumed; write it"
            " from the start"
        )

    output = OutputGroup.begin(out, _marked(attributes), over=overwrite)
    try:
        writer = RunWriter(output.group, attributes, None)
        yield writer
        if not writer.is_stored:
            stored_files(output.group)
        with publishing(out):
            # The mark goes, in one write with the consolidated metadata.
            finish(output.group, attributes)
            output.publish()
    except BaseException:
        output.sweep()
        raise


def require_place(
    out: Any,
    inputs: tuple[str, ...],
    *,
    overwrite: bool,
    for_series: bool = False,
    claims: bool = False,
) -> None:
    """Raise unless a run may be written at ``out``: a free place (or a run, to overwrite it)
    outside of every input.

    A series alone writes into its folders. Whoever ``claims`` a place at a URL next looks there
    himself.
    """
    place = local_path(out)
    if place is None:
        require_store(out, inputs, overwrite=overwrite, claims=claims)
        if not for_series:
            _require_no_series_at(out)
        return

    require_outside(place, inputs, for_series=for_series)
    if os.path.lexists(place) and not overwrite:
        raise taken(place)
    if not _may_be_replaced(place):
        raise OutputExistsError(
            f"{option(overwrite=True)} replaces a run; {place} is no Zarr store; choose another"
            " place"
        )


def require_outside(place: Path, inputs: tuple[str, ...], *, for_series: bool = False) -> None:
    """Raise unless the place is in a folder that is there, outside of every input and series."""
    finish_swap(place)
    if not place.parent.is_dir():
        raise InputError(f"the folder {place.parent} does not exist; create it first")

    known = (
        local
        for given in inputs
        if (local := local_path(given)) is not None and os.path.exists(local)  # noqa: PTH110
    )
    for source in (local.resolve() for local in known):
        target = place.resolve()
        if source != target and (source in target.parents or target in source.parents):
            raise InputError(
                f"the output may not lie inside an input or around one; {place} and {source}"
                " overlap"
            )

    target = place.parent.resolve() / place.name
    for folder in () if for_series else target.parents:
        if (
            target.relative_to(folder).parts[0] in SERIES_FOLDERS
            and (folder / SERIES_MARK).is_file()
        ):
            raise _in_series(place, folder)


def _may_be_replaced(place: Path) -> bool:
    """Whether nothing but a Zarr store stands there; looked at again where another writer swaps it
    meanwhile.
    """
    while (before := _standing(place)) is not None:
        if any((place / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
            return True
        if _standing(place) == before:
            return False
    return True


def _standing(place: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError, ValueError):
        status = place.lstat()
        return status.st_dev, status.st_ino
    return None


def _require_no_series_at(out: Any) -> None:
    """Raise where a URL lies in a series; where nobody may look, nobody is told."""
    parts = out.split("/") if is_remote(out) else []
    for n, name in enumerate(parts):
        above = Url("/".join(parts[:n]), options_of(out))
        if name in SERIES_FOLDERS and n > _BUCKET:
            with contextlib.suppress(OSError):
                read_remote(above / SERIES_MARK, 1)
                raise _in_series(out, above)


def _in_series(place: Any, series: Any) -> InputError:
    return InputError(
        f"{place} lies in the series {series}, whose files change by its own verbs alone; choose"
        f" another place, and publish a run with {call('Series.add')}"
    )


def _marked(attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {ATTRIBUTE: {**attributes[ATTRIBUTE], INCOMPLETE: True, **more}}
