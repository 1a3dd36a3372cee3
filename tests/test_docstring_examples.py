"""Every public name shows an example, and every example in a docstring gives what it shows."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doctest_world
import pytest

import dask_embstab as es


def public_names() -> Iterator[tuple[str, Any]]:
    """What the package exports and can be called, and the methods of its classes."""
    for name in es.__all__:
        thing = getattr(es, name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            continue
        yield name, thing
        for method in dir(thing) if isinstance(thing, type) else ():
            if not method.startswith("_") and callable(getattr(thing, method)):
                yield f"{name}.{method}", getattr(thing, method)


def examples() -> list[doctest.DocTest]:
    """The examples of all modules."""
    without = []
    for module in pkgutil.walk_packages(es.__path__, "dask_embstab."):
        if not module.name.endswith("__main__"):
            without += doctest.DocTestFinder().find(importlib.import_module(module.name))
    return [test for test in without if test.examples]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    doctest_world.build(folder)
    return folder


@pytest.mark.parametrize("name", [name for name, _ in public_names()])
def test_a_public_name_shows_an_example(name: str) -> None:
    thing = inspect.unwrap(dict(public_names())[name])
    assert ">>>" in (thing.__doc__ or "")


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_an_example_gives_what_it_shows(
    test: doctest.DocTest, template: Path, tmp_path: Path
) -> None:
    test.globs = {**test.globs, **doctest_world.names(template, tmp_path / "world")}
    output: list[str] = []
    doctest.DocTestRunner().run(test, out=output.append)
    assert not output, "".join(output)
