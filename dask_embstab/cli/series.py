"""The command line of a series: ``embstab series ...``, one command for each verb of `Series`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dask_embstab.cli.common import argument, command, described, main, prints_json
from dask_embstab.cli.execution import clock, cluster, joins_within
from dask_embstab.cli.options import given, given_settings, options

if TYPE_CHECKING:
    from dask_embstab.series.admin.forget import Forgotten
    from dask_embstab.series.publish.publish import Added


@main.group(name="series")
def series() -> None:
    """Years of runs in one space: publish, inspect, verify, roll back."""


SERIES = argument("series")
_VERSION = click.argument("version", type=click.IntRange(1), metavar="[N]", required=False)


@command(SERIES, *options("Series.init"), group=series)
def init(series: str, **settings: Any) -> dict[str, Any]:
    """Make an empty series in the folder SERIES."""
    from dask_embstab.series.series import Series

    made = Series.init(series, **given_settings(settings))
    return {"series": series, "settings": made.settings.to_dict()}


@command(SERIES, argument("run"), *options("Series.add"), group=series, through="Series.change")
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
    from dask_embstab.series.publish.attempts import delivering
    from dask_embstab.series.series import Series

    opened = Series(series)
    joins = joins_within(scratch, join_memory)
    with (
        delivering(opened, run, name=chosen["name"]),
        cluster(scheduler),
        joins,
        clock() as seconds,
    ):
        added = opened.add(run, **given(chosen))
    return {**published(added), "seconds": seconds()}


@command(SERIES, group=series)
def log(series: str) -> dict[str, Any]:
    """Every published version, oldest first."""
    from dask_embstab.series.log.log import read_log, rows
    from dask_embstab.series.log.mark import require_mark, store_at

    # As `Series.log`, without what the other verbs import: of 10,000 versions it is most of it.
    require_mark(store := store_at(series), series)
    return {"versions": rows(read_log(store))}


@command(SERIES, _VERSION, group=series)
def show(series: str, version: int | None) -> dict[str, Any]:
    """Everything that is recorded of version N, by default of the head."""
    from dask_embstab.series.series import Series

    return Series(series).show(version).to_dict()


@command(SERIES, _VERSION, *options("Series.codes"), group=series)
def codes(series: str, version: int | None, **chosen: Any) -> dict[str, Any]:
    """Which codes version N holds (default: the head), what they keep, and since when."""
    from dask_embstab.series.series import Series

    opened = Series(series)
    chosen_version = opened.log().version(version)
    opened.codes(chosen_version.version, **given(chosen))
    return {
        "version": chosen_version.version,
        "run": chosen_version.run,
        **chosen_version.figures["codes"],
    }


@command(
    SERIES,
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
        difference = opened.diff(a, b, **given(chosen))
    if prints_json():
        return {**versions, **difference.to_dict()}
    return {
        "lines": [f"A is version {a}, B version {versions['b']}", *comparison_lines(difference)]
    }


@command(SERIES, *options("Series.skew"), group=series)
def skew(series: str, *, scheduler: str | None, **chosen: Any) -> dict[str, Any]:
    """What queries of one version find in another's table, and in a table mixed of several."""
    from dask_embstab.diagnose.comparison import skew_lines
    from dask_embstab.series.series import Series

    with cluster(scheduler):
        measured = Series(series).skew(**given(chosen))
    return measured.to_dict() if prints_json() else {"lines": skew_lines(measured)}


@command(SERIES, click.argument("version", type=click.IntRange(1), metavar="N"), group=series)
def rollback(series: str, version: int) -> dict[str, Any]:
    """Make the run of version N the head again, by a new version."""
    from dask_embstab.series.series import Series

    return published(Series(series).rollback(version))


@command(SERIES, click.argument("version", type=click.IntRange(1), metavar="N"), group=series)
def promote(series: str, version: int) -> dict[str, Any]:
    """Make the run of the shadow version N live, by a new version."""
    from dask_embstab.series.series import Series

    return published(Series(series).promote(version))


@command(SERIES, argument("users"), argument("out"), *options("Series.apply"), group=series)
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


@command(SERIES, *options("Series.change"), group=series)
def settings(series: str, **changes: Any) -> dict[str, Any]:
    """Show the settings, or change them for the runs to come by a recorded version."""
    from dask_embstab.series.series import Series

    opened, wanted = Series(series), given_settings(changes)
    changed = published(opened.change(**wanted)) if wanted else {}
    return {**changed, "settings": opened.settings.to_dict()}


def published(added: Added | Forgotten) -> dict[str, Any]:
    """What a command prints of a version that was published."""
    return {**added.version.in_brief(), "published": added.published, "note": added.note}
