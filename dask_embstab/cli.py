"""The command line: the verbs of `api`, one command each. Only click is imported before a command runs."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import click

from dask_embstab.kernels import choose_kernels

_DONE, _OTHER, _BAD_INPUT, _HELD = 0, 1, 2, 3


@contextlib.contextmanager
def _one_line_usage() -> Iterator[None]:
    """Wrong usage as one line too, where click would print several."""
    try:
        yield
    except click.UsageError as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            raise
        see = f"; see {error.ctx.command_path} --help" if error.ctx else ""
        _fail(error.format_message().rstrip(".") + see, _BAD_INPUT)


class _Command(click.Command):
    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _one_line_usage():
            return super().make_context(*args, **more)


class _Group(click.Group):
    command_class = _Command
    group_class = type

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _one_line_usage():
            return super().make_context(*args, **more)

    def resolve_command(self, *args: Any) -> tuple[str | None, click.Command | None, list[str]]:
        with _one_line_usage():
            return super().resolve_command(*args)


@click.group(cls=_Group, name="embstab", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask_embstab")
@click.pass_context
def main(context: click.Context) -> None:
    """Keep an embedding space stable while the model behind it is retrained."""
    context.obj = choose_kernels()


def command(
    *options: Callable[..., Any], group: click.Group | None = None
) -> Callable[[Callable[..., dict[str, Any]]], click.Command]:
    """A command whose function returns its JSON object; errors, progress and exit codes are the same for all."""

    def decorate(function: Callable[..., dict[str, Any]]) -> click.Command:
        @click.pass_context
        def run(context: click.Context, /, *, as_json: bool, **arguments: Any) -> None:
            with _one_line_errors(), _progress_bars(as_json=as_json), _within(arguments.pop("memory_limit", None)):
                result = function(**arguments)
            if as_json:
                told = {"openblas_coretype": context.obj} if context.obj else {}
                click.echo(json.dumps(_finite({**result, **told})))
            else:
                from dask_embstab.report.text import render

                click.echo(render(str(context.info_name), result))

        decorated: Callable[..., Any] = run
        for option in reversed(
            (*options, click.option("--json", "as_json", is_flag=True, help="Print one JSON object."))
        ):
            decorated = option(decorated)
        name = function.__name__.strip("_").replace("_", "-")
        return (group or main).command(name, help=function.__doc__)(decorated)

    return decorate


def argument(name: str, *, required: bool = True) -> Callable[..., Any]:
    """A path argument."""
    return click.argument(name, type=click.Path(), required=required)


_MEMORY = click.option("--memory-limit", metavar="BYTES", help="Refuse a pass that needs more, e.g. 400MB.")
_SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="Address of a running Dask scheduler; threads without."
)
_JOIN_OPTIONS = (
    click.option("--duplicates", type=click.Choice(["error", "first"]), default="error", show_default=True),
    click.option("--scratch", type=click.Path(), metavar="DIR", help="Folder for joins beyond memory."),
    click.option("--join-memory", metavar="BYTES", help="Memory of a join, e.g. 2GiB; default 1GiB."),
)
_FIT_OPTIONS = (
    click.option(
        "--reference", type=click.Path(), metavar="RUN", help="Run to land on; without one, standardize only."
    ),
    click.option(
        "--keep", type=click.Choice(["scores", "geometry"]), help="Default: scores with users, else geometry."
    ),
    click.option("--align-on", type=click.Choice(["items", "users", "both"]), default="items", show_default=True),
    click.option("--method", type=click.Choice(["auto", "gram", "qr"]), default="auto", show_default=True),
    click.option("--rank", type=click.IntRange(1), metavar="K", help="Keep the best scores of rank K."),
    click.option("--width", type=click.IntRange(1), metavar="K", help="Components of the landed tables."),
    click.option("--balance", type=click.Choice(["rows", "gramians"]), help="Default: the reference's, else rows."),
    click.option("--center", is_flag=True, help="Remove the means first (geometry)."),
    click.option("--min-matched", type=click.IntRange(1), metavar="N", help="Refuse fewer shared rows."),
    click.option("--anchors", type=click.IntRange(1), metavar="N", help="Align on N shared rows, chosen by their ids."),
    click.option("--seed", type=int, default=0, show_default=True, help="Other anchors."),
    *_JOIN_OPTIONS,
    _SCHEDULER,
)
_APPLY_OPTIONS = (
    click.option("--dtype", type=click.Choice(["float16", "float32", "float64"]), help="Of the output; default: kept."),
    click.option("--overwrite", is_flag=True, help="Replace a run at OUT once the new one is whole."),
    click.option("--resume", is_flag=True, help="Go on from what an interrupted call left."),
    _MEMORY,
)


@command(argument("run"), argument("out"), *_FIT_OPTIONS, *_APPLY_OPTIONS)
def stabilize(run: str, out: str, *, scheduler: str | None, **options: Any) -> dict[str, Any]:
    """Land RUN in the reference's space and write it as OUT."""
    from dask_embstab import api

    with _cluster(scheduler), _clock() as seconds:
        landed = api.stabilize(run, out, **options)
    assert landed.transform is not None
    return {**landed.transform.diagnostics, "seconds": seconds(), "out": landed.path}


