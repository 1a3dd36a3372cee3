"""What an error tells people to do, the verb that they called can do, and it is written in their
language.
"""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from oracle import world

import dask_embstab as es
from dask_embstab import errors
from dask_embstab.cli.caller import CommandLine
from dask_embstab.cli.main import main
from dask_embstab.errors import verb
from dask_embstab.repairs import PythonVerb, called_by, format_message, option, printable
from dask_embstab.series.log.settings import SETTINGS

SOURCE = Path(es.__file__).parent
APART = ("cli", "report", "render", "demo")
"""Where the language of the caller is known, or HTML and CSS are written."""
TEXTS = [p for p in sorted(SOURCE.rglob("*.py")) if p.parent.name not in APART]


def commands(group: click.Group = main) -> Iterator[click.Command]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


def options_of(command: click.Command) -> set[str]:
    return {
        name
        for p in command.params
        for name in (*p.opts, *p.secondary_opts)
        if name.startswith("--")
    }


def public_verbs() -> dict[str, Any]:
    verbs = {
        name: getattr(es, name) for name in es.__all__ if inspect.isfunction(getattr(es, name))
    }
    verbs |= {
        f"Series.{name}": getattr(es.Series, name)
        for name in dir(es.Series)
        if not name.startswith("_") and callable(getattr(es.Series, name))
    }
    return verbs


VERBS = public_verbs()
OPTIONS = {name: set(inspect.signature(function).parameters) for name, function in VERBS.items()}
OPTIONS["stabilize"] |= OPTIONS["fit"]
for changing in ("init", "change", "replay"):
    OPTIONS[f"Series.{changing}"] |= SETTINGS
EVERY_OPTION = set.union(*OPTIONS.values()) - {"self", "run", "a", "b", "k", "name", "path"}
COMMANDS = {command.name: command for command in commands()}


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """String constants that are no docstrings."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node


def marks() -> Iterator[tuple[str, str, set[str]]]:
    """Every mark in the package: where, ``option`` or the verb's name, and the options that it
    names.
    """
    for path in TEXTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("option", "call")
            ):
                names = {keyword.arg for keyword in node.keywords if keyword.arg}
                first = (
                    node.args[0].value
                    if node.args and isinstance(node.args[0], ast.Constant)
                    else None
                )
                where = f"{path.name}:{node.lineno}"
                if node.func.id == "call" and first:
                    yield where, str(first), names
                elif node.func.id == "option" and (first or names):  # else a name that is computed
                    yield where, "option", {str(first)} if first else names


# --- every text in the package


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_text_names_an_option_or_a_verb_but_by_a_mark(path: Path) -> None:
    named = "|".join(sorted(EVERY_OPTION))
    by_hand = re.compile(rf"(?<!\S)--[a-z]|\b(?:{named})=(?![=\"])|\bes\.[a-z]|`embstab ")
    result = [
        (node.lineno, node.value)
        for node in strings(ast.parse(path.read_text()))
        if " " in node.value and by_hand.search(node.value)
    ]
    assert not result


def test_marks_name_options_and_verbs_that_there_are() -> None:
    known = list(marks())
    assert len(known) > 40
    for where, kind, names in known:
        allowed = EVERY_OPTION | {"name"} if kind == "option" else OPTIONS.get(kind, set())
        assert names <= allowed, f"{where}: {kind} has no option {names - allowed}"
        assert kind == "option" or kind in VERBS, f"{where}: there is no verb {kind}"


def test_verbs_with_options_of_their_own_say_so() -> None:
    for name, function in VERBS.items():
        kinds = {p.kind for p in inspect.signature(function).parameters.values()}
        if kinds & {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}:
            assert hasattr(function, "__wrapped__"), f"{name} must be decorated with errors.verb"


@pytest.mark.parametrize(
    "name", sorted({name for _, kind, names in marks() if kind == "option" for name in names})
)
def test_an_option_is_offered_by_those_verbs_alone_that_have_it(name: str) -> None:
    repair = f"{option(**{name: 'first'})} helps"
    for function, options in OPTIONS.items():
        text = format_message("no", [repair], PythonVerb(frozenset(options)))
        assert text == (f"no; {name}='first' helps" if name in options else "no"), function
    for command in commands():
        written = re.findall(
            r"--[a-z-]+", format_message("no", [repair], CommandLine(main, command))
        )
        assert set(written) <= options_of(command)
        assert bool(written) == any(
            p.name == name for p in command.params if isinstance(p, click.Option)
        )


def test_what_a_series_adds_by_settings_is_told_so() -> None:
    for name in SETTINGS:
        text = format_message(
            "no", [option(**{name: 3})], CommandLine(main, COMMANDS["add"], "Series.change")
        )
        direct = any(p.name == name for p in COMMANDS["add"].params)
        assert (
            direct
            or re.fullmatch(r"no; `embstab series settings SERIES --[a-z-]+( 3)?`", text)
            or text == "no"
        )
    python = PythonVerb(frozenset({"run"}), "Series.change", frozenset(SETTINGS))
    assert format_message("no", [option(rank=3)], python) == "no; series.change(rank=3)"


# --- the mechanism


def test_the_verb_that_was_called_names_its_own_options() -> None:
    @verb()
    def inner(width: int) -> None:
        raise es.InputError(
            f"{option('width')} is {width}", f"{option(rank=2)} cuts", f"{option(width=9)} grows"
        )

    @verb()
    def outer(rank: int) -> None:
        inner(rank)

    with pytest.raises(es.InputError, match=r"^width= is 3; width=9 grows$"):
        inner(3)
    with pytest.raises(es.InputError, match=r"^width= is 3; rank=2 cuts$"):
        outer(3)
    with called_by(CommandLine(main, COMMANDS["fit"])), pytest.raises(es.InputError) as caught:
        outer(3)
    assert str(caught.value) == "--width is 3; --rank 2 cuts, or --width 9 grows"
    with pytest.raises(es.InputError) as plain:
        raise es.InputError("no", f"{option(width=9)} grows")
    assert str(plain.value) == "no", "whoever called no verb is offered none of its options"


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, es.EmbstabError)
    ],
)
def test_errors_come_back_from_other_processes_with_their_repairs(
    kind: type[es.EmbstabError],
) -> None:
    sent = kind("it is 3", option(width=9), option(overwrite=True))
    back = pickle.loads(pickle.dumps(sent))
    assert (type(back), back.args) == (kind, sent.args)
    back.caller = PythonVerb(frozenset({"width"}))
    assert str(back) == "it is 3; width=9"


@pytest.mark.parametrize("name", ["", "1", "[1]", "{}", "[1, 2]", '["a", 1, "call"]', "null"])
def test_a_name_that_looks_like_a_mark_is_a_name(name: str) -> None:
    text = f"a\x02{name}\x03b"
    for error in (es.InputError(text), es.InputError("it is wrong", text)):
        assert f"a\\x02{name}\\x03b" in str(error)


def test_control_characters_of_names_are_escaped() -> None:
    name = "a\x1b]0;owned\x07\x9b31m\x7f\u202eb\u2028\udc80"
    assert printable(name) == r"a\x1b]0;owned\x07\x9b31m\x7f\u202eb\u2028\udc80"
    assert str(es.InputError(f"{name} is there")) == printable(name) + " is there"
    assert str(es.EmbstabWarning(name)) == printable(name)
    assert str(es.InputError("two\n  lines")) == "two lines"
    assert printable("Zürich 東京 \\x1b") == "Zürich 東京 \\x1b"


# --- real errors, from Python and from the command line


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two runs, one whose ids are others, one that repeats an id, and one of more components."""
    ids = {"item_ids": np.arange(60), "user_ids": np.arange(90)}
    es.create_run(tmp_path / "a", *world(1), **ids)
    es.create_run(tmp_path / "b", *world(2), **ids)
    es.create_run(
        tmp_path / "others", *world(3), item_ids=np.arange(60) + 1000, user_ids=np.arange(90)
    )
    es.create_run(
        tmp_path / "twice", *world(4), item_ids=np.r_[0, np.arange(59)], user_ids=np.arange(90) + 1
    )
    es.create_run(tmp_path / "items", world(5)[0], item_ids=np.arange(60))
    return tmp_path


