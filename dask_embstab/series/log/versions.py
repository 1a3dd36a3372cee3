"""One version: what was published (or rolled back to, or set), when, and how it can be told whole.

``versions/<n>.json`` is created once and never changed (`series/log/version_file.py`). A log reads
what it is made of, a log that is printed what was found as well (`Findings`); the rest (`Details`)
is read of one version at a time.
Digests, a number per chunk, lie in a file of their own (`series/log/digests.py`) that the version
names with its checksum.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from types import NoneType
from typing import Any, Literal, get_args

from dask_embstab.display import Displayed
from dask_embstab.errors import InputError
from dask_embstab.series.log.digests import Digests, digests_of
from dask_embstab.series.log.names import (
    BASIS_KEY,
    PLACE,
    is_text_of,
    reference_key,
    require_model,
    require_place,
    require_run_name,
    run_key,
    version_key,
)
from dask_embstab.series.log.version_file import (
    FORMAT,
    Details,
    Findings,
    checked_lines,
    core_in,
    details_in,
    encoded_lines,
    findings_in,
    members_in,
    reading_version,
)
from dask_embstab.series.store import Store
from dask_embstab.tables.layout import Files

Kind = Literal["publish", "promote", "rollback", "settings", "rebase", "forget"]
MOVING = ("rebase", "forget")
"""Kinds of versions that say where runs are stored from then on."""
State = Literal["live", "shadow"]
_KINDS, _STATES = get_args(Kind), get_args(State)
_FIELDS: tuple[tuple[str, Any], ...] = (
    ("policy", str),
    ("created", str),
    ("accepted", (str, NoneType)),
    ("content", (str, NoneType)),
    ("basis", (dict, Mapping)),
    ("forgot", (dict, Mapping)),
    ("moved", (dict, Mapping)),
)
_SHOWN = ("kind", "run", "model", "reference", "restores", "policy", "accepted", "created")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Version(Displayed):
    """``parent`` is the version that was the head before, ``reference`` the one whose run this one
    was aligned to.

    ``digests_file`` holds the crc32c of every file of the run, of its running reference where it
    ``has_reference``, and of the input; ``content`` is one text for the input's rows, ids and
    chunks. A rollback and a promotion repeat the version that they ``restores``. A rebase records
    its ``basis`` (where its matrices lie, what they lead onto) and, where it rewrote runs, what
    ``moved`` where: by the name of the run, the name and the digests under which it is stored from
    then on; ``rebased`` is the last version before this one that is a rebase or a forget. A forget
    records how many ids of which table it ``forgot``, and ``moved`` as a rebase does;
    ``reference_at`` is the name under which the running reference is stored where that is not the
    run's. ``accepted`` is the reason to publish in spite of a gate; ``references`` are the runs
    whose running references are kept from this version on (None: all).

    Verdicts, settings, figures, spectra, digests and inputs are read from ``store`` when they are
    asked for: a log of ten thousand versions stays small.
    """

    version: int
    kind: Kind
    run: str | None
    model: str | None
    parent: int | None
    reference: int | None
    restores: int | None = None
    rebased: int | None = None
    state: State = "live"
    policy: str
    accepted: str | None = None
    content: str | None = None
    digests_file: str | None = None
    digests_crc32c: int | None = None
    has_reference: bool = False
    reference_at: str | None = None
    forgot: Mapping[str, Any] = field(default_factory=dict)
    basis: Mapping[str, Any] = field(default_factory=dict)
    moved: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    references: tuple[str, ...] | None = None
    created: str
    format: int = FORMAT
    details: Details | None = field(default=None, compare=False, repr=False)
    store: Store | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Raise `InputError` where this could not be a version: the same when it is written and
        when it is read.
        """
        self._require_numbers()
        if self.kind not in _KINDS or self.state not in _STATES:
            raise InputError(f"it is {self.kind!r}, {self.state!r}")
        for name, kinds in _FIELDS:
            if not isinstance(getattr(self, name), kinds):
                raise InputError(f"its {name} may not be {getattr(self, name)!r}")
        dt.datetime.fromisoformat(self.created)
        matrices = self.basis.get("file")
        if matrices is not None and not is_text_of(BASIS_KEY, matrices):
            raise InputError(f"it names matrices at {matrices!r}")
        if self.model is not None:
            require_model(self.model)
        require_place(self.place)
        for name, place in self.moved.items():
            require_run_name(name)
            if not isinstance(place, Mapping) or set(place) != set(PLACE):
                raise InputError(f"it moved {name!r} to {place!r}")
            require_place(place)
        for name in self.references or ():
            require_run_name(name)

    def _require_numbers(self) -> None:
        numbers = (self.version, self.parent, self.reference, self.restores, self.rebased)
        if self.format != FORMAT:
            raise InputError(f"its format is {self.format}; this library knows {FORMAT}")
        if self.version is None:
            raise InputError("it has no number")
        for n in numbers:
            if n is not None and (type(n) is not int or n <= 0):
                raise InputError(f"it counts versions as {numbers}")
        for n in numbers[1:]:
            if n is not None and n >= self.version:
                raise InputError(f"it follows on versions as {numbers}")

    def _facts(self) -> dict[str, object]:
        state = None if self.state == "live" else self.state
        known = {name: getattr(self, name) for name in _SHOWN}
        return {"version": self.version, **known, "state": state}

    # --- what is read when it is asked for

    @property
    def full_details(self) -> Details:
        """Verdicts, settings, figures and spectra."""
        if self.details is not None:
            return self.details
        assert self.store is not None, "whoever makes a version gives its details"
        key = version_key(self.version)
        with reading_version(key):
            _, findings, more = checked_lines(self.store.read(key))
            return Details(**findings_in(findings), **details_in(more))

    @property
    def verdicts(self) -> tuple[Mapping[str, Any], ...]:
        """Those of the gates."""
        return self.full_details.verdicts

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the series, from this version on."""
        return self.full_details.settings

    @property
    def figures(self) -> Mapping[str, Any]:
        """Matched rows, alignment, drift."""
        return self.full_details.figures

    @property
    def spectra(self) -> Mapping[str, Sequence[float]]:
        """Singular values of the stabilized tables, descending."""
        return self.full_details.spectra

    @property
    def recorded(self) -> Digests:
        """Every digest: of the run, of its running reference, of the input."""
        if self.digests_file is None or self.digests_crc32c is None:
            return Digests()
        assert self.store is not None, "whoever makes a version says where its digests lie"
        return digests_of(self.store, self.digests_file, self.digests_crc32c)

    @property
    def digests(self) -> Files:
        """The crc32c of every file of the run, ``chunks`` (of the encoded rows) and ``metadata``;
        ``bytes`` of chunks.
        """
        return self.recorded.run

    @property
    def reference_digests(self) -> Files:
        """The same of the running reference as of this version; empty where none is kept."""
        return self.recorded.reference if self.has_reference else {}

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What was aligned: path, rows, and the digests of its chunks and ids."""
        return self.recorded.inputs

    def at(self, place: Mapping[str, Any], basis: Mapping[str, Any]) -> Version:
        """The same, stored where a rebase has written it anew (``place``, if any), to be read in
        ``basis``.
        """
        return replace(self, basis=basis, **place)

    @property
    def reference_name(self) -> str:
        """Under which its running reference is stored."""
        return self.reference_at or str(self.run)

    @property
    def place(self) -> dict[str, Any]:
        """Where its run and digests are stored; what ``moved`` says of a run that a rebase writes
        anew.
        """
        return {name: getattr(self, name) for name in PLACE}

    # --- as a file, and as plain values

    def encoded(self) -> bytes:
        """The file."""
        return encoded_lines(self._core(), asdict(self.full_details))

    @classmethod
    def decoded(cls, data: bytes, where: str, store: Store | None = None) -> Version:
        """The inverse of ``encoded``, but for its details; DamageError where a byte has changed."""
        with reading_version(where):
            return cls._of(checked_lines(data)[0], store)

    @classmethod
    def decoded_with_findings(
        cls, data: bytes, where: str, store: Store | None = None
    ) -> tuple[Version, Findings, str | None]:
        """The same, what was found of it, and the JSON of that as it is stored (members of an
        object), where it may be printed as it is.
        """
        with reading_version(where):
            core, line, _ = checked_lines(data)
            findings = Findings(**findings_in(line))
            return cls._of(core, store), findings, members_in(line)

    @classmethod
    def _of(cls, core: bytes, store: Store | None) -> Version:
        known = core_in(core)
        if known.get("references") is not None:
            known["references"] = tuple(known["references"])
        return cls(**known, store=store)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: everything that is recorded."""
        recorded = self.recorded
        more = {
            "digests": recorded.run,
            "reference_digests": recorded.reference if self.has_reference else {},
            "inputs": recorded.inputs,
        }
        return self.without_digests() | dict(json.loads(json.dumps(more)))

    def without_digests(self) -> dict[str, Any]:
        """The same but for what lies in its file of digests."""
        return dict(json.loads(json.dumps(self._core() | asdict(self.full_details))))

    def in_brief(self) -> dict[str, Any]:
        """The same for a person: without whatever is long."""
        known = self.facts() | self.full_details.plain()
        return known if self.details is None else dict(json.loads(json.dumps(known)))

    def facts(self) -> dict[str, Any]:
        """The same without what was found of it."""
        known = {name: getattr(self, name) for name in _BRIEF}
        if not self.forgot:
            known.pop("forgot")
        return known

    def _core(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _CORE}


_CORE = tuple(f.name for f in fields(Version) if f.name not in ("details", "store"))
_LONG = (*PLACE[1:], "moved", "references", "format", "content", "rebased")
_BRIEF = tuple(name for name in _CORE if name not in _LONG)


def row_counts(known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Rows of one table in the figures of a version, or in the diagnostics of a fit; ``gone`` are
    those of the reference alone. None is what is not known.
    """
    figures = known or {}
    counts = {
        name: figures.get(name) for name in ("rows", "matched", "new", "returned", "zero_rows")
    }
    return counts | {"gone": figures.get("unmatched_reference", figures.get("gone"))}


def stored_bytes(version: Version) -> int | None:
    """Bytes of the chunks of its run as it was published; None where that is not recorded."""
    if version.digests_file is None:
        return None
    return sum(version.digests.get("bytes", {}).values())


def artifacts(version: Version) -> Iterator[tuple[str, str, int]]:
    """Every file of the run of a version and of its running reference: key, kind and digest."""
    recorded = version.recorded
    places = [(run_key(str(version.run)), recorded.run)]
    if version.has_reference:
        places.append((reference_key(version.reference_name), recorded.reference))
    for place, digests in places:
        for kind in ("chunks", "metadata"):
            for path, digest in digests.get(kind, {}).items():
                yield f"{place}/{path}", kind, digest
