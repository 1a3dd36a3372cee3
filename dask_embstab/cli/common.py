"""What every command shares: the group, options, errors as one line, exit codes, progress. Only
click is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import click

from dask_embstab.cli.caller import CommandLine
from dask_embstab.cli.execution import passes_within
from dask_embstab.cli.interrupts import signals_interrupt
from dask_embstab.cli.options import PLACE, of_every_command
from dask_embstab.cli.streams import json_line, say, write_line
from dask_embstab.files.published import noting
from dask_embstab.kernels import choose_kernels
from dask_embstab.repairs import called_by, option, printable
from dask_embstab.tables.layout import TABLES

_NEW_OBJECTS = 1 << 13
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

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line_usage():  # what only the function of a command finds
            return super().invoke(ctx)


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
    os.environ.setdefault("ICECHUNK_LOG", "off")  # Icechunk logs to stdout, between the JSON
    context.with_resource(_seldom_collected())
    context.obj = choose_kernels()


@contextlib.contextmanager
def _seldom_collected() -> Iterator[None]:
    """Cycles of objects are looked for a tenth as often: imports make hundreds of thousands of
    objects and no cycles, and the search is a twentieth of the time of a small command.
    """
    often = gc.get_threshold()
    gc.set_threshold(max(often[0], _NEW_OBJECTS) if often[0] else 0, *often[1:])
    try:
        yield
    finally:
        gc.set_threshold(*often)


def _end_without_search() -> None:
    """The process ends without a last search for cycles, a seventh of the time of a small one;
    one that failed has it, since cycles of a traceback may hold half-written files.
    """
    atexit.unregister(gc.freeze)  # one process may run many commands
    atexit.register(gc.freeze)


def command(
    *options: Callable[..., Any], group: click.Group | None = None, through: str = ""
) -> Callable[[Callable[..., dict[str, Any]]], click.Command]:
    """A command whose function returns its JSON object; errors, progress and exit codes are the
    same for all.

    ``through``: the verb that sets what the command itself takes no option for. Of the result,
    ``exit_code`` (0) is not printed, and of ``lines`` nothing else is where a person reads it.
    """

    def decorate(function: Callable[..., dict[str, Any]]) -> click.Command:
        @click.pass_context
        def run(context: click.Context, /, *, as_json: bool, **arguments: Any) -> None:
            limit, storage = arguments.pop("memory_limit", None), arguments.pop("storage_options")
            described = arguments.pop("cluster", None)
            names = {key: arguments.pop(f"{key}_as", None) for key in ("items", "users")}
            caller = CommandLine(main, context.command, through)
            with (
                signals_interrupt(),
                noting() as published,
                called_by(caller),
                _one_line_errors(published),
                _called(names),
            ):
                with (
                    _print_verdicts_when_held(as_json=as_json),
                    _progress_bars(as_json=as_json),
                    passes_within(limit),
                ):
                    if described is not None:
                        arguments["scheduler"] = _cluster_file(described, arguments["scheduler"])
                    result = function(**_reached_by(storage, arguments))
                _end_without_search()
                code = int(result.pop("exit_code", _DONE))
                if as_json:
                    kernels = {"openblas_coretype": context.obj} if context.obj else {}
                    broken = write_line(*json_line({**result, **kernels}))
                else:
                    broken = write_line(_for_people(str(context.info_name), result))
            context.exit(code if broken is None else _unprinted(broken, code, published))

        decorated: Callable[..., Any] = run
        for taken in reversed(
            (
                *options,
                of_every_command(),
                click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
            )
        ):
            decorated = taken(decorated)
        name = function.__name__.strip("_").replace("_", "-")
        return (group or main).command(name, help=function.__doc__)(decorated)

    return decorate


def _cluster_file(place: Any, address: str | None) -> Any:
    """A cluster that a file describes stands where the address of a scheduler does."""
    from dask_embstab.cli.clusters import read_cluster_file
    from dask_embstab.errors import InputError

    if address is not None:
        raise InputError(
            f"{option('cluster')} starts a cluster of its own; {option('scheduler')} {address} came"
            " too; give one of the two"
        )
    return read_cluster_file(place)


def _reached_by(storage: dict[str, str] | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments; URLs among them with their storage options."""
    if storage is None:
        return arguments
    from dask_embstab.files.remote import bound

    return dict(zip(arguments, bound(storage, *arguments.values()), strict=True))


def argument(name: str, *, required: bool = True) -> Callable[..., Any]:
    """A path argument."""
    return click.argument(name, type=PLACE, required=required)


def prints_json() -> bool:
    """Whether the command that runs prints its JSON object; else lines for a person will do."""
    return bool(click.get_current_context().params["as_json"])


