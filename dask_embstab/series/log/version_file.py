"""The file of a version: one JSON object, on a line for each of its readers.

The fields of the log, what is printed with them (``findings``), what is read of one version at a
time (``details``), and the crc32c of the lines before. A line that nobody asks for is compared with
the checksum, and not decoded.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import crc32c

from dask_embstab.errors import DamageError
from dask_embstab.tables.layout import written_later

FORMAT = 1
"""Of a series: of its mark and of its versions."""
_FINDINGS, _DETAILS = b'"findings": {', b'"details": {'
_CHECK = re.compile(rb'"crc32c": ([0-9]{1,10})\}\n')
_WRITTEN = re.compile(rb'"format": ([0-9]{1,10})\b')
_ODD = b"NI\x7f"
_LINES = 3
_JSON = json.JSONDecoder()
FINDINGS = ("figures", "verdicts")
"""What stands on the line of the findings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the gates said, and the figures of the fit."""

    verdicts: tuple[Mapping[str, Any], ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For a line of the log."""
        return {"figures": self.figures, "verdicts": list(self.verdicts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Details(Findings):
    """The same, the settings from here on, the singular values of each table, and how many
    ``seconds`` the call that published the run took: in all (``add``) and by step.
    """

    settings: Mapping[str, Any]
    spectra: Mapping[str, Sequence[float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


class _LaterError(Exception):
    """A version of a format that is not known yet: no damage, and no field of it can be judged."""

    def __init__(self, format_: int) -> None:
        super().__init__(format_)
        self.format = format_


@contextlib.contextmanager
def reading_version(where: str) -> Iterator[None]:
    """What reading a version raises, as one clear error."""
    try:
        yield
    except FileNotFoundError:
        raise DamageError(
            f"{where} is gone since the log was read; restore it from a copy"
        ) from None
    except _LaterError as error:
        raise written_later(where, error.format, known=FORMAT) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(
            f"{where} cannot be read as a version ({error}); restore it from a copy"
        ) from error


def encoded_lines(core: Mapping[str, Any], details: Mapping[str, Any]) -> bytes:
    """The file; ``details`` hold the findings as well."""
    findings = {name: details[name] for name in FINDINGS}
    more = {name: value for name, value in details.items() if name not in FINDINGS}
    first, second, third = (json.dumps(part, sort_keys=True) for part in (core, findings, more))
    body = f'{first[:-1]},\n"findings": {second},\n"details": {third},\n'.encode()
    return body + f'"crc32c": {crc32c.crc32c(body)}}}\n'.encode()


def checked_lines(data: bytes) -> tuple[bytes, bytes, bytes]:
    """The first three lines of a version's file; ValueError unless the checksum is right."""
    at = data.rfind(b"\n", 0, -1) + 1
    check = _CHECK.fullmatch(data, at)
    if check is None or int(check[1]) != crc32c.crc32c(memoryview(data)[:at]):
        raise ValueError("it fails its checksum")
    written = _WRITTEN.search(data, 0, data.find(b"\n"))
    if written is not None and int(written[1]) > FORMAT:
        raise _LaterError(int(written[1]))
    lines = data[: at - 1].split(b"\n")
    if len(lines) != _LINES:
        raise ValueError(f"it has {len(lines)} lines before its checksum; a version has {_LINES}")
    core, findings, details = lines
    return core, findings, details


def core_in(line: bytes) -> dict[str, Any]:
    """The fields of the log."""
    return _decoded(line[:-1] + b"}")


def findings_in(line: bytes) -> dict[str, Any]:
    """Figures and verdicts."""
    known = _decoded(_inside(line, _FINDINGS) + b"}")
    verdicts = tuple(known["verdicts"])
    if known.keys() != {*FINDINGS} or {type(known["figures"]), *map(type, verdicts)} != {dict}:
        raise ValueError("its findings are figures and verdicts, which are objects")
    return known | {"verdicts": verdicts}


def details_in(line: bytes) -> dict[str, Any]:
    """Settings, spectra and seconds."""
    known = _decoded(_inside(line, _DETAILS) + b"}")
    if set(map(type, known.values())) != {dict}:
        raise ValueError("its details are objects")
    return known


def members_in(line: bytes) -> str | None:
    """What stands between the braces of the findings; None where a terminal or a strict reader of
    JSON would not take it as it is.
    """
    # NaN and Infinity begin with these; a name that has such a letter is merely encoded again.
    plain = line.isascii() and not any(odd in line for odd in _ODD)
    return _inside(line, _FINDINGS)[1:].decode() if plain else None


def _inside(line: bytes, name: bytes) -> bytes:
    """An object on a line of its own, from its first brace up to its last one."""
    if not (line.startswith(name) and line.endswith(b"},")):
        raise ValueError(f"a line of it does not begin with {name.decode()}")
    return line[len(name) - 1 : -2]


def _decoded(text: bytes) -> dict[str, Any]:
    """One JSON value and nothing more (in half the time that `json.loads` takes for a short
    one).
    """
    read = text.decode()
    try:
        value, end = _JSON.raw_decode(read)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if end != len(read):
        raise ValueError("there is more than one value on a line")
    return cast("dict[str, Any]", value)
