"""The file of a version: one JSON object on three lines, the last of which is a checksum."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import crc32c

from dask_embstab.errors import DamageError

_CHECK = re.compile(rb'"crc32c": ([0-9]{1,10})\}\n')


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What the gates said, the settings from here on, the figures of the fit, the singular values
    of each table.
    """

    verdicts: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    spectra: Mapping[str, Sequence[float]] = field(default_factory=dict)


def details_in(line: bytes) -> Details:
    """What a version's file says besides its core."""
    known = json.loads(line.removeprefix(b'"details": ')[:-1])
    parts = [known["settings"], known["figures"], known["spectra"], *known["verdicts"]]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError("its details are objects")
    return Details(**known | {"verdicts": tuple(known["verdicts"])})


@contextlib.contextmanager
def reading_version(where: str) -> Iterator[None]:
    """What reading a version raises, as one clear error."""
    try:
        yield
    except FileNotFoundError:
        raise DamageError(
            f"{where} is gone since the log was read; restore it from a copy"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(
            f"{where} cannot be read as a version ({error}); restore it from a copy"
        ) from error


def checked_lines(data: bytes) -> tuple[bytes, bytes]:
    """The first two lines of a version's file, without its checksum; ValueError unless that is
    right.
    """
    at = data.rfind(b"\n", 0, -1) + 1
    check = _CHECK.fullmatch(data, at)
    body = memoryview(data)[:at]
    if check is None or int(check[1]) != crc32c.crc32c(body):
        raise ValueError("it fails its checksum")
    core, details = data[:at].splitlines()
    return core, details
