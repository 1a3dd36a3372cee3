"""Bodies of Qdrant's ``PUT /collections/NAME/points``, one JSON object on each line.

Points are numbered by ids that are whole numbers from 0 on, and by a UUID made of any other id; the
payload ``id`` is the id itself.
"""

from __future__ import annotations

import json
import uuid
from functools import partial
from pathlib import Path
from typing import IO, Any

from dask_embstab.exchange.panels import FileSpec, Panels, Room, grouped
from dask_embstab.files.atomic import write_whole
from dask_embstab.tables.ids.kinds import plain

_NAMES = uuid.UUID("6f8f3d3e-5c5f-4c0e-9a44-6a1c3a3d5f10")
_POINTS = 1000


def write_qdrant(spec: FileSpec, stem: Path, panels: Panels, room: Room) -> None:
    """``.qdrant.jsonl``: a thousand points on a line."""
    del spec, room
    write_whole(f"{stem}.qdrant.jsonl", partial(_fill, panels), sync=False)


def _fill(panels: Panels, file: IO[bytes]) -> None:
    for panel in grouped(panels, _POINTS):
        points = [
            {"id": point_id(name), "vector": row, "payload": {"id": name}}
            for name, row in zip(plain(panel.ids), panel.rows.tolist(), strict=True)
        ]
        file.write(json.dumps({"points": points}).encode() + b"\n")


def point_id(name: Any) -> int | str:
    """The number of a point, or a UUID that stands for the id."""
    if isinstance(name, int) and name >= 0:
        return name
    return str(uuid.uuid5(_NAMES, str(name)))
