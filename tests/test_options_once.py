"""Every option is written once (`dask_embstab.options`): signatures, defaults, docstrings,
commands, the settings of a series and the docs agree with the records.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import pytest
from test_doc_pages import public_callables

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.options import (
    FIT,
    JOIN,
    OPTIONS,
    SELECTION,
    SETTINGS,
    SETTINGS_VERBS,
    Option,
    options_of,
)
from dask_embstab.passes.fit.options import FitOptions
from dask_embstab.series.log.policies import POLICIES
from dask_embstab.series.log.settings import Settings

_VERBS = (
    "fit",
    "stabilize",
    "moments",
    "apply",
    "compress",
    "frontier",
    "search",
    "evaluate",
    "report",
    "upgrade_plan",
    "Live",
    "export",
    "ingest",
    "detect_space",
    "query_index",
    "upgrade_index",
    "begin_backfill",
)
_OF_SERIES = ("init", "change", "replay", "add", "apply", "diff", "rebase", "forget", "gc")
_OF_SERIES += ("acknowledge", "transform_for", "skew", "metrics", "codes")
PYTHON: dict[str, Callable[..., Any]] = {name: getattr(es, name) for name in _VERBS} | {
    f"Series.{name}": getattr(es.Series, name) for name in _OF_SERIES
}
"""The functions whose options have records."""
_COMMANDS = ("fit", "moments", "stabilize", "apply", "compress", "evaluate", "report", "lookup")
_COMMANDS += ("verify", "export", "frontier")
_COMMANDS += ("doctor", "serve")
_COMMANDS_OF_SERIES = ("init", "replay", "add", "apply", "diff", "rebase", "forget", "gc")
_COMMANDS_OF_SERIES += ("acknowledge", "verify", "skew", "metrics", "codes")
COMMANDS = (
    {name: name for name in _COMMANDS}
    | {f"Series.{name}": f"series {name}" for name in _COMMANDS_OF_SERIES}
    | {"Series.change": "series settings", "upgrade_plan": "upgrade plan", "detect_space": "detect"}
    | {"ingest": "import"}
    | {"index_build": "index build", "query_index": "index query"}
    | {"upgrade_index": "index upgrade", "begin_backfill": "upgrade run"}
)
"""The commands of verbs whose options have records."""
WITHOUT_RECORDS = {"demo"}
ARGUMENTS = {
    "create_run": "item_ids user_ids name chunk_rows shard_rows overwrite sync storage_options",
    "table": "ids vector where name storage_options",
    "open_run": "verify storage_options",
    "fold": "layout table storage_options",
    "check_space": "storage_options",
    "space_of": "storage_options",
    "load_transform": "storage_options",
    "Backfill.search": "space",
    "Report.save": "sync",
    "TableMoments.load": "storage_options",
    "TableMoments.save": "sync storage_options",
    "Transform.load": "storage_options",
    "Transform.save": "sync storage_options",
}
"""What other functions take by name: which rows, where they lie and how they are stored."""


def command(words: str) -> click.Command:
    command_: Any = main
    for word in words.split():
        command_ = command_.commands[word]
    return command_


def commands_in(group: Any = main, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, result in group.commands.items():
        words = f"{before}{name}"
        if isinstance(result, click.Group):
            yield from commands_in(result, f"{words} ")
        else:
            yield words, result


def options_in(group: click.Command) -> dict[str, click.Option]:
    """All but those that every command has."""
    everywhere = ("as_json", "storage_options")
    return {
        p.name: p for p in group.params if isinstance(p, click.Option) if p.name not in everywhere
    }


def default_in(parameter: inspect.Parameter) -> Any:
    """Its default; what a dataclass makes anew for every instance is made."""
    made = {f.name: f.default_factory for f in fields(Settings)}
    is_made = type(parameter.default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS"
    return made[parameter.name]() if is_made else parameter.default


@pytest.mark.parametrize("verb", PYTHON)
def test_signatures_and_records_agree(verb: str) -> None:
    """Names, defaults and choices: whoever adds an option adds a record and a parameter."""
    function = PYTHON[verb]
    known = {n: o for n, o in options_of(verb).items() if verb in (*o.verbs, *o.python)}
    own = {
        p.name: p
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY or (p.name in known and p.default is not p.empty)
    }
    assert own.keys() == known.keys(), f"{verb}: parameters and records must be of the same options"
    for name, option in known.items():
        default = default_in(own[name])
        assert (type(default), default) == (
            type(option.default_of(verb)),
            option.default_of(verb),
        ), f"{verb}({name}=) must have the default of its record"
    plain = inspect.unwrap(function)
    written = {n: h for n, h in plain.__annotations__.items() if n != "return"}
    names = vars(sys.modules[plain.__module__])
    hints = get_type_hints(SimpleNamespace(__annotations__=written), names)
    for name, option in known.items():
        listed = [m for m in (hints.get(name), *get_args(hints.get(name))) if is_literal(m)]
        assert all(get_args(m) == option.choices for m in listed if option.kind == "choice")


def is_literal(hint: Any) -> bool:
    return get_origin(hint) is Literal


@pytest.mark.parametrize("verb", COMMANDS)
def test_commands_and_records_agree(verb: str) -> None:
    """Names, spelling, help and defaults."""
    options = options_in(command(COMMANDS[verb]))
    known = {n: o for n, o in options_of(verb).items() if verb in (*o.verbs, *o.commands)}
    assert options.keys() == known.keys()
    for name, option in known.items():
        assert options[name].help == option.described
        spelled = option.flags or f"--{name.replace('_', '-')}"
        assert "/".join((*options[name].opts, *options[name].secondary_opts)) == spelled
        if verb in option.commands:
            assert options[name].default == option.default_of(verb)
        else:
            left_to_python = str(options[name].default) in ("None", "False", "Sentinel.UNSET")
            assert left_to_python, "the function that is called has the default"


def test_no_command_has_options_without_records() -> None:
    others = {
        words: options_in(result)
        for words, result in commands_in()
        if words not in (*COMMANDS.values(), *WITHOUT_RECORDS)
    }
    assert not any(others.values()), others


def test_no_function_has_options_without_records() -> None:
    """Nor a parameter that its docstring does not name; ``storage_options`` is explained once."""
    named = {}
    for name, function in public_callables():
        if name in PYTHON or isinstance(function, type) or not inspect.isroutine(function):
            continue
        if isinstance(getattr(es, name.partition(".")[0]), type) and is_error(name):
            continue
        parameters = inspect.signature(function).parameters.values()
        own = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        assert not any(p.kind is p.VAR_KEYWORD for p in parameters), name
        text = (inspect.getdoc(function) or "") + (DOCS.parent / "api.md").read_text()[:600]
        missing = [p for p in own if p not in text]
        assert not missing, f"{name} must explain {missing}"
        if own:
            named[name] = " ".join(own)
    assert named == ARGUMENTS


def is_error(name: str) -> bool:
    return issubclass(getattr(es, name.partition(".")[0]), BaseException)


def test_every_record_is_of_a_verb() -> None:
    for option in OPTIONS:
        assert {*option.verbs, *option.python} <= PYTHON.keys(), option.name
        assert {*option.commands} <= COMMANDS.keys(), option.name


def test_settings_and_records_agree() -> None:
    assert [f.name for f in fields(Settings) if f.name not in SETTINGS] == []
    assert {f.name for f in fields(Settings)} == SETTINGS.keys()
    for f in fields(FitOptions):
        if f.name in FIT and f.default is not MISSING:
            assert f.default == FIT[f.name].default_of("fit"), f.name
    assert set(SETTINGS["policy"].choices) == set(POLICIES)
    assert {*SELECTION, *JOIN} <= FIT.keys()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_docstrings_explain_every_option(option: Option) -> None:
    """That of the first verb that takes it, or of the settings."""
    homes = [*option.verbs, *option.python]
    if not homes:
        return
    text = Settings.__doc__ if homes[0] == SETTINGS_VERBS[0] else PYTHON[homes[0]].__doc__
    assert text is not None
    is_parameter = re.search(rf"^ *([a-z_]+, )*{option.name}(, [a-z_]+)*$", text, re.MULTILINE)
    assert is_parameter or f"``{option.name}``" in text, f"{homes[0]} must explain {option.name}"


def test_the_docs_list_every_option() -> None:
    """``python tests/test_options_once.py`` writes the table anew."""
    assert table_of_options() in DOCS.read_text()


def test_the_docs_list_every_command() -> None:
    """``python tests/test_options_once.py`` writes the page anew."""
    assert COMMANDS_PAGE.read_text() == page_of_commands()


def test_docs_name_only_options_that_there_are() -> None:
    spelled = {flag for _, seen in commands_in() for p in seen.params for flag in flags_of(p)}
    root = DOCS.parent.parent
    for file in (root / "README.md", *sorted(DOCS.parent.rglob("*.md"))):
        for line in file.read_text().splitlines():
            if "embstab " in line and "python " not in line:
                named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line))
                assert named <= spelled | {"--help", "--version"}, (file.name, line)


def flags_of(parameter: click.Parameter) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


DOCS = Path(__file__).parent.parent / "docs" / "command-line.md"
COMMANDS_PAGE = DOCS.parent / "commands.md"
BEGIN, END = "<!-- options: written by tests/test_options_once.py -->\n\n", "\n\n<!-- end -->"


def row(option: Option, *more: str) -> str:
    """Of a table: its spelling with its values, what it does, and more."""
    spelled = option.flags or f"--{option.name.replace('_', '-')}"
    values = "|".join(option.choices) or option.metavar
    shown = f"`{spelled} {values}`" if values and "/" not in spelled else f"`{spelled}`"
    cells = (shown, option.described, *more)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table_of_options() -> str:
    """Every option of the command line, and in which commands it stands."""
    lines = ["| option | what it does | commands |", "|---|---|---|"]
    for option in OPTIONS:
        verbs = [v for v in (*option.verbs, *option.commands) if v in COMMANDS]
        named = [f"`{COMMANDS[v]}`" for v in verbs if v not in SETTINGS_VERBS]
        named += ["settings of a series"] if option.is_setting else []
        if named:
            lines.append(row(option, ", ".join(named)))
    return "\n".join(lines)


def page_of_commands() -> str:
    """Every command: how it is called, what it does, its options."""
    intro = (
        "# Commands\n\n<!-- written by tests/test_options_once.py -->\n\nEvery command takes"
        " `--json` and `--help`, and ends with 0 (done), 2 (bad input, damage or\nusage: one line"
        " on stderr), 3 (held) or 1 (anything else). [All options](command-line.md).\n"
    )
    verbs = {words: verb for verb, words in COMMANDS.items()}
    parts = [intro]
    for words, result in sorted(commands_in()):
        context = click.Context(result, info_name=f"embstab {words}")
        usage = " ".join(result.collect_usage_pieces(context))
        text = " ".join(inspect.cleandoc(result.help or "").split())
        parts += [f"## {words}\n", f"```text\nembstab {words} {usage}\n```\n", f"{text}\n"]
        verb = verbs.get(words)
        known = options_of(verb).values() if verb else ()
        own = [row(o) for o in known if verb in (*o.verbs, *o.commands)]
        if not verb:
            own = [f"| `{'/'.join(o.opts)}` | {o.help} |" for o in options_in(result).values()]
        if own:
            lines = ["| option | what it does |", "|---|---|", *own]
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    text = DOCS.read_text()
    before, rest = text.split(BEGIN)
    DOCS.write_text(before + BEGIN + table_of_options() + END + rest.partition(END)[2])
    COMMANDS_PAGE.write_text(page_of_commands())