@command(argument("run"), argument("transform"), *_FIT_OPTIONS, _MEMORY)
def fit(run: str, transform: str, *, scheduler: str | None, **options: Any) -> dict[str, Any]:
    """Fit the transform that lands RUN and save it as the file TRANSFORM."""
    from dask_embstab import api
    from dask_embstab.tables.run import open_run

    with _cluster(scheduler), _clock() as seconds:
        fitted = api.fit(open_run(run), **options)
        fitted.save(transform)
    return {**fitted.diagnostics, "seconds": seconds(), "out": transform}


@command(argument("transform"), argument("run"), argument("out"), *_APPLY_OPTIONS, _SCHEDULER)
def apply(transform: str, run: str, out: str, *, scheduler: str | None, **options: Any) -> dict[str, Any]:
    """Apply a saved TRANSFORM (or that of a stabilized run) to RUN and write OUT."""
    from dask_embstab import api

    with _cluster(scheduler), _clock() as seconds:
        landed = api.apply(transform, run, out, **options)
    return {**_described(landed), "seconds": seconds(), "out": landed.path}


@command(
    argument("a"),
    argument("b"),
    click.option(
        "--k", type=click.IntRange(1), default=100, show_default=True, help="Length of the compared top lists."
    ),
    click.option("--users", type=click.IntRange(1), default=1000, show_default=True, help="Shared users to sample."),
    click.option("--seed", type=int, default=0, show_default=True),
    *_JOIN_OPTIONS,
    _SCHEDULER,
)
def evaluate(a: str, b: str, *, scheduler: str | None, **options: Any) -> dict[str, Any]:
    """Compare runs A and B: same-id cosines and lengths, and the overlap of top lists."""
    from dask_embstab import api

    with _cluster(scheduler):
        return api.evaluate(a, b, **options).to_dict()


@command(
    argument("run"),
    click.argument("ids", nargs=-1, required=True, metavar="ID..."),
    click.option("--table", type=click.Choice(["items", "users"]), default="items", show_default=True),
)
def lookup(run: str, ids: tuple[str, ...], *, table: str) -> dict[str, Any]:
    """The vectors of these IDs in RUN, by an index that the first lookup builds beside it."""
    from dask_embstab.tables.run import open_run

    with _clock() as seconds:
        found = open_run(run).table(table).rows_of(ids)
    return {"ids": list(ids), "vectors": found.tolist(), "seconds": seconds()}


@command(argument("path"))
def inspect(path: str) -> dict[str, Any]:
    """Say what stands at PATH: its tables and, for a stabilized run, how it came to be."""
    from dask_embstab.tables.run import open_run

    return _described(open_run(path))


@command(
    argument("directory", required=False),
    click.option("--users", type=click.IntRange(100), default=20_000, show_default=True),
    click.option("--items", type=click.IntRange(100), default=5_000, show_default=True),
    click.option("--days", type=click.IntRange(2), default=5, show_default=True),
    click.option("--components", type=click.IntRange(2), default=16, show_default=True),
    click.option("--seed", type=int, default=0, show_default=True),
)
def demo(directory: str | None, **options: Any) -> dict[str, Any]:
    """Train a model for each day of a changing world, stabilize every run, and report into DIRECTORY."""
    from dask_embstab.demo.run import run_demo

    made = run_demo(directory or "demo-out", say=lambda line: click.echo(line, err=True), **options)
    context = click.get_current_context()
    return made if context.params["as_json"] else {"paths": made["paths"], "seconds": made["seconds"]}


