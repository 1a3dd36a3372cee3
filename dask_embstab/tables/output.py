"""Is a stabilized or compressed run outside of a series still the one that was written? It records
the digests of its own files.

In the attributes of ``transform/`` (of ``output/``, where a run has no transform), as ``output``:
the digests of all chunk files, in order, of all metadata but that of the root and of that group
itself; the root's attributes; and the checksum of all these attributes together.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crc32c

from dask_embstab.errors import DamageError, InputError
from dask_embstab.files.place import local_path
from dask_embstab.files.stored_json import checksum_of, parsed_json
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.read.recorded import (
    CHUNK,
    METADATA,
    Recorded,
    require_metadata,
)
from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.stores.run_files import FolderFiles, RunFiles, run_files

OUTPUT, _CHECK = "output", "crc32c"
_GROUPS = ("transform/zarr.json", f"{OUTPUT}/zarr.json")
_NUMBERED = re.compile(r"(?P<before>.+/c/)(?P<number>[0-9]+)(?P<after>(/0)*)")
_UNRECORDED = ("zarr.json", *_GROUPS)
Json = dict[str, Any]


def record_output(
    files: RunFiles,
    root: Mapping[str, Any],
    transform: Mapping[str, Any],
    written: Mapping[str, Digests],
) -> Json:
    """Attributes of ``transform/`` (or of ``output/``) with the digests of all files of a run that
    is about to be finished.

    ``root`` are the attributes that its root will have. Raises `DamageError` where a chunk of
    vectors is not as ``written``.
    """
    numbered: dict[str, dict[int, int]] = {}
    metadata = {}
    names = files.names()
    for name in names:
        if METADATA.fullmatch(name) and name not in _UNRECORDED:
            metadata[name] = int(crc32c.crc32c(files.read(name)))
    for name, checksum in files.checksums(n for n in names if CHUNK.fullmatch(n)).items():
        if match := _NUMBERED.fullmatch(name):
            digests = numbered.setdefault(f"{match['before']}{{}}{match['after']}", {})
            digests[int(match["number"])] = checksum

    for key, digests in written.items():
        rows = "vectors" if f"{key}/vectors/c/{{}}/0" in numbered else "codes"
        if not digests.items() <= numbered[f"{key}/{rows}/c/{{}}/0"].items():
            raise DamageError(
                f"the {key} in {files.where(key)} are not those that were written; write the run"
                " again"
            )

    chunks = {
        name: [digests[number] for number in sorted(digests)] for name, digests in numbered.items()
    }
    output = {"root": dict(root), "arrays": chunks, "metadata": metadata}
    made: Json = json.loads(json.dumps({**transform, OUTPUT: output}))
    made[OUTPUT][_CHECK] = checksum_of(made)
    return made


def recorded_output(place: Any) -> Recorded:
    """The digests that a stabilized or compressed run records of itself; its metadata is compared
    with them.

    Raises `InputError` where it records none, `DamageError` where the record or any metadata is not
    what was written.
    """
    files, where = run_files(place), str(local_path(place) or place)
    for group in _GROUPS:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            data = files.read(group)
            break
    else:
        raise InputError(
            f"a run records digests of its own files when it is stabilized or compressed; {where}"
            " has no transform and no such record, so there is nothing to compare it with"
        )

    try:
        attributes = parsed_json(data)["attributes"]
        output = attributes[OUTPUT]
        if output.pop(_CHECK) != checksum_of(attributes):
            raise ValueError("its attributes fail their checksum")
        root = parsed_json(files.read("zarr.json"))
        if root["attributes"] != output["root"]:
            raise ValueError("the attributes of its root are others")
        copies = (root.get("consolidated_metadata") or {}).get("metadata", {})
        for path in (*output["metadata"], group):
            stored = files.read(path)
            if path != group:
                require_metadata(stored, output["metadata"][path], files.where(path))
            if (copy := copies.get(str(Path(path).parent))) is not None and _node(copy) != _node(
                parsed_json(stored)
            ):
                raise ValueError(f"the consolidated copy of {path} is another")
    except DamageError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DamageError(
            f"{where} is not the run that was written ({what}); restore it or write it again"
        ) from error

    within = None if isinstance(files, FolderFiles) else files
    part = ("attributes", OUTPUT)
    return Recorded(files.where(group), int(crc32c.crc32c(data)), part, within=within, key=group)


def unrecorded(files: RunFiles, recorded: Recorded) -> list[str]:
    """Files of tables and of the transform that were added since."""
    known = {path for paths in recorded.files().values() for path in paths}.union(_UNRECORDED)
    ours = (*TABLES, "transform", OUTPUT)
    return [
        path
        for path in files.names()
        if path not in known
        and path.split("/")[0] in ours
        and (METADATA.fullmatch(path) or CHUNK.fullmatch(path))
    ]


def _node(values: Json) -> Json:
    """Metadata of an array or group without the consolidated copies of what lies in it."""
    return {name: value for name, value in values.items() if name != "consolidated_metadata"}
