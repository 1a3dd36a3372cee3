"""Rows may be called what they are: documents and queries in messages and reports, items and users
on disk and in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from click.testing import CliRunner, Result
from oracle import world

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.nouns import spoken

T, W = world(0)
NAMES = ["--items-as", "documents", "--users-as", "queries"]


def embstab(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("items and users", "documents and queries"),
        ("Items; an item, a user. Each user's", "Documents; a document, a query. Each query's"),
        ("/a/items, items/x, run.zarr/users", "/a/items, items/x, run.zarr/users"),
        ("items='x', --users 3, 'items', `users`", "items='x', --users 3, 'items', `users`"),
        ("users @ items.T, es.fit(items", "queries @ items.T, es.fit(items"),
        ("must be writable for this user", "must be writable for this user"),
        ("items: 3", "documents: 3"),
    ],
)
def test_words_of_prose_are_replaced_and_nothing_else(text: str, expected: str) -> None:
    assert spoken(text, ("documents", "queries")) == expected
    assert spoken(text, ("", "")) == text


def test_singulars_and_articles_follow() -> None:
    assert spoken("an item, a user", ("movies", "entries")) == "a movie, an entry"
    assert spoken("an item of items", ("mouse/mice", "")) == "a mouse of mice"


def test_an_error_keeps_the_names_of_its_call_and_options_stay() -> None:
    called = dask.config.set({"embstab.items-as": "documents", "embstab.users-as": "queries"})
    with called, pytest.raises(es.InputError) as caught:
        es.fit(T, keep="scores")
    text = str(caught.value)
    assert text.startswith("keep='scores' needs queries and documents; there are no queries")
    with pytest.raises(es.InputError) as caught:
        es.fit(T, keep="scores")
    assert "needs users and items" in str(caught.value)
    assert str(text).count("documents") == 2


def test_commands_take_the_names_and_json_keeps_its_keys(make_run: Callable[..., es.Run]) -> None:
    a, b = make_run("a", T, W), make_run("b", T + 0.1, W + 0.1)
    printed = embstab("evaluate", a.path, b.path, *NAMES)
    assert printed.exit_code == 0, printed.output
    assert "documents" in printed.output
    assert "items" not in printed.output.replace(str(a.path), "").replace(str(b.path), "")
    values = json.loads(embstab("evaluate", a.path, b.path, "--json", *NAMES).stdout)
    assert {"items", "users"} <= values.keys()
    only = make_run("only", None, W)
    failed = embstab("fit", only.path, Path(str(only.path)).parent / "t.npz", *NAMES)
    assert failed.exit_code == 2
    assert "documents are needed here" in failed.stderr
    assert "holds only queries" in failed.stderr


@pytest.mark.parametrize("name", ["a/b/c", "", "x" * 99, "=cmd", "a\x1bb"])
def test_a_name_is_a_word(name: str, make_run: Callable[..., es.Run]) -> None:
    done = embstab("evaluate", make_run("a", T).path, make_run("b", T).path, "--items-as", name)
    assert done.exit_code == 2
    assert "--items-as: rows are called by a plural such as documents" in done.stderr
    with dask.config.set({"embstab.items-as": name}):
        assert spoken("items") == "items", "a name that cannot be one is no name"


def test_documents_alone_go_the_whole_way(make_run: Callable[..., es.Run], tmp_path: Path) -> None:
    """No users anywhere: stabilize, evaluate, a series, reports, export, by the commands alone."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(300, 8))
    ids = [f"doc{n}" for n in range(300)]

    def day(n: int) -> Any:
        turned = np.linalg.qr(np.random.default_rng(n).normal(size=(8, 8)))[0]
        noise = 0.05 * np.random.default_rng(n).normal(size=(300, 8))
        return make_run(f"day{n}", (base + noise) @ turned, item_ids=ids).path

    days, out = [day(n) for n in (1, 2, 3)], tmp_path
    called = ["--items-as", "documents", "--users-as", "queries"]
    steps: list[list[Any]] = [
        ["stabilize", days[0], out / "first.zarr"],
        ["stabilize", days[1], out / "second.zarr", "--reference", out / "first.zarr"],
        ["evaluate", out / "first.zarr", out / "second.zarr"],
        ["report", out / "first.zarr", out / "second.zarr", out / "pair.html"],
        ["report", out / "second.zarr", out / "run.html"],
        *(["series", "add", out / "series", path] for path in days),
        ["series", "verify", out / "series"],
        ["series", "diff", out / "series", 1, 3],
        ["report", out / "series", out / "series.html"],
        ["export", out / "second.zarr", out / "files", "--format", "npy"],
        ["export", out / "second.zarr", out / "t.py", "--format", "numpy-source"],
    ]
    assert embstab("series", "init", out / "series").exit_code == 0
    for step in steps:
        done = embstab(*step, *called)
        assert done.exit_code == 0, (step, done.output)
    for page in ("pair.html", "run.html", "series.html"):
        text = (out / page).read_text()
        assert "ocuments" in text
        assert not [w for w in (" items", " users", ">items", ">users", "Items") if w in text], page
    assert es.open_run(out / "second.zarr").users is None
