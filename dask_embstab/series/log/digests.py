"""Which bytes were published? The digests of every file of a run, in a file beside the versions.

``digests/<run>.<checksum>.json`` is named after its own crc32c and durable before the version that
names it is created. A digest is a number per chunk, so a log that held them would grow with the
tables; they are read when a run is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import crc32c

from dask_embstab.errors import DamageError, InputError
from dask_embstab.files.regular import MOST_METADATA_BYTES
from dask_embstab.files.stored_json import parsed_json
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import KINDS, Files

DIGESTS_KEY = re.compile(r"digests/(?P<name>[^/\\\x00-\x1f]+)\.[0-9a-f]{8}\.json")
_PATH = re.compile(r"(?!\.\.?(/|$))[^/\x00]+(/(?!\.\.?(/|$))[^/\x00]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """Of a run, of the running reference kept with it (empty where none is), and of what the run
    was made from.
    """

    run: Files = field(default_factory=dict)
    reference: Files = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for files in (self.run, self.reference):
            if files and set(files) != set(KINDS):
                raise ValueError(f"it has {sorted(files)}")
            for paths in files.values():
                if not all(map(_PATH.fullmatch, paths)):
                    raise ValueError("it names files that lie elsewhere")
                if not all(type(number) is int for number in paths.values()):
                    raise ValueError("a digest is a number")


def record_digests(store: Store, run: str, digests: Digests) -> dict[str, Any]:
    """Make digests durable; returns where, as the fields of the version that is to name them.

    Raises `InputError` where there are so many that nobody would read them.
    """
    data = json.dumps(asdict(digests), sort_keys=True).encode()
    if len(data) > MOST_METADATA_BYTES:
        raise InputError(
            f"the digests of a run must take {MOST_METADATA_BYTES} bytes at most; those of {run}"
            f" take {len(data)}; write its tables in larger chunks"
        )
    crc = int(crc32c.crc32c(data))
    key = f"digests/{run}.{crc:08x}.json"
    store.make("digests")
    store.replace(key, data)
    return {"digests_file": key, "digests_crc32c": crc, "has_reference": bool(digests.reference)}


def digests_of(store: Store, key: str, crc: int) -> Digests:
    """Read them; DamageError where a byte has changed."""
    try:
        data = store.read(key)
        if crc32c.crc32c(data) != crc:
            raise ValueError("it fails its checksum")
        return Digests(**parsed_json(data))
    except FileNotFoundError:
        raise DamageError(f"{key} is missing; restore it from a copy") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(f"{key} cannot be read ({error}); restore it from a copy") from error
