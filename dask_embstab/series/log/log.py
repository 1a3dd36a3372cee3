"""What has been published? The versions in order; everything else about a series follows
from them.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, overload

from dask_embstab.arguments import shown
from dask_embstab.display import Displayed
from dask_embstab.errors import DamageError, InputError
from dask_embstab.series.log.names import version_key
from dask_embstab.series.log.version_file import Findings
from dask_embstab.series.log.versions import MOVING, Version
from dask_embstab.series.store import Store, size_of

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FILE = re.compile(r"[1-9][0-9]*\.json")
_MODELS_NAMED, _BATCH = 5, 1024
_encoded = json.JSONEncoder(allow_nan=False).encode


@dataclass(frozen=True, repr=False)
class Log(Displayed):
    """All versions, oldest first; version n is ``versions[n - 1]``. What follows from them is found
    once, when asked for.

    The head, the first run and where a run is stored need a few versions, whatever their number;
    names of runs need all.
    """

    versions: Sequence[Version] = ()

    def _facts(self) -> dict[str, object]:
        head = self.head
        return {
            "versions": len(self.versions),
            "head": None if head is None else f"{head.version} ({head.run}, {head.created})",
        }

    @cached_property
    def head(self) -> Version | None:
        """The highest live version that holds a run."""
        return next(
            (v for v in reversed(self.versions) if v.state == "live" and v.run is not None), None
        )

    @cached_property
    def first(self) -> Version | None:
        """The first live version that holds a run."""
        return next((v for v in self.versions if v.state == "live" and v.run is not None), None)

    @cached_property
    def runs(self) -> dict[str, Version]:
        """Every run's name and the version that published it."""
        return {v.run: v for v in self.versions if v.kind == "publish" and v.run is not None}

    @cached_property
    def moves(self) -> tuple[Version, ...]:
        """Those that moved what is stored (rebases, forgets), oldest first: each version names the
        last one before it.
        """
        moves: list[Version] = []
        last = self.versions[-1] if self.versions else None
        number = None if last is None else last.version if last.kind in MOVING else last.rebased
        while number is not None:
            moves.append(self.versions[number - 1])
            number = moves[-1].rebased
        return tuple(reversed(moves))

    @cached_property
    def basis(self) -> Mapping[str, Any]:
        """What the last rebase recorded."""
        return self.moves[-1].basis if self.moves else {}

    @cached_property
    def moved(self) -> dict[str, Mapping[str, Any]]:
        """Where runs are stored that were written anew, by their names; of several times,
        the last.
        """
        return {name: place for version in self.moves for name, place in version.moved.items()}

    def located(self, version: Version) -> Version:
        """A version as it is to be read now: with the place of its stored run, and the basis in
        which it is read.

        Without the digests of a running reference that is not kept any more.
        """
        name, kept = str(version.run), self.kept_references
        place = dict(self.moved.get(name, {}))
        if kept is not None and name not in kept:
            place["has_reference"] = False
        return version.at(place, self.basis)

    def lagged(self, gaps: Collection[int]) -> dict[int, Version]:
        """The live runs so many runs back (1: the head), as they are to be read now; those that are
        not there are left out.

        Along the head's own history: after a rollback, what was live before the run that is the
        head again.
        """
        lagged: dict[int, Version] = {}
        version = self.head
        for lag in range(1, max(gaps, default=0) + 1):
            # Back to the version that published this run; the one before it was the head then.
            while version is not None and version.kind != "publish":
                version = self.versions[(version.restores or version.parent or 1) - 1]
            if version is None:
                break
            if lag in gaps:
                lagged[lag] = self.located(version)
            version = None if version.parent is None else self.versions[version.parent - 1]
        return lagged

    @cached_property
    def kept_references(self) -> tuple[str, ...] | None:
        """The runs whose running references are kept, the last one last; None for all of them."""
        return self.versions[-1].references if self.versions else ()

    def references_with(self, version: Version, most: int) -> tuple[str, ...]:
        """The same once ``version`` follows: the last ``most``, the head's among them.

        What is not kept any more never comes back.
        """
        kept = self.kept_references
        if kept is None:
            kept = tuple(name for name, known in self.runs.items() if known.has_reference)
        if version.run in kept or (version.kind == "publish" and version.has_reference):
            kept = (*(name for name in kept if name != version.run), str(version.run))
        head = version if version.state == "live" else self.head
        last = kept[-most:]
        return (
            last
            if head is None or head.run in last or head.run not in kept
            else (str(head.run), *last[1:])
        )

    @cached_property
    def stored(self) -> dict[str, Version]:
        """Every run's name and the version that published it, with the place where it is stored
        now.
        """
        return {name: self.located(version) for name, version in self.runs.items()}

    @cached_property
    def digests_files(self) -> dict[str, int]:
        """Files of digests and their checksums: of every run as it was published, and where it was
        written anew.
        """
        places = [v.place for v in self.runs.values()] + [
            place for v in self.moves for place in v.moved.values()
        ]
        return {
            place["digests_file"]: place["digests_crc32c"]
            for place in places
            if place["digests_file"]
        }

    @cached_property
    def bases(self) -> dict[str, int]:
        """Files of matrices and their digests."""
        return {v.basis["file"]: v.basis["crc32c"] for v in self.moves if v.basis.get("file")}

    @cached_property
    def live_runs(self) -> dict[str, Version]:
        """Every run that is or was the head, by name, and the version that first made it so; oldest
        first.
        """
        live: dict[str, Version] = {}
        for version in self.versions:
            if version.state == "live" and version.run is not None:
                live.setdefault(version.run, version)
        return live

    def version(self, number: int | None) -> Version:
        """One version; None asks for the head."""
        if number is None and self.head is not None:
            return self.head
        if number is None or not self.versions:
            raise InputError("nothing is published in this series yet; add a run first")
        given: Any = number  # may be NumPy's
        if isinstance(number, bool) or not isinstance(given, Integral):
            raise InputError(f"a version is a whole number; {shown(number)} was asked for")
        if not 1 <= number <= len(self.versions):
            raise InputError(
                f"this series has the versions 1 to {len(self.versions)}; {shown(number)} was"
                " asked for"
            )
        return self.versions[number - 1]

    def with_run(self, number: int | None) -> Version:
        """One version that holds a run."""
        version = self.version(number)
        if version.run is None:
            raise InputError(
                f"version {number} holds settings and no run; give one that holds a run"
            )
        return version

    def of_model(self, model: str) -> Version:
        """The highest live version of a model."""
        versions = [v for v in self.versions if v.model == model and v.state == "live"]
        if not versions:
            live = [str(v.model) for v in reversed(self.versions) if v.state == "live" and v.model]
            known = ", ".join(list(dict.fromkeys(live))[:_MODELS_NAMED]) or "none"
            raise InputError(
                f"a live version of this series must belong to the model {model!r}; none does; the"
                f" last models that are live are {known}; give one of them"
            )
        return versions[-1]


