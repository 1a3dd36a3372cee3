"""Where an export goes, and how it appears there whole or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dask_embstab.errors import OutputExistsError
from dask_embstab.exchange.formats import Export
from dask_embstab.files.atomic import write_whole
from dask_embstab.files.swap import taken
from dask_embstab.tables.layout import ATTRIBUTE
from dask_embstab.tables.write.workplace import work_place

RECORD = "export.json"
"""The file that says what was exported, and that the folder may be replaced by another export."""


@contextlib.contextmanager
def export_folder(export: Export) -> Iterator[Path]:
    """A hidden folder to write in, which takes its place when the block ends well, and is gone
    otherwise. The block leaves a `RECORD` in it (`write_record`).
    """
    require_free(export)
    with work_place(export.place, "", resume=False) as work:
        work.run.mkdir()
        yield work.run
        work.remove_half_written()
        work.publish(overwrite=export.overwrite, sync=export.sync)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Say in a folder what was exported into it."""
    text = json.dumps({ATTRIBUTE: record}, indent=1, sort_keys=True)
    write_whole(folder / RECORD, lambda file: file.write(text.encode()), sync=False)


def require_free(export: Export) -> None:
    """Raise `OutputExistsError` unless nothing stands at the place, or an export (a file, or a
    folder with a `RECORD`) that shall be replaced.
    """
    place = export.place
    if not place.exists() and not place.is_symlink():
        return
    if not export.overwrite:
        raise taken(place)
    if place.is_symlink() or (place.is_dir() and not _is_export(place)):
        raise OutputExistsError(
            f"only an export can be replaced by one; {place} is none; choose another place"
        )


def _is_export(place: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return ATTRIBUTE in json.loads((place / RECORD).read_bytes())
    return False