def require_ids(ids: tuple[str, ...], name: str) -> None:
    """Raise where an option that a command does not have would be taken for an id (-5 is one)."""
    if unknown := next((given for given in ids if given.startswith("--")), None):
        from dask_embstab.errors import InputError

        raise InputError(f"there is no option {unknown}; see embstab {name} --help")


def described(run: Any) -> dict[str, Any]:
    """A run as ``embstab inspect`` tells of it."""
    tables = {
        key: (
            None
            if (table := getattr(run, key)) is None
            else {
                "rows": table.n_rows,
                "components": table.d,
                "dtype": str(table.dtype),
                "chunk_rows": table.chunk_rows,
                "ids": None if table.stored_ids is None else table.stored_ids.kind,
            }
        )
        for key in TABLES
    }
    made = run.transform
    return {
        "path": run.path,
        "name": run.name,
        **tables,
        "transform": None if made is None else dict(made.diagnostics),
    }


@contextlib.contextmanager
def _called(names: dict[str, str | None]) -> Iterator[None]:
    """Messages and reports of the block call the rows of tables by these names."""
    given = {key: name for key, name in names.items() if name is not None}
    if not given:
        yield
        return
    from dask_embstab import nouns
    from dask_embstab.errors import EmbstabError, InputError

    for key, name in given.items():
        if wrong := nouns.unusable(name):
            raise InputError(f"{option(f'{key}_as')}: {wrong}")
    import dask

    with dask.config.set({nouns.CONFIGURED[key]: name for key, name in given.items()}):
        try:
            yield
        except EmbstabError as error:  # it is shown outside of the block
            error.names = nouns.chosen()
            raise


@contextlib.contextmanager
def _one_line_errors(published: list[str]) -> Iterator[None]:
    """Errors as one line on stderr and the contract's exit codes; warnings as one line each."""
    from dask_embstab.errors import EmbstabError, EmbstabWarning, HoldError, InputError, RetryError

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, EmbstabWarning):
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", EmbstabWarning)
        warnings.showwarning = show
        try:
            yield
        except EmbstabError as error:
            retry = isinstance(error, RetryError) and not isinstance(error, InputError)
            code = _HELD if isinstance(error, HoldError) else _OTHER if retry else _BAD_INPUT
            _fail(str(error), code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as error:
            number = getattr(error, "number", signal.SIGINT)
            _fail(f"interrupted by {number.name}; {_what_is(published)} published", 128 + number)
        except MemoryError as error:
            _fail(
                f"this machine has not enough memory for it ({error}); ask for less, or use a"
                " larger one",
                _BAD_INPUT,
            )
        except Exception as error:  # noqa: BLE001 (the contract: one line and no traceback)
            _fail(f"{type(error).__name__}: {error}", _OTHER)


@contextlib.contextmanager
def _print_verdicts_when_held(*, as_json: bool) -> Iterator[None]:
    """The verdicts on a run that is held, as the JSON object of a command that ends with 3."""
    from dask_embstab.errors import HoldError

    try:
        yield
    except HoldError as error:
        if as_json:
            write_line(
                *json_line(
                    {"published": False, "note": str(error), "verdicts": list(error.verdicts)}
                )
            )
        raise


def _fail(message: str, code: int) -> None:
    say(f"error: {printable(' '.join(message.split()))}")
    raise click.exceptions.Exit(code)


def _unprinted(broken: OSError, code: int, published: list[str]) -> int:
    """The exit code where stdout did not take the result: what was published is no failure."""
    if broken.errno != errno.EPIPE:
        kind = "warning" if published or code else "error"
        say(
            f"{kind}: the result could not be printed ({broken.strerror}); {_what_is(published)}"
            " published"
        )
    return code or (_DONE if published else _OTHER)


def _what_is(published: list[str]) -> str:
    """The subject of a sentence that ends with ``published``."""
    if not published:
        return "nothing was"
    more = f" and {len(published) - 1} before it" if published[1:] else ""
    return f"{printable(published[-1])}{more} {'were' if more else 'was'}"


def _for_people(title: str, result: dict[str, Any]) -> str:
    from dask_embstab.render.text import person_text, render

    return person_text(result["lines"]) if "lines" in result else render(title, result)


@contextlib.contextmanager
def _progress_bars(*, as_json: bool) -> Iterator[None]:
    """A bar for every pass, on a terminal only."""
    if as_json or not sys.stderr.isatty():
        yield
        return
    from dask_embstab.passes.engine.graph import progress
    from dask_embstab.render.bars import bars

    with bars() as hook, progress(hook):
        yield
