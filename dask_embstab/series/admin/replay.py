"""What would another policy have done? The recorded inputs once more, into a scratch series, and
every figure beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, Protocol, Self

from dask_embstab.errors import EmbstabError, InputError
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.repairs import option
from dask_embstab.series.admin.code_recall import code_recall
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish.delivery import described
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run, open_run

_REASON = "a replay"
_USERS, _K = 1000, 100
_OF_CODES = ("error", "agreement", "refit_error", "refit_agreement")
_NAMED = 5


class Replayable(Protocol):
    """What a replay asks of `Series`, which calls it."""

    def __init__(self, place: Any) -> None:
        """Open the series at this place."""

    @classmethod
    def init(cls, place: Any, **settings: Any) -> Self:
        """Make an empty one."""

    @property
    def settings(self) -> Settings:
        """Those of the next run."""

    def log(self) -> Log:
        """Every version."""

    @property
    def add(self) -> Any:
        """`Series.add`."""

    @property
    def diff(self) -> Any:
        """`Series.diff`."""

    @property
    def codes(self) -> Any:
        """`Series.codes`."""

    def open(self, version: int | None = None) -> Run:
        """`Series.open`."""


def replay(
    series: Replayable,
    scratch: Any,
    settings: Mapping[str, Any],
    *,
    first: int | None,
    last: int | None,
    storage_options: StorageOptions | None = None,
) -> dict[str, Any]:
    """`Series.replay`."""
    chosen = series.settings.changed(settings)
    wanted = recorded(series.log(), first, last)
    unknown = _require_options(wanted)
    sources = [_source(version, storage_options) for version in wanted]
    made = _scratch(type(series), scratch, chosen.to_dict())
    rows: list[dict[str, Any]] = []
    before: tuple[Version, Version] | None = None
    for version, source in zip(wanted, sources, strict=True):
        given = {"model": version.model, **version.inputs.get("options", {})}
        given |= {} if chosen.code else {"refit_code": False}
        given |= {"storage_options": storage_options}
        added = made.add(source, name=version.run, accept=_REASON, **given).version
        if added.inputs["tables"] != version.inputs["tables"]:
            raise _changed(version)
        _require_same_rows(version, added, given)
        pairs = (version, added)
        ours, theirs = (
            _figures(where, now, None if before is None else before[side])
            for side, (where, now) in enumerate(zip((series, made), pairs, strict=True))
        )
        rows.append(
            {
                "run": version.run,
                "versions": [version.version, added.version],
                **_compared(ours, theirs),
            }
        )
        before = pairs
    return {
        "settings": chosen.to_dict(),
        "runs": rows,
        "means": _means(rows),
        "without_options": unknown,
    }


def recorded(log: Log, first: int | None, last: int | None) -> list[Version]:
    """The versions that published what was live, in order, within these numbers."""
    live = log.live_runs
    versions = [
        v
        for name, v in log.runs.items()
        if name in live and (first or 1) <= v.version <= (last or len(log.versions))
    ]
    if not versions:
        raise InputError(
            f"no live run was published by the versions {first or 1} to {last or len(log.versions)}"
        )
    return versions


def _require_options(wanted: list[Version]) -> list[int]:
    """Raise `InputError` where an `add` was given what cannot be given again; the versions that do
    not tell what it was given (older releases did not record it).
    """
    options = {version.version: version.inputs.get("options") for version in wanted}
    lost = {
        number: [name for name, value in given.items() if value is None]
        for number, given in options.items()
        if given
    }
    named = [f"version {number} ({', '.join(names)})" for number, names in lost.items() if names]
    if named:
        raise InputError(
            "a replay gives every run what its own call was given, and arrays are not kept; they"
            f" were given to {', '.join(named[:_NAMED])}; add them with stored arrays or files",
            f"{option('first')} and {option('last')} leave versions out",
        )
    return [number for number, given in options.items() if given is None]


def _require_same_rows(version: Version, added: Version, given: Mapping[str, Any]) -> None:
    """Raise where a file or an array that the call named is not what it was."""
    before, now = (v.figures.get("selected") or {} for v in (version, added))
    for key, known in before.items():
        for name in given.keys() & known.keys():
            if now.get(key, {}).get(name) != known[name]:
                raise InputError(
                    f"{name} of the {key} of version {version.version} are not what they were;"
                    " restore them",
                    f"{option('first')} and {option('last')} leave versions out",
                )


def _scratch(kind: type[Replayable], place: Any, settings: Mapping[str, Any]) -> Replayable:
    try:
        made = kind.init(place, **settings)
    except InputError:
        made = kind(place)
        if made.settings.to_dict() != settings:
            raise InputError(
                f"{place} is a series with other settings; replay into another folder"
            ) from None
    return made


def _source(version: Version, storage_options: StorageOptions | None) -> Run:
    """The input as it was, as far as can be told without reading its vectors (the add reads them,
    and tells the rest).
    """
    inputs = version.inputs  # a file that is read and decoded: once
    try:
        source = open_run(*bound(storage_options, inputs["path"]))
    except EmbstabError as error:
        raise InputError(
            f"the input of version {version.version} cannot be opened any more: {error}"
        ) from error
    known = {key: {**table, "digests": None} for key, table in inputs["tables"].items()}
    tables = {key: {**table, "digests": None} for key, table in described(source).items()}
    for table in tables.values():
        del table["written"]
    if tables != known:
        raise _changed(version)
    return source


def _changed(version: Version) -> InputError:
    return InputError(
        f"the input of version {version.version}, {version.inputs['path']}, is not what was"
        " aligned; restore it",
        f"{option('first')} and {option('last')} leave versions out",
    )


def _figures(
    series: Replayable, version: Version, before: Version | None
) -> dict[str, float | None]:
    """Metrics and gates of one run by name."""
    details = version.full_details
    known = details.figures
    figures: dict[str, float | None] = {
        "relative_error": (known.get("alignment") or {}).get("relative_error"),
        "chain_minus_first": known.get("chain_minus_first"),
    }
    if before is not None:
        compared = series.diff(before.version, version.version, k=_K, users=_USERS).to_dict()
        for table in TABLES:
            for name in ("mean_cosine", "norm_ratio"):
                figures[f"{table}_{name}"] = (compared[table] or {}).get(name)
        figures["rbo"] = (compared["rank_correlation"] or {}).get("rbo")
    if codes := known.get("codes"):
        figures["code_recall"] = code_recall(
            series.open(version.version), series.codes(version.version)
        )
        for table, of in codes["tables"].items():
            figures |= {f"{table}_code_{name}": of.get(name) for name in _OF_CODES}
    return figures | {f"gate_{verdict['gate']}": verdict["figure"] for verdict in details.verdicts}


def _compared(
    ours: Mapping[str, float | None], theirs: Mapping[str, float | None]
) -> dict[str, Any]:
    return {
        "figures": {
            name: _difference(ours.get(name), theirs.get(name)) for name in {**ours, **theirs}
        }
    }


def _difference(ours: float | None, theirs: float | None) -> dict[str, float | None]:
    known = ours is not None and theirs is not None
    return {"series": ours, "scratch": theirs, "difference": theirs - ours if known else None}  # type: ignore[operator]


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the runs that have a figure in both."""
    means = {}
    for name in dict.fromkeys(name for row in rows for name in row["figures"]):
        both = [
            f for row in rows if (f := row["figures"].get(name)) and f["difference"] is not None
        ]
        if both:
            means[name] = {
                key: fmean(f[key] for f in both) for key in ("series", "scratch", "difference")
            }
    return means


def table_lines(report: Mapping[str, Any]) -> list[str]:
    """A line for every figure of every run, then the means."""
    groups = [*((row["run"], row["figures"]) for row in report["runs"]), ("mean", report["means"])]
    lines = [f"{'run':24} {'figure':24} {'series':>12} {'scratch':>12} {'difference':>12}"]
    for run, figures in groups:
        for name, figure in figures.items():
            if any(value is not None for value in figure.values()):
                shown = " ".join(
                    "           -" if v is None else f"{v:12.6g}" for v in figure.values()
                )
                lines.append(f"{run:24} {name:24} {shown}")
    if report["without_options"]:
        numbers = ", ".join(map(str, report["without_options"]))
        lines.append(f"what their own calls were given is not recorded of the versions {numbers}")
    return lines
