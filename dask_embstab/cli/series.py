"""The command line of a series: ``embstab series ...``, one command for each verb of `Series`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dask_embstab.cli.common import (
    MEMORY,
    PLACE,
    SCHEDULER,
    SYNC,
    argument,
    clock,
    cluster,
    command,
    described,
    joins_within,
    main,
    require_ids,
)
from dask_embstab.cli.fit_options import (
    JOIN_MEMORY,
    NONE,
    OF_ALL_RUNS,
    SCRATCH,
    fit_options,
    given_settings,
)
from dask_embstab.files.published import publishing

if TYPE_CHECKING:
    from dask_embstab.series.admin.forget import Forgotten
    from dask_embstab.series.publish.publish import Added

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    """Seconds from 90s, 15m, 12h or 7d; 0 needs no unit."""
    try:
        return 0.0 if value == "0" else float(value[:-1]) * _SECONDS[value[-1:]]
    except (ValueError, KeyError):
        raise click.BadParameter(
            f"an age is a number and a unit, such as 90s, 15m, 12h or 7d; it is {value!r}"
        ) from None


def _reason(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("a reason is some words; it is empty")
    return value


def _thresholds(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, float | None] | None:
    """Thresholds by gate from NAME=NUMBER and NAME=off."""
    given: dict[str, float | None] = {}
    for value in values:
        name, _equals, limit = value.partition("=")
        try:
            given[name] = None if limit == "off" else float(limit)
        except ValueError:
            raise click.BadParameter(
                f"a gate is set by NAME=NUMBER or NAME=off; it is {value!r}"
            ) from None
    return given or None


@main.group(name="series")
def series() -> None:
    """Years of runs in one space: publish, inspect, verify, roll back."""


def _runs(_: click.Context, __: click.Parameter, value: str | None) -> float | str | None:
    """A number of runs, or none."""
    try:
        return value if value in (None, NONE, "auto") else float(str(value))
    except ValueError:
        raise click.BadParameter(f"it is a number of runs, none or auto; it is {value!r}") from None


def _gap_weights(
    _: click.Context, __: click.Parameter, value: str | None
) -> dict[str, float] | None:
    """Weights by gap from 1,4,13 (all alike) or 1=1.2,4=1.5; none for no gaps."""
    if value is None:
        return None
    try:
        parts = [] if value == NONE else [part.partition("=") for part in value.split(",")]
        return {gap: float(weight) if equals else 1.0 for gap, equals, weight in parts}
    except ValueError:
        raise click.BadParameter(
            f"gaps are like 1,4,13 or 1=1.2,4=1.5, or none; it is {value!r}"
        ) from None


_SETTINGS = (
    click.option(
        "--policy",
        type=click.Choice(["consensus", "previous", "first"]),
        help="What to land on. Default: consensus.",
    ),
    click.option(
        "--half-life",
        callback=_runs,
        metavar="RUNS|none|auto",
        help="Of a run in the consensus. Default: 26; 4 times the longest of the gaps.",
    ),
    click.option(
        "--gaps",
        callback=_gap_weights,
        metavar="1,4,13|1=W,4=W|none",
        help="Gaps to hold, in runs, with weights.",
    ),
    click.option(
        "--sum-weight",
        type=float,
        metavar="W",
        help="Of the sum of all runs beside the gaps. Default: 1.",
    ),
    click.option(
        "--head-weight",
        type=float,
        metavar="A",
        help="More that the last run counts. Default: 0.5.",
    ),
    click.option(
        "--forget-below",
        type=float,
        metavar="W",
        help="Weight below which a row that is gone leaves. Default: 1.",
    ),
    click.option(
        "--keep-references",
        type=click.IntRange(1),
        metavar="N",
        help="Running references kept. Default: 8.",
    ),
    *fit_options(takes_back=True),
    click.option(
        "--tables",
        type=click.Choice(["items", "both"]),
        help="Of every run. Default: the first run's.",
    ),
    click.option(
        "--first-run", type=click.Choice(["standardized", "raw"]), help="Default: standardized."
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float16", "float32", "float64"]),
        help="Of the runs. Default: kept.",
    ),
    click.option(
        "--chain-minus-first/--no-chain-minus-first",
        default=None,
        help="Report the chain's drift. Default: do.",
    ),
    click.option(
        "--gate",
        "gates",
        multiple=True,
        metavar="NAME=NUMBER",
        callback=_thresholds,
        help="Threshold of a gate, or NAME=off. `series settings` shows all.",
    ),
)
_MOST_DIGITS = 20
_PLACE = argument("series")
_VERSION = click.argument("version", type=click.IntRange(1), metavar="[N]", required=False)


def _version_numbers(_: click.Context, __: click.Parameter, given: str | None) -> list[int] | None:
    """Numbers of versions, separated by commas."""
    if given is None:
        return None
    try:
        return [int(number) for number in given.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"it is numbers of versions, such as 1,2,5; it is {given!r}"
        ) from None


@command(_PLACE, *_SETTINGS, group=series)
def init(series: str, **settings: Any) -> dict[str, Any]:
    """Make an empty series in the folder SERIES."""
    from dask_embstab.series.series import Series

    made = Series.init(series, **given_settings(settings))
    return {"series": series, "settings": made.settings.to_dict()}


@command(
    _PLACE,
    argument("run"),
    click.option("--name", help="Name of the run. Default: its recorded name."),
    click.option("--model", help="Name of the model it belongs to. Default: the run's name."),
    click.option(
        "--new-model",
        metavar="NAME",
        help="A planned change: the first run of this model, of any width.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="After a quicker publisher.",
    ),
    click.option(
        "--shadow", is_flag=True, help="Publish a version that readers of the head do not see."
    ),
    click.option(
        "--accept",
        metavar="REASON",
        callback=_reason,
        help="Publish what a gate holds; the reason is recorded.",
    ),
    *fit_options(but=OF_ALL_RUNS),
    SCRATCH,
    JOIN_MEMORY,
    SCHEDULER,
    MEMORY,
    group=series,
    through="Series.change",
)
def add(
    series: str,
    run: str,
    *,
    scheduler: str | None,
    scratch: str | None,
    join_memory: str | None,
    **options: Any,
) -> dict[str, Any]:
    """Fit, apply, verify and publish RUN, unless a gate holds it (ends with 3); after an
    interruption it goes on.
    """
    from dask_embstab.series.series import Series, delivering

    opened = Series(series)
    joins = joins_within(scratch, join_memory)
    with (
        delivering(opened, run, name=options["name"]),
        cluster(scheduler),
        joins,
        clock() as seconds,
    ):
        added = opened.add(run, **options)
    return {**_added(added), "seconds": seconds()}


@command(_PLACE, group=series)
def log(series: str) -> dict[str, Any]:
    """Every published version, oldest first."""
    from dask_embstab.series.log.log import rows
    from dask_embstab.series.series import Series

    return {"versions": rows(Series(series).log())}


@command(_PLACE, _VERSION, group=series)
def show(series: str, version: int | None) -> dict[str, Any]:
    """Everything that is recorded of version N, by default of the head."""
    from dask_embstab.series.series import Series

    return Series(series).show(version).to_dict()


@command(
    _PLACE,
    click.argument("a", type=click.IntRange(1)),
    click.argument("b", type=click.IntRange(1), required=False),
    click.option(
        "--k",
        type=click.IntRange(1),
        default=100,
        show_default=True,
        help="Length of the top lists.",
    ),
    click.option(
        "--users",
        type=click.IntRange(1),
        default=1000,
        show_default=True,
        help="Shared users to sample.",
    ),
    click.option("--seed", type=int, default=0, show_default=True),
    SCHEDULER,
    group=series,
)
def diff(
    series: str, a: int, b: int | None, *, scheduler: str | None, **options: Any
) -> dict[str, Any]:
    """Compare the runs of versions A and B (default: the head): cosines, lengths, top lists."""
    from dask_embstab.series.series import Series

    opened = Series(series)
    with cluster(scheduler):
        return {
            "a": a,
            "b": opened.log().version(b).version,
            **opened.diff(a, b, **options).to_dict(),
        }


@command(
    _PLACE,
    click.option(
        "--versions",
        metavar="N,N,...",
        callback=_version_numbers,
        help="At least two. Default: the last eight live ones.",
    ),
    click.option(
        "--k", type=click.IntRange(1), default=10, show_default=True, help="Depth of the recall."
    ),
    click.option(
        "--users",
        type=click.IntRange(1),
        default=200,
        show_default=True,
        help="Shared users (without users: items) to sample.",
    ),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option(
        "--metric",
        type=click.Choice(["dot", "cosine"]),
        help="How items are ranked. Default: dot for users, cosine among items.",
    ),
    SCHEDULER,
    group=series,
)
def skew(series: str, *, scheduler: str | None, **options: Any) -> dict[str, Any]:
    """What queries of one version find in another's table, and in a table mixed of several."""
    from dask_embstab.report.comparison import skew_lines
    from dask_embstab.series.series import Series

    with cluster(scheduler):
        found = Series(series).skew(**options)
    as_json = click.get_current_context().params["as_json"]
    return found.to_dict() if as_json else {"lines": skew_lines(found)}


