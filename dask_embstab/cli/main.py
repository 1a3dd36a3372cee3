"""The command line: the verbs of `api`, one command each. Only click is imported before a command
runs.
"""

from __future__ import annotations

from typing import Any

import click

from dask_embstab.cli import (  # noqa: F401 (their commands register themselves)
    index,
    ingest,
    moments,
    series,
    series_upkeep,
    serve,
    upgrade,
)
from dask_embstab.cli.common import argument, command, described, main, prints_json, require_ids
from dask_embstab.cli.execution import clock, cluster
from dask_embstab.cli.options import PLACE, given, options
from dask_embstab.cli.streams import say
from dask_embstab.files.published import publishing

__all__ = ["main"]


@command(argument("run"), argument("out"), *options("stabilize"))
def stabilize(run: str, out: str, *, scheduler: str | None, **chosen: Any) -> dict[str, Any]:
    """Align RUN to the reference and write it as OUT."""
    from dask_embstab import api

    with cluster(scheduler), clock() as seconds:
        transformed = api.stabilize(run, out, **given(chosen))
    made = transformed.transform
    assert made is not None
    return {**made.diagnostics, "seconds": seconds(), "out": transformed.path}


@command(argument("run"), argument("transform"), *options("fit"))
def fit(
    run: str,
    transform: str,
    *,
    users: str | None,
    scheduler: str | None,
    sync: bool,
    **chosen: Any,
) -> dict[str, Any]:
    """Fit the transform that stabilizes RUN (a run, or the moments of its items) and save it as the
    file TRANSFORM.
    """
    from dask_embstab import api
    from dask_embstab.files.atomic import require_file_place
    from dask_embstab.tables.formats.places import is_in_files
    from dask_embstab.tables.run import open_run
    from dask_embstab.tables.table_moments import TableMoments, is_moments

    require_file_place(transform)
    files = [run] if users is None else [run, users]
    in_files = any(map(is_in_files, files))
    taken = not in_files and (users is not None or is_moments(run))
    tables: list[Any] = files if in_files else []
    if not in_files:
        tables = [TableMoments.load(path) if taken else open_run(path) for path in files]
    with cluster(scheduler), clock() as seconds:
        fitted = api.fit(*tables, **given(chosen))
        with publishing(transform):
            fitted.save(transform, sync=sync)
    return {**fitted.diagnostics, "seconds": seconds(), "out": transform}


@command(argument("transform"), argument("run"), argument("out"), *options("apply"))
def apply(
    transform: str, run: str, out: str, *, scheduler: str | None, **chosen: Any
) -> dict[str, Any]:
    """Apply a saved TRANSFORM (or that of a stabilized run) to RUN and write OUT."""
    from dask_embstab import api

    with cluster(scheduler), clock() as seconds:
        transformed = api.apply(transform, run, out, **given(chosen))
    return {**described(transformed), "seconds": seconds(), "out": transformed.path}


@command(argument("run"), argument("out"), *options("compress"))
def compress(run: str, out: str, *, scheduler: str | None, **chosen: Any) -> dict[str, Any]:
    """Write RUN with its rows stored as codes of a few bytes as OUT, which opens like any run."""
    from dask_embstab import api
    from dask_embstab.diagnose.comparison import frontier_lines

    with cluster(scheduler), clock() as seconds:
        small = api.compress(run, out, **given(chosen))
    record = dict(small.attrs["embstab"]["compressed"])
    if "entries" in record and not prints_json():
        return {"lines": frontier_lines(record)}
    return {**described(small), "compressed": record, "seconds": seconds(), "out": small.path}


@command(
    click.argument("what", type=PLACE, metavar="RUN|TRANSFORM|SERIES"),
    argument("out"),
    *options("export"),
)
def export(what: str, out: str, *, scheduler: str | None, **chosen: Any) -> dict[str, Any]:
    """Write a RUN (of a SERIES: its head) as Parquet, Arrow, npy, CSV or word2vec files, or a
    TRANSFORM for a model or a database, at OUT.
    """
    from dask_embstab import api

    with cluster(scheduler), clock() as seconds:
        written = api.export(what, out, **given(chosen))
    return {**written, "seconds": seconds()}


@command(argument("run"), *options("frontier"))
def frontier(run: str, *, scheduler: str | None, **chosen: Any) -> dict[str, Any]:
    """Measure what every code keeps of RUN, by the bytes of a row, on sampled queries and items."""
    from dask_embstab import api
    from dask_embstab.diagnose.comparison import frontier_lines

    with cluster(scheduler):
        measured = api.frontier(run, **given(chosen)).to_dict()
    return measured if prints_json() else {"lines": frontier_lines(measured)}


@command(argument("a"), argument("b"), *options("evaluate"))
def evaluate(a: str, b: str, *, scheduler: str | None, **chosen: Any) -> dict[str, Any]:
    """Compare A and B (runs, tables, arrays, or versions SERIES@3): cosines and lengths by id,
    overlaps of top lists, recall of stale queries, quality by judgments.
    """
    from dask_embstab import api
    from dask_embstab.diagnose.comparison import comparison_lines

    with cluster(scheduler):
        metrics = api.evaluate(a, b, **given(chosen))
    return metrics.to_dict() if prints_json() else {"lines": comparison_lines(metrics)}