def read_log(store: Store) -> Log:
    """The versions that are there, each read once, when it is first asked for.

    Raises `DamageError` where one of them is missing, or, when it is read, has changed.
    """
    listed = {int(name[:-5]) for name in store.names("versions") if _FILE.fullmatch(name)}
    last = max(listed, default=0)
    for key in (version_key(number) for number in range(1, last) if number not in listed):
        if size_of(store, key) is None:
            raise DamageError(f"{key} is missing and later ones are there; restore it from a copy")
    while size_of(store, version_key(last + 1)) is not None:  # a listing may lag behind
        last += 1
    return Log(_Stored(store, last))


class _Stored(Sequence[Version]):
    """The versions in a store; one that was read is kept."""

    def __init__(self, store: Store, n: int) -> None:
        self._store = store
        self._read: list[Version | None] = [None] * n

    def __len__(self) -> int:
        return len(self._read)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> Version: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Version, ...]: ...
    def __getitem__(self, at: int | slice) -> Version | tuple[Version, ...]:
        numbers = range(1, len(self) + 1)[at]
        return self._get(numbers) if isinstance(numbers, int) else tuple(map(self._get, numbers))

    def __iter__(self) -> Iterator[Version]:
        """Files are read in ever larger batches: the first version costs one, all of them few."""
        start, size = 1, 1
        while start <= len(self):
            batch = range(start, min(start + size, len(self) + 1))
            missing = [number for number in batch if self._read[number - 1] is None]
            for number, data in zip(missing, _data_of(self._store, missing), strict=True):
                self._keep(number, data)
            yield from map(self._get, batch)
            start, size = start + size, min(2 * size, _BATCH)

    def _get(self, number: int) -> Version:
        version = self._read[number - 1]
        return self._keep(number, *_data_of(self._store, [number])) if version is None else version

    def _keep(self, number: int, data: bytes) -> Version:
        decoded = Version.decoded(data, version_key(number), self._store)
        version = self._read[number - 1] = _numbered(decoded, number)
        return version

    def with_findings(self) -> Iterator[tuple[Version, Findings, str | None]]:
        """Every version with what was found of it and the text of that, from one read of its
        file.
        """
        numbers = range(1, len(self) + 1)
        for number, data in zip(numbers, _data_of(self._store, numbers), strict=True):
            version, findings, text = Version.decoded_with_findings(
                data, version_key(number), self._store
            )
            yield _numbered(version, number), findings, text


class Row(dict[str, Any]):
    """A line of a log; what was found of its version is printed as it is stored (``members``),
    which was decoded already and need not be encoded again.
    """

    members: str | None = None

    def json(self) -> str:
        """The text of an object; ValueError where it has a number that JSON has not."""
        if self.members is None:
            return _encoded(self)
        rest = {key: value for key, value in self.items() if key not in ("figures", "verdicts")}
        return f"{_encoded(rest)[:-1]}, {self.members}}}"


def rows(log: Log) -> Iterator[Row]:
    """A line for every version: all but its digests, and the days since the run before, where names
    hold dates.
    """
    before: dt.date | None = None
    versions = log.versions
    for version, findings, text in (
        versions.with_findings()
        if isinstance(versions, _Stored)
        else ((v, v.full_details, None) for v in versions)
    ):
        date = _date(version.run) if version.kind == "publish" else None
        days = (date - before).days if date and before else None
        before, drift = date or before, findings.figures.get("chain_minus_first")
        more = {"days_since_previous": days, "chain_minus_first": drift}
        row = Row(version.facts() | findings.plain() | more)
        row.members = text
        yield row


def _data_of(store: Store, numbers: Sequence[int]) -> Iterator[bytes]:
    """The files of these versions, which were listed."""
    try:
        yield from store.read_each([version_key(number) for number in numbers])
    except FileNotFoundError as error:
        raise DamageError(
            f"a version is gone since the versions were listed ({error}); restore it from a copy"
        ) from None


def _numbered(version: Version, number: int) -> Version:
    if version.version != number:
        raise DamageError(
            f"{version_key(number)} holds version {version.version}; restore it from a copy"
        )
    return version


def _date(name: str | None) -> dt.date | None:
    match = _DATE.search(name or "")
    try:
        return dt.date.fromisoformat(match.group()) if match else None
    except ValueError:
        return None
