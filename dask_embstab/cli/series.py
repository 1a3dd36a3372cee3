"""The command line of a series: ``embstab series ...``, one command for each verb of `Series`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dask_embstab.cli.common import (
    argument,
    clock,
    cluster,
    command,
    described,
    joins_within,
    main,
    prints_json,
    require_ids,
)
from dask_embstab.cli.options import PLACE, given, given_settings, options
from dask_embstab.files.published import publishing

if TYPE_CHECKING:
    from dask_embstab.series.admin.forget import Forgotten
    from dask_embstab.series.publish.publish import Added


@main.group(name="series")
def series() -> None:
    """Years of runs in one space: publish, inspect, verify, roll back."""


_MOST_DIGITS = 20
_PLACE = argument("series")
_VERSION = click.argument("version", type=click.IntRange(1), metavar="[N]", required=False)


@command(_PLACE, *options("Series.init"), group=series)
def init(series: str, **settings: Any) -> dict[str, Any]:
    """Make an empty series in the folder SERIES."""
    from dask_embstab.series.series import Series

    made = Series.init(series, **given_settings(settings))
    return {"series": series, "settings": made.settings.to_dict()}


@command(_PLACE, argument("run"), *options("Series.add"), group=series, through="Series.change")
def add(
    series: str,
    run: str,
    *,
    scheduler: str | None,
    scratch: str | None,
    join_memory: str | None,
    **chosen: Any,
) -> dict[str, Any]:
    """Fit, apply, verify and publish RUN, unless a gate holds it (ends with 3); after an
    interruption it goes on.
    """
    from dask_embstab.series.series import Series, delivering

    opened = Series(series)
    joins = joins_within(scratch, join_memory)
    with (
        delivering(opened, run, name=chosen["name"]),
        cluster(scheduler),
        joins,
        clock() as seconds,
    ):
        added = opened.add(run, **given(chosen))
    return {**_added(added), "seconds": seconds()}


@command(_PLACE, group=series)
def log(series: str) -> dict[str, Any]:
    """Every published version, oldest first."""
    from dask_embstab.series.log.log import read_log, rows
    from dask_embstab.series.log.mark import require_mark, store_at

    # As `Series.log`, without what the other verbs import: of 10,000 versions it is most of it.
    require_mark(store := store_at(series), series)
    return {"versions": rows(read_log(store))}


@command(_PLACE, _VERSION, group=series)
def show(series: str, version: int | None) -> dict[str, Any]:
    """Everything that is recorded of version N, by default of the head."""
    from dask_embstab.series.series import Series

    return Series(series).show(version).to_dict()


@command(_PLACE, _VERSION, *options("Series.codes"), group=series)
def codes(series: str, version: int | None, **chosen: Any) -> dict[str, Any]:
    """Which codes version N holds (default: the head), what they keep, and since when."""
    from dask_embstab.series.series import Series

    opened = Series(series)
    found = opened.log().version(version)
    opened.codes(found.version, **given(chosen))
    return {"version": found.version, "run": found.run, **found.figures["codes"]}


@command(
    _PLACE,
    click.argument("a", type=click.IntRange(1)),
    click.argument("b", type=click.IntRange(1), required=False),
    *options("Series.diff"),
    group=series,
)
def diff(
    series: str, a: int, b: int | None, *, scheduler: str | None, **chosen: Any
) -> dict[str, Any]:
    """Compare the runs of versions A and B (default: the head): cosines, lengths, top lists."""
    from dask_embstab.diagnose.comparison import comparison_lines
    from dask_embstab.series.series import Series

    opened = Series(series)
    with cluster(scheduler):
        versions = {"a": a, "b": opened.log().version(b).version}
        found = opened.diff(a, b, **given(chosen))
    if prints_json():
        return {**versions, **found.to_dict()}
    return {"lines": [f"A is version {a}, B version {versions['b']}", *comparison_lines(found)]}


@command(_PLACE, *options("Series.skew"), group=series)
def skew(series: str, *, scheduler: str | None, **chosen: Any) -> dict[str, Any]:
    """What queries of one version find in another's table, and in a table mixed of several."""
    from dask_embstab.diagnose.comparison import skew_lines
    from dask_embstab.series.series import Series

    with cluster(scheduler):
        found = Series(series).skew(**given(chosen))
    return found.to_dict() if prints_json() else {"lines": skew_lines(found)}