@command(_PLACE, click.argument("version", type=click.IntRange(1), metavar="N"), group=series)
def rollback(series: str, version: int) -> dict[str, Any]:
    """Make the run of version N the head again, by a new version."""
    from dask_embstab.series.series import Series

    return _added(Series(series).rollback(version))


@command(
    _PLACE,
    click.option(
        "--onto",
        metavar="VERSION|RUN",
        help="Reference: a version's run as it was published, or any run.",
    ),
    click.option("--back", is_flag=True, help="Undo the last rebase instead."),
    click.option(
        "--rewrite",
        is_flag=True,
        help="Write all runs anew; else readers multiply by one small matrix each.",
    ),
    SCHEDULER,
    MEMORY,
    group=series,
    through="Series.change",
)
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
    click.option(
        "--table",
        type=click.Choice(["items", "users"]),
        help="Whose ids. Default: the one that has them.",
    ),
    click.option(
        "--rewrite",
        is_flag=True,
        help="Write the runs that hold them anew too, not only the references.",
    ),
    SCHEDULER,
    MEMORY,
    group=series,
)
def forget(
    series: str, ids: tuple[str, ...], *, scheduler: str | None, **options: Any
) -> dict[str, Any]:
    """Remove the IDs from the running references and, with --rewrite, from all runs; `series gc`
    then frees the disk.
    """
    from dask_embstab.series.series import Series

    require_ids(ids, "series forget")
    with cluster(scheduler), clock() as seconds:
        made = Series(series).forget(list(ids), **options)
    told = {
        name: list(getattr(made, name)) for name in ("runs", "references", "still_in", "unknown")
    }
    return {**_added(made), "table": made.table, **told, "seconds": seconds()}