@command(
    argument("run"),
    click.argument("ids", nargs=-1, required=True, metavar="ID..."),
    *options("lookup"),
)
def lookup(run: str, ids: tuple[str, ...], *, table: str) -> dict[str, Any]:
    """The vectors of these IDs in RUN, by an index that the first lookup builds beside it."""
    require_ids(ids, "lookup")
    from dask_embstab.tables.run import open_run

    with clock() as seconds:
        rows = open_run(run).table(table).rows_of(ids)
    return {"ids": list(ids), "vectors": rows.tolist(), "seconds": seconds()}


@command(
    click.argument("places", nargs=-1, type=PLACE, required=True, metavar="SERIES|RUN|A B OUT"),
    *options("report"),
)
def report(places: tuple[str, ...], *, scheduler: str | None, **chosen: Any) -> dict[str, Any]:
    """Write how a SERIES, a stabilized RUN or two runs A and B are doing as one HTML page OUT.

    With --json every number of the page is printed too.
    """
    if not 2 <= len(places) <= 3:
        raise click.UsageError(
            "a report takes a series, a run or two runs, and last where to write the page; what"
            f" came: {', '.join(places)}"
        )
    from dask_embstab import api

    *given_places, out = places
    with cluster(scheduler):
        made = api.report(*given_places, out=out, **given(chosen))
    verdict = {"well": made.well, "verdict": made.verdict, "out": out}
    return {**verdict, **made.to_dict()} if prints_json() else verdict


@command(argument("path"))
def inspect(path: str) -> dict[str, Any]:
    """Say what stands at PATH: its tables and, for a stabilized run, how it came to be."""
    from dask_embstab.tables.run import open_run

    return described(open_run(path))


@command(argument("a"), argument("b"))
def check(a: str, b: str) -> dict[str, Any]:
    """Refuse (exit 2) to let vectors of A and B meet, unless they are of one space; either is a
    run, a transform, a series, SERIES@3, an export or an index.
    """
    from dask_embstab import api

    return {name: api.space_of(place).to_dict() for name, place in (("a", a), ("b", b))} | {
        "origin": api.check_space(a, b).origin
    }


@command(argument("vectors"), *options("detect_space"))
def detect(
    vectors: str, *, spaces: str | None, scheduler: str | None, **chosen: Any
) -> dict[str, Any]:
    """Say which space the VECTORS of a run or table are of (the series' own, or that of one of its
    models), and whether two are mixed.
    """
    if spaces is None:
        raise click.UsageError("give the series to look into: --spaces SERIES")
    from dask_embstab import api

    with cluster(scheduler):
        return api.detect_space(vectors, spaces, **given(chosen)).to_dict()


@command(argument("run"), *options("verify"))
def verify(run: str, *, scheduler: str | None) -> dict[str, Any]:
    """Compare every file of the stabilized RUN with the digests that it records of itself; ends
    with 2 on damage.
    """
    from dask_embstab.passes.verify_run import verify_run

    with cluster(scheduler), clock() as seconds:
        verified = verify_run(run)
    return {"path": run, "files": verified.files, "damage": [], "seconds": seconds()}


@command(
    argument("directory", required=False),
    *(
        click.option(f"--{name}", type=click.IntRange(*of), default=default, help=text)
        for name, of, default, text in (
            ("users", (100, 10_000_000), 20_000, "Of the service. Default: 20,000."),
            ("items", (100, 1_000_000), 5_000, "Of the service. Default: 5,000."),
            ("days", (2, 1000), 5, "Each with a model of its own. Default: 5."),
            ("components", (3, 256), 16, "Of the models. Default: 16."),
            ("seed", (0,), 0, "Of the service and of its models. Default: 0."),
        )
    ),
)
def demo(directory: str | None, **chosen: Any) -> dict[str, Any]:
    """Train a model for each day of a changing world, stabilize every run, and report into
    DIRECTORY.
    """
    from dask_embstab.demo.run import NEXT, run_demo

    made = run_demo(directory or "demo-out", say=say, **chosen)
    return made if prints_json() else {"lines": NEXT}


@command(argument("path", required=False), *options("doctor"))
def doctor(
    path: str | None, *, components: int, disk_bytes: str, seconds: float, scheduler: str | None
) -> dict[str, Any]:
    """Say what this machine can do, and what fitting and applying the run or array at PATH will
    cost on it.
    """
    import shutil

    from dask_embstab.diagnose.doctor import examine, trial_folder
    from dask_embstab.errors import InputError
    from dask_embstab.passes.engine.cluster import active_client, worker_families
    from dask_embstab.passes.engine.memory import bytes_of
    from dask_embstab.repairs import option
    from dask_embstab.tables.coerce import tables_at

    tables = {} if path is None else tables_at(path)
    kernels = click.get_current_context().obj
    with cluster(scheduler):
        client = active_client()
        workers = {} if client is None else {"workers": worker_families(client)}
        size = bytes_of(disk_bytes, option("disk_bytes"))
        if size < 1:
            raise InputError(f"{option('disk_bytes')} must be at least 1 byte; it is {size}")
        free = shutil.disk_usage(trial_folder(path)).free
        if size > free // 2:
            raise InputError(
                f"{option('disk_bytes')} may take half of what is free beside {path or '.'},"
                f" {free}; it is {size}"
            )
        report = examine(
            tables,
            trial_folder(path),
            d=components,
            disk_bytes=size,
            seconds=seconds,
            chosen=kernels,
        )
    return report | workers


lookup.ignore_unknown_options = True  # -5 is an id