@command(
    argument("path", required=False),
    click.option("--components", type=click.IntRange(1), default=64, show_default=True, help="Without a PATH."),
    click.option("--disk-bytes", metavar="BYTES", default="256MiB", show_default=True, help="Written, read, removed."),
    click.option("--seconds", type=click.FloatRange(0.001), default=0.1, show_default=True, help="For every step."),
    _SCHEDULER,
)
def doctor(
    path: str | None, *, components: int, disk_bytes: str, seconds: float, scheduler: str | None
) -> dict[str, Any]:
    """Say what this machine can do, and what fitting and applying the run or array at PATH will cost on it."""
    from dask.utils import parse_bytes

    from dask_embstab.passes.cluster import active_client, worker_families
    from dask_embstab.passes.doctor import examine, place_beside
    from dask_embstab.tables.coerce import tables_at

    tables = {} if path is None else tables_at(path)
    chosen = click.get_current_context().obj
    with _cluster(scheduler):
        client = active_client()
        workers = {} if client is None else {"workers": worker_families(client)}
        size = parse_bytes(disk_bytes)
        told = examine(tables, place_beside(path), d=components, disk_bytes=size, seconds=seconds, chosen=chosen)
    return told | workers


def _described(run: Any) -> dict[str, Any]:
    tables = {
        key: None
        if (table := getattr(run, key)) is None
        else {
            "rows": table.n_rows,
            "components": table.d,
            "dtype": str(table.dtype),
            "chunk_rows": table.chunk_rows,
            "ids": None if table.stored_ids is None else table.stored_ids.kind,
        }
        for key in ("items", "users")
    }
    made = run.transform
    return {"path": run.path, "name": run.name, **tables, "transform": None if made is None else dict(made.diagnostics)}


@contextlib.contextmanager
def _clock() -> Iterator[Callable[[], float]]:
    """Seconds since the block began; imports and connecting lie before it."""
    began = time.perf_counter()
    yield lambda: time.perf_counter() - began


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    if address is None:
        yield
        return
    from distributed import Client

    from dask_embstab.core.errors import InputError

    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}); start one or leave --scheduler out"
        ) from error
    with _quiet_loggers("distributed", "distributed.client"), client, client.as_current():
        yield


@contextlib.contextmanager
def _quiet_loggers(*names: str) -> Iterator[None]:
    """Distributed logs a lost scheduler with tracebacks; the contract is one line, and that comes from the error."""
    import logging

    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _within(memory_limit: str | None) -> Iterator[None]:
    if memory_limit is None:
        yield
        return
    import dask

    with dask.config.set({"embstab.memory-limit": memory_limit}):
        yield


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Errors as one line on stderr and the contract's exit codes; warnings as one line each."""
    from dask_embstab.core.errors import EmbstabError, EmbstabWarning, HoldError, RetryError

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, EmbstabWarning):
            click.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", EmbstabWarning)
        warnings.showwarning = show
        try:
            yield
        except EmbstabError as error:
            code = _HELD if isinstance(error, HoldError) else _OTHER if isinstance(error, RetryError) else _BAD_INPUT
            _fail(str(error), code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            _fail("interrupted; nothing was published", _OTHER)
        except Exception as error:  # noqa: BLE001 (the contract: one line and no traceback)
            _fail(f"{type(error).__name__}: {error}", _OTHER)


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    raise click.exceptions.Exit(code)


@contextlib.contextmanager
def _progress_bars(*, as_json: bool) -> Iterator[None]:
    """A bar for every pass, on a terminal only."""
    if as_json or not sys.stderr.isatty():
        yield
        return
    from dask_embstab.passes.compute import progress
    from dask_embstab.report.bars import bars

    with bars() as hook, progress(hook):
        yield


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


from dask_embstab import cli_series  # noqa: E402, F401 (its commands register themselves in the group above)