@command(_PLACE, click.argument("version", type=click.IntRange(1), metavar="N"), group=series)
def promote(series: str, version: int) -> dict[str, Any]:
    """Make the run of the shadow version N live, by a new version."""
    from dask_embstab.series.series import Series

    return _added(Series(series).promote(version))


@command(_PLACE, SCHEDULER, group=series)
def verify(series: str, *, scheduler: str | None) -> dict[str, Any]:
    """Read every file of every published run; ends with 2 and names what is damaged."""
    from dask_embstab.series.series import Series

    with cluster(scheduler):
        found = Series(series).verify().require_whole()
    return {"versions": found.versions, "runs": found.runs, "files": found.files, "damage": []}


@command(
    _PLACE,
    click.option(
        "--pin-age",
        metavar="AGE",
        callback=_seconds,
        default="1d",
        show_default=True,
        help="Readers' pins older than this ended.",
    ),
    click.option(
        "--grace",
        metavar="AGE",
        callback=_seconds,
        default="1h",
        show_default=True,
        help="What was changed later stays; 0 removes it at once.",
    ),
    group=series,
)
def gc(series: str, **options: Any) -> dict[str, Any]:
    """Remove what no version needs: leftovers of interrupted publishes, held candidates, and what
    rebases and forgets have written anew; `left` says what stays, and why.
    """
    from dask_embstab.series.admin.foreign import foreign
    from dask_embstab.series.series import Series

    opened = Series(series)
    made = opened.gc(**options)
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


