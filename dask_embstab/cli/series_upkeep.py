"""``embstab series ...``: the commands that look after a series, one for each of those verbs of
`Series`.
"""

from __future__ import annotations

from typing import Any

import click

from dask_embstab.cli.common import command, prints_json, require_ids
from dask_embstab.cli.execution import clock, cluster
from dask_embstab.cli.options import PLACE, given, given_settings, options
from dask_embstab.cli.series import SERIES, published, series
from dask_embstab.errors import InputError
from dask_embstab.files.published import publishing

_MOST_DIGITS = 20


@command(SERIES, *options("Series.rebase"), group=series, through="Series.change")
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
    return {**published(made), "seconds": seconds()}


@command(
    SERIES,
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
    report = {
        name: list(getattr(made, name)) for name in ("runs", "references", "still_in", "unknown")
    }
    return {**published(made), "table": made.table, **report, "seconds": seconds()}


@command(SERIES, *options("Series.verify"), group=series)
def verify(series: str, *, scheduler: str | None) -> dict[str, Any]:
    """Read every file of every published run; ends with 2 and names what is damaged."""
    from dask_embstab.series.series import Series

    with cluster(scheduler):
        verified = Series(series).verify().require_whole()
    return {
        "versions": verified.versions,
        "runs": verified.runs,
        "files": verified.files,
        "damage": [],
    }


@command(SERIES, *options("Series.gc"), group=series)
def gc(series: str, **chosen: Any) -> dict[str, Any]:
    """Remove what no version needs: leftovers of interrupted publishes, held candidates, and what
    rebases and forgets have written anew; `left` says what stays, and why.
    """
    from dask_embstab.series.admin.foreign import foreign
    from dask_embstab.series.series import Series

    opened = Series(series)
    made = opened.gc(**given(chosen))
    return {"removed": made.removed, "left": made.left, "foreign": foreign(opened.store)}


@command(SERIES, click.argument("file", type=PLACE, required=False), group=series)
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


@command(SERIES, group=series)
def status(series: str) -> dict[str, Any]:
    """Say in three lines whether all is well: the head, its gates, what is held, failed, unfinished
    or a shadow.

    Ends with 3 where a delivery is held or failed, until it is delivered again or acknowledged.
    """
    from dask_embstab.series.series import Series

    report = Series(series).status()
    return {**report, "exit_code": 3 if report["held"] or report["failed"] else 0}


@command(
    SERIES,
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
    SERIES,
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
    from dask_embstab.series.repository.address import is_repository_url
    from dask_embstab.series.series import Series

    opened = Series(series)
    out = file or opened.store.name("metrics.prom")
    if is_repository_url(out):
        raise InputError(
            "metrics are one file in a folder or below a URL; an Icechunk repository holds none;"
            " name a FILE for it"
        )
    with cluster(scheduler):
        text = opened.metrics(**given(chosen))
    _write(out, text)
    return {"samples": sum(not line.startswith("#") for line in text.splitlines()), "out": out}


@command(
    SERIES,
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
        report = Series(series).replay(scratch, first=first, last=last, **given_settings(changes))
    return {**report, "seconds": seconds()} if prints_json() else {"lines": table_lines(report)}


def _write(file: str, text: str) -> None:
    from dask_embstab.files.atomic import write_whole

    with publishing(file):
        write_whole(file, lambda out: out.write(text.encode()))


forget.ignore_unknown_options = True  # -5 is an id
