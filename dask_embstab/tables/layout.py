"""The names and attributes of the disk layout (the design's contract), in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask_embstab.errors import InputError

FORMAT = 1
TABLES = ("items", "users")
DIMENSION = {"items": "item", "users": "user"}
ATTRIBUTE = "embstab"
SERIES_MARK = "series.json"
SERIES_FOLDERS = (
    "runs",
    "references",
    "versions",
    "digests",
    "bases",
    "candidates",
    "pins",
    "locks",
    "attempts",
)
"""The file that makes a folder a series, and the folders in it: nobody else writes there."""
Files = Mapping[str, Mapping[str, int]]
"""``chunks``: the crc32c of every chunk file's bytes before its own checksum, by path below the
run; ``metadata``: of every other file; ``bytes``: how long each chunk file is.
"""
KINDS = ("chunks", "metadata", "bytes")
CODES, SCALE = "codes", "scale"
"""Arrays of a table of codes."""
INCOMPLETE = "incomplete"
"""Key in the run's attributes while it is being written; taken away last, so that half a run never
looks whole.
"""


def recorded(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """What this library recorded in a group's attributes; nothing where the key holds somebody
    else's value.
    """
    ours = attributes.get(ATTRIBUTE)
    return ours if isinstance(ours, Mapping) else {}


def written_later(where: str, version: int, *, known: int) -> InputError:
    """The refusal of a format with a greater number than those that are known."""
    return InputError(
        f"{where} must be of format {known} at most; it is of format {version}, which a later"
        " version of dask_embstab wrote; update the library"
    )


def run_attributes(name: str | None, **more: Any) -> dict[str, Any]:
    """Attributes of a run's root group."""
    named = {} if name is None else {"name": name}
    return {ATTRIBUTE: {"format": FORMAT, "kind": "run", **named, **more}}