@command(
    _PLACE,
    argument("users"),
    argument("out"),
    click.option(
        "--model",
        help=(
            "Land with this model's transform. Default: the one that USERS names, else the head's."
        ),
    ),
    click.option(
        "--version", type=click.IntRange(1), metavar="N", help="Land with this version's transform."
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float16", "float32", "float64"]),
        help="Of the output; default: kept.",
    ),
    click.option(
        "--overwrite", is_flag=True, help="Replace a run at OUT once the new one is whole."
    ),
    click.option("--resume", is_flag=True, help="Go on from what an interrupted call left."),
    SYNC,
    SCHEDULER,
    MEMORY,
    group=series,
)
def apply(
    series: str, users: str, out: str, *, scheduler: str | None, **options: Any
) -> dict[str, Any]:
    """Land USERS (a run of users, or of new items) with the transform of a published version, at
    OUT.
    """
    from dask_embstab.series.series import Series

    with cluster(scheduler), clock() as seconds:
        transformed = Series(series).apply(users, out, **options)
    return {**described(transformed), "seconds": seconds(), "out": transformed.path}


@command(_PLACE, *_SETTINGS, group=series)
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
    click.option("--reason", default="", metavar="TEXT", help="Recorded with it."),
    group=series,
)
def acknowledge(series: str, run: str, *, reason: str) -> dict[str, Any]:
    """Let status and metrics show the delivery NAME no more, which was held, failed or
    interrupted.
    """
    from dask_embstab.series.series import Series

    known = Series(series).acknowledge(run, reason=reason)
    return {"run": known.run, "outcome": known.outcome, "at": known.at, "acknowledged": True}


@command(_PLACE, click.argument("file", type=PLACE, required=False), group=series)
def metrics(series: str, file: str | None) -> dict[str, Any]:
    """Write how the series is doing as a Prometheus text FILE (default: metrics.prom in the
    series), whole at once.
    """
    from dask_embstab.series.series import Series

    text, out = Series(series).metrics(), file or str(Path(series) / "metrics.prom")
    _write(out, text)
    return {"samples": sum(not line.startswith("#") for line in text.splitlines()), "out": out}


@command(
    _PLACE,
    click.argument("scratch", type=PLACE),
    *_SETTINGS,
    click.option(
        "--from", "first", type=click.IntRange(1), metavar="N", help="First version to land again."
    ),
    click.option(
        "--to", "last", type=click.IntRange(1), metavar="M", help="Last version to land again."
    ),
    SCHEDULER,
    MEMORY,
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
    """Land the recorded inputs again under other settings, in the new series SCRATCH, and print
    every difference.
    """
    from dask_embstab.series.admin.replay import table_lines
    from dask_embstab.series.series import Series

    with cluster(scheduler), clock() as seconds:
        told = Series(series).replay(scratch, first=first, last=last, **given_settings(changes))
    as_json = click.get_current_context().params["as_json"]
    return {**told, "seconds": seconds()} if as_json else {"lines": table_lines(told)}


def _write(file: str, text: str) -> None:
    from dask_embstab.files.atomic import write_whole

    with publishing(file):
        write_whole(file, lambda out: out.write(text.encode()))


def _added(added: Added | Forgotten) -> dict[str, Any]:
    return {**added.version.in_brief(), "published": added.published, "note": added.note}


forget.ignore_unknown_options = True  # -5 is an id