@command(_PLACE, click.argument("version", type=click.IntRange(1), metavar="N"), group=series)
def rollback(series: str, version: int) -> dict[str, Any]:
    """Make the run of version N the head again, by a new version."""
    from dask_embstab.series.series import Series

    return _added(Series(series).rollback(version))


@command(_PLACE, *options("Series.rebase"), group=series, through="Series.change")
def rebase(
    series: str, *, onto: str | None, back: bool, rewrite: bool, scheduler: str | None
) -> dict[str, Any]:
    """Move all that is stored onto another reference: scores stay; says what becomes of stored
    vectors and indexes.
    """
    from dask_embstab.series.series import Series

    if (onto is None) == (not back):
        raise click.UsageError("give --onto VERSION, --onto RUN or --back")
    # Python reads no number of more than 4,300 digits; one of 20 is no version either.
    target = (
        int(onto) if onto is not None and onto.isdecimal() and len(onto) < _MOST_DIGITS else onto
    )
    with cluster(scheduler), clock() as seconds:
        made = Series(series).rebase(target, rewrite=rewrite)
    return {**_added(made), "seconds": seconds()}


@command(
    _PLACE,
    click.argument("ids", nargs=-1, required=True, metavar="ID..."),
    *options("Series.forget"),
    group=series,
)
def forget(
    series: str, ids: tuple[str, ...], *, scheduler: str | None, **chosen: Any
) -> dict[str, Any]:
    """Remove the IDs from the running references and, with --rewrite, from all runs; `series gc`
    then frees the disk.
    """
    from dask_embstab.series.series import Series

    require_ids(ids, "series forget")
    with cluster(scheduler), clock() as seconds:
        made = Series(series).forget(list(ids), **given(chosen))
    told = {
        name: list(getattr(made, name)) for name in ("runs", "references", "still_in", "unknown")
    }
    return {**_added(made), "table": made.table, **told, "seconds": seconds()}


@command(_PLACE, click.argument("version", type=click.IntRange(1), metavar="N"), group=series)
def promote(series: str, version: int) -> dict[str, Any]:
    """Make the run of the shadow version N live, by a new version."""
    from dask_embstab.series.series import Series

    return _added(Series(series).promote(version))


@command(_PLACE, *options("Series.verify"), group=series)
def verify(series: str, *, scheduler: str | None) -> dict[str, Any]:
    """Read every file of every published run; ends with 2 and names what is damaged."""
    from dask_embstab.series.series import Series

    with cluster(scheduler):
        found = Series(series).verify().require_whole()
    return {"versions": found.versions, "runs": found.runs, "files": found.files, "damage": []}


@command(_PLACE, *options("Series.gc"), group=series)
def gc(series: str, **chosen: Any) -> dict[str, Any]:
    """Remove what no version needs: leftovers of interrupted publishes, held candidates, and what
    rebases and forgets have written anew; `left` says what stays, and why.
    """
    from dask_embstab.series.admin.foreign import foreign
    from dask_embstab.series.series import Series

    opened = Series(series)
    made = opened.gc(**given(chosen))
    return {"removed": made.removed, "left": made.left, "foreign": foreign(opened.store)}


@command(_PLACE, click.argument("file", type=PLACE, required=False), group=series)
def export_manifest(series: str, file: str | None) -> dict[str, Any]:
    """Every version in full and every file that a copy needs, as JSON on stdout or in FILE."""
    import json

    from dask_embstab.series.series import Series

    manifest = Series(series).manifest()
    if file is None:
        return manifest
    _write(file, json.dumps(manifest, indent=1))
    return {
        "head": manifest["head"],
        "versions": len(manifest["versions"]),
        "files": len(manifest["files"]),
        "out": file,
    }