def both(place: Path, function: Any, command: list[str]) -> tuple[str, str]:
    """The error of the same mistake in both languages."""
    with pytest.raises(es.EmbstabError) as caught:
        function()
    ended = CliRunner().invoke(main, [word.replace("@", f"{place}/") for word in command])
    assert ended.exit_code in (2, 3), ended.output
    return str(caught.value), ended.stderr.removeprefix("error: ").strip()


def test_the_place_is_taken(place: Path) -> None:
    python, shell = both(
        place, lambda: es.stabilize(place / "a", place / "b"), ["stabilize", "@a", "@b"]
    )
    assert python.endswith("; overwrite=True replaces the run there")
    assert shell.endswith("; --overwrite replaces the run there")


def test_too_few_shared_rows(place: Path) -> None:
    given = {"reference": place / "b", "min_matched": 61}
    arguments = ["--reference", "@b", "--min-matched", "61"]
    python, shell = both(
        place, lambda: es.fit(place / "a", **given), ["fit", "@a", "@t", *arguments]
    )
    assert python.endswith(
        "; align_on='users' aligns on the users that both have, or min_matched=60 accepts a"
        " rotation with free directions"
    )
    assert shell.endswith(
        "; --align-on users aligns on the users that both have, or --min-matched 60 accepts a"
        " rotation with free directions"
    )
    python, _ = both(
        place, lambda: es.fit(place / "items", **given), ["fit", "@items", "@t", *arguments]
    )
    assert "align_on" not in python, "this run has no users"


def test_repeated_ids(place: Path) -> None:
    python, shell = both(
        place, lambda: es.evaluate(place / "twice", place / "a"), ["evaluate", "@twice", "@a"]
    )
    assert python.endswith("; duplicates='first' keeps the first row of each")
    assert shell.endswith("; --duplicates first keeps the first row of each")


def test_options_that_exclude_each_other(place: Path) -> None:
    python, shell = both(
        place,
        lambda: es.fit(place / "a", keep="geometry", rank=2),
        ["fit", "@a", "@t", "--keep", "geometry", "--rank", "2"],
    )
    assert python == "rank= truncates scores; with keep='geometry' use width= instead"
    assert shell == "--rank truncates scores; with --keep geometry use --width instead"


def test_there_is_no_series(place: Path) -> None:
    python, shell = both(place, lambda: es.Series(place / "none"), ["series", "log", "@none"])
    assert python.endswith("; make one with es.Series.init(...)")
    assert shell.endswith("; make one with `embstab series init SERIES`")


def test_a_warning_names_options_too(place: Path) -> None:
    with pytest.warns(es.EmbstabWarning, match=r"; min_matched=4 refuses such a fit$"):
        es.fit(world(1)[0][:3], reference=world(2)[0][:3], keep="geometry")
    es.create_run(place / "few", world(6)[0][:3])
    ended = CliRunner().invoke(
        main, ["fit", str(place / "few"), str(place / "t"), "--reference", str(place / "few")]
    )
    assert re.search(
        r"^warning: .*; --min-matched 4 refuses such a fit$", ended.stderr, re.MULTILINE
    )
