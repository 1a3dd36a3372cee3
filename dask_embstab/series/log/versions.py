"""One version: what was published (or rolled back to, or set), when, and how it can be told whole.

``versions/<n>.json`` is created once and never changed. Its last word is the crc32c of all the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import crc32c

from dask_embstab.errors import DamageError

Kind = Literal["publish", "promote", "rollback", "settings", "rebase"]
State = Literal["live", "shadow"]
FORMAT = 1
_CHECK = "crc32c"
_TUPLES = ("verdicts", "references")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """``parent`` is the version that was the head before, ``reference`` the one whose run this one landed on.

    ``digests`` holds the crc32c of every file of the run: ``chunks`` (of the decoded bytes) and ``metadata``;
    ``reference_digests`` those of the running reference as of this version, where one is kept. ``inputs`` says what was
    landed, with the digests of its chunks. A rollback and a promotion repeat the version that they ``restores``. A rebase
    records its ``basis`` (where its matrices lie, what they lead onto) and, where it rewrote runs, what ``moved`` where: by
    the name of the run, the name and the digests under which it is stored from then on. ``verdicts`` are those of the
    gates, ``accepted`` the reason to publish in spite of one; ``spectra`` are the landed tables' singular values.
    ``references`` are the runs whose running references are kept from this version on (None: all).
    """

    version: int
    kind: Kind
    run: str | None
    model: str | None
    parent: int | None
    reference: int | None
    restores: int | None = None
    state: State = "live"
    policy: str
    verdicts: tuple[Mapping[str, Any], ...] = ()
    accepted: str | None = None
    settings: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    spectra: Mapping[str, Sequence[float]] = field(default_factory=dict)
    digests: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reference_digests: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    basis: Mapping[str, Any] = field(default_factory=dict)
    moved: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    references: tuple[str, ...] | None = None
    created: str
    format: int = FORMAT

    def encoded(self) -> bytes:
        """The file."""
        values = self.to_dict()
        return json.dumps(values | {_CHECK: _check(values)}, indent=1, sort_keys=True).encode()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(json.loads(json.dumps(asdict(self))))

    def in_brief(self) -> dict[str, Any]:
        """The same for a person: without digests and whatever else is long."""
        left_out = ("digests", "reference_digests", "inputs", "settings", "spectra", "moved", "references", "format")
        known = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left_out}
        return dict(json.loads(json.dumps(known)))

    @property
    def files(self) -> Iterator[tuple[str, str, int]]:
        """Every file of its run and of its running reference: key, kind and digest."""
        places = ((run_key, self.digests), (reference_key, self.reference_digests))
        for key_of, digests in places:
            for kind, files in digests.items():
                for path, crc in files.items():
                    yield f"{key_of(str(self.run))}/{path}", kind, crc

    @classmethod
    def decoded(cls, data: bytes, where: str) -> Version:
        """The inverse of ``encoded``; DamageError where a byte has changed."""
        try:
            values = json.loads(data)
            if values.pop(_CHECK) != _check(values):
                raise ValueError("it fails its checksum")
            if values["format"] != FORMAT:
                raise ValueError(f"its format is {values['format']}; this library knows {FORMAT}")
            return cls(**values | {name: tuple(values[name]) for name in _TUPLES if values.get(name) is not None})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamageError(f"{where} cannot be read as a version ({error}); restore it from a copy") from error


def version_key(number: int) -> str:
    """Where a version lies."""
    return f"versions/{number}.json"


def run_key(name: str) -> str:
    """Where a run lies."""
    return f"runs/{name}.zarr"


def reference_key(name: str) -> str:
    """Where the running reference lies that a run has moved on."""
    return f"references/{name}.zarr"


def _check(values: Mapping[str, Any]) -> int:
    return int(crc32c.crc32c(json.dumps(values, sort_keys=True).encode()))
