"""JSON in files that somebody else may have written, and the checksum that a file holds of its own
values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import crc32c


def parsed_json(data: str | bytes) -> Any:
    """The value; ValueError where the text is none, also where it is nested deeper than Python
    reads.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def checksum_of(values: Mapping[str, Any]) -> int:
    """The crc32c of the values, whatever their order in the file."""
    return int(crc32c.crc32c(json.dumps(values, sort_keys=True).encode()))
