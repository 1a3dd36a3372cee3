"""What has been published? The versions in order; everything else about a series follows from them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dask_embstab.errors import DamageError, InputError
from dask_embstab.series.log.versions import Version, version_key
from dask_embstab.series.store import Store

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Log:
    """All versions, oldest first; version n is ``versions[n - 1]``. What follows from them is found once, when asked for."""

    versions: tuple[Version, ...] = ()

    @cached_property
    def head(self) -> Version | None:
        """The highest live version that holds a run."""
        return next((v for v in reversed(self.versions) if v.state == "live" and v.run is not None), None)

    @cached_property
    def first(self) -> Version | None:
        """The first live version that holds a run."""
        return next((v for v in self.versions if v.state == "live" and v.run is not None), None)

    @cached_property
    def runs(self) -> dict[str, Version]:
        """Every run's name and the version that published it."""
        return {v.run: v for v in self.versions if v.kind == "publish" and v.run is not None}

    @cached_property
    def basis(self) -> Mapping[str, Any]:
        """What the last rebase recorded."""
        return next((v.basis for v in reversed(self.versions) if v.kind == "rebase"), {})

    @cached_property
    def moved(self) -> dict[str, Mapping[str, Any]]:
        """Where runs are stored that a rebase rewrote, by their names; of several times, the last."""
        return {name: place for version in self.versions for name, place in version.moved.items()}

    def placed(self, version: Version) -> Version:
        """A version as it is to be read now: with the place of its stored run, and the basis in which it is read.

        Without the digests of a running reference that is not kept any more.
        """
        name, kept = str(version.run), self.kept_references
        placed: dict[str, Any] = {**self.moved.get(name, {}), "basis": self.basis}
        if kept is not None and name not in kept:
            placed["reference_digests"] = {}
        return replace(version, **placed)

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
            kept = tuple(name for name, known in self.runs.items() if known.reference_digests)
        if version.run in kept or (version.kind == "publish" and version.reference_digests):
            kept = (*(name for name in kept if name != version.run), str(version.run))
        head = version if version.state == "live" else self.head
        last = kept[-most:]
        return last if head is None or head.run in last or head.run not in kept else (str(head.run), *last[1:])

    @cached_property
    def stored(self) -> dict[str, Version]:
        """Every run's name and the version that published it, with the place where it is stored now."""
        return {name: self.placed(version) for name, version in self.runs.items()}

    @cached_property
    def bases(self) -> dict[str, int]:
        """Files of matrices and their digests."""
        return {v.basis["file"]: v.basis["crc32c"] for v in self.versions if v.kind == "rebase" and v.basis["file"]}

    @cached_property
    def live_runs(self) -> dict[str, Version]:
        """Every run that is or was the head, by name, and the version that first made it so; oldest first."""
        found: dict[str, Version] = {}
        for version in self.versions:
            if version.state == "live" and version.run is not None:
                found.setdefault(version.run, version)
        return found

    def version(self, number: int | None) -> Version:
        """One version; None asks for the head."""
        if number is None and self.head is not None:
            return self.head
        if number is None or not self.versions:
            raise InputError("nothing is published in this series yet; add a run first")
        if not 1 <= number <= len(self.versions):
            raise InputError(f"this series has the versions 1 to {len(self.versions)}; {number} was asked for")
        return self.versions[number - 1]

    def with_run(self, number: int | None) -> Version:
        """One version that holds a run."""
        version = self.version(number)
        if version.run is None:
            raise InputError(f"version {number} holds settings and no run; give one that holds a run")
        return version

    def of_model(self, model: str) -> Version:
        """The highest live version of a model."""
        found = [v for v in self.versions if v.model == model and v.state == "live"]
        if not found:
            known = ", ".join(dict.fromkeys(str(v.model) for v in self.versions[-5:] if v.model)) or "none"
            raise InputError(
                f"no live version of this series belongs to the model {model!r}; the last ones are {known}"
            )
        return found[-1]


def read_log(store: Store) -> Log:
    """Read every version; DamageError where one is missing or has changed."""
    numbers = [int(name[:-5]) for name in store.names("versions") if re.fullmatch(r"[1-9]\d*\.json", name)]
    return Log(tuple(_read(store, number) for number in range(1, max(numbers, default=0) + 1)))


def rows(log: Log) -> Iterator[dict[str, Any]]:
    """A line for every version: all but its digests, and the days since the run before, where names hold dates."""
    before: dt.date | None = None
    for version in log.versions:
        date = _date(version.run) if version.kind == "publish" else None
        days = (date - before).days if date and before else None
        before = date or before
        drift = version.figures.get("chain_minus_first")
        yield {**version.in_brief(), "days_since_previous": days, "chain_minus_first": drift}


def _read(store: Store, number: int) -> Version:
    key = version_key(number)
    try:
        version = Version.decoded(store.read(key), key)
    except FileNotFoundError:
        raise DamageError(f"{key} is missing and later versions are there; restore it from a copy") from None
    if version.version != number:
        raise DamageError(f"{key} holds version {version.version}; restore it from a copy")
    return version


def _date(name: str | None) -> dt.date | None:
    found = _DATE.search(name or "")
    try:
        return dt.date.fromisoformat(found.group()) if found else None
    except ValueError:
        return None