@command(_PLACE, argument("users"), argument("out"), *options("Series.apply"), group=series)
def apply(
    series: str, users: str, out: str, *, scheduler: str | None, **chosen: Any
) -> dict[str, Any]:
    """Transform USERS (a run of users, or of new items) with the transform of a published version,
    at OUT.
    """
    from dask_embstab.series.series import Series

    with cluster(scheduler), clock() as seconds:
        transformed = Series(series).apply(users, out, **given(chosen))
    return {**described(transformed), "seconds": seconds(), "out": transformed.path}


@command(_PLACE, *options("Series.change"), group=series)
def settings(series: str, **changes: Any) -> dict[str, Any]:
    """Show the settings, or change them for the runs to come by a recorded version."""
    from dask_embstab.series.series import Series

    opened, wanted = Series(series), given_settings(changes)
    changed = _added(opened.change(**wanted)) if wanted else {}
    return {**changed, "settings": opened.settings.to_dict()}


@command(_PLACE, group=series)
def status(series: str) -> dict[str, Any]:
    """Say in three lines whether all is well: the head, its gates, what is held, failed, unfinished
    or a shadow.

    Ends with 3 where a delivery is held or failed, until it is delivered again or acknowledged.
    """
    from dask_embstab.series.series import Series

    told = Series(series).status()
    return {**told, "exit_code": 3 if told["held"] or told["failed"] else 0}


@command(
    _PLACE,
    click.argument("run", metavar="NAME"),
    *options("Series.acknowledge"),
    group=series,
)
def acknowledge(series: str, run: str, **chosen: Any) -> dict[str, Any]:
    """Let status and metrics show the delivery NAME no more, which was held, failed or
    interrupted.
    """
    from dask_embstab.series.series import Series

    known = Series(series).acknowledge(run, **given(chosen))
    return {"run": known.run, "outcome": known.outcome, "at": known.at, "acknowledged": True}


@command(
    _PLACE,
    click.argument("file", type=PLACE, required=False),
    *options("Series.metrics"),
    group=series,
)
def metrics(
    series: str, file: str | None, *, scheduler: str | None, **chosen: Any
) -> dict[str, Any]:
    """Write how the series is doing as a Prometheus text FILE (default: metrics.prom in the
    series), whole at once.
    """
    from dask_embstab.series.series import Series

    out = file or str(Path(series) / "metrics.prom")
    with cluster(scheduler):
        text = Series(series).metrics(**given(chosen))
    _write(out, text)
    return {"samples": sum(not line.startswith("#") for line in text.splitlines()), "out": out}


@command(
    _PLACE,
    click.argument("scratch", type=PLACE),
    *options("Series.replay"),
    group=series,
)
def replay(
    series: str,
    scratch: str,
    *,
    first: int | None,
    last: int | None,
    scheduler: str | None,
    **changes: Any,
) -> dict[str, Any]:
    """Stabilize the recorded inputs again under other settings, in the new series SCRATCH, and
    print every difference.
    """
    from dask_embstab.series.admin.replay import table_lines
    from dask_embstab.series.series import Series

    with cluster(scheduler), clock() as seconds:
        told = Series(series).replay(scratch, first=first, last=last, **given_settings(changes))
    return {**told, "seconds": seconds()} if prints_json() else {"lines": table_lines(told)}


def _write(file: str, text: str) -> None:
    from dask_embstab.files.atomic import write_whole

    with publishing(file):
        write_whole(file, lambda out: out.write(text.encode()))


def _added(added: Added | Forgotten) -> dict[str, Any]:
    return {**added.version.in_brief(), "published": added.published, "note": added.note}


forget.ignore_unknown_options = True  # -5 is an id
