"""The public names are closed, said once, and explained."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab import _HOME, errors

CONTRACT = {
    "open_run",
    "create_run",
    "fit",
    "apply",
    "stabilize",
    "evaluate",
    "table",
    "Run",
    "Table",
    "Transform",
    "Metrics",
}
SIGNATURES = {
    "create_run": "path items users *item_ids *user_ids *name *chunk_rows",
    "fit": (
        "items users *reference *keep *align_on *method *rank *width *balance *center *weights"
        " *min_matched"
    ),
    "apply": "transform run out *dtype *overwrite *resume",
    "stabilize": "run out *reference",
    "evaluate": "a b *k *users *seed",
    "table": "array *ids",
}


def test_all_are_the_exported_names_and_nothing_else() -> None:
    assert es.__all__ == sorted(es.__all__)
    assert set(es.__all__) == {name for names in _HOME.values() for name in names}
    assert set(es.__all__) >= CONTRACT
    assert dir(es) == sorted([*es.__all__, "__version__"])
    public = {
        name
        for name, value in vars(es).items()
        if name[0] != "_" and not isinstance(value, types.ModuleType)
    }
    assert public - {"annotations", "import_module", "Any", "TYPE_CHECKING"} <= set(es.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        es.nothing  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(es.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported >= set(es.__all__)


@pytest.mark.parametrize("name", es.__all__)
def test_every_public_name_is_explained(name: str) -> None:
    value = getattr(es, name)
    assert inspect.getdoc(value)
    members = vars(value).items() if inspect.isclass(value) else []
    for member, function in members:
        if member[0] != "_" and (
            inspect.isfunction(function) or isinstance(function, property | classmethod)
        ):
            assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_verbs_take_what_the_contract_says(name: str) -> None:
    parameters = inspect.signature(getattr(es, name)).parameters.values()
    spelled = ["*" * (p.kind is p.KEYWORD_ONLY) + p.name for p in parameters]
    wanted = SIGNATURES[name].split()
    assert spelled[: len(wanted)] == wanted
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    contract = {
        "method": "auto",
        "align_on": "items",
        "center": False,
        "overwrite": False,
        "resume": False,
        "k": 100,
    }
    assert {key: defaults[key] for key in contract.keys() & defaults.keys()} == {
        key: value for key, value in contract.items() if key in defaults
    }


def test_stabilize_takes_the_options_of_fit_and_of_apply_and_no_others(tmp_path: Path) -> None:
    rows = np.eye(4) + 0.1
    es.create_run(tmp_path / "in", rows, rows)
    es.stabilize(
        tmp_path / "in",
        tmp_path / "out",
        keep="scores",
        balance="gramians",
        dtype="float32",
        resume=True,
    )
    with pytest.raises(TypeError, match="nonsense"):
        es.stabilize(tmp_path / "in", tmp_path / "out2", nonsense=1)
    assert not (tmp_path / "out2").exists()


def test_errors_are_one_tree_and_refine_the_builtins() -> None:
    refined = {
        "InputError": (es.EmbstabError, ValueError),
        "NotARunError": (es.InputError,),
        "IdError": (es.InputError,),
        "SpaceError": (es.InputError,),
        "ConditionError": (es.InputError,),
        "OutputExistsError": (es.InputError, FileExistsError),
        "DamageError": (es.EmbstabError, OSError),
        "EmbstabWarning": (UserWarning,),
    }
    for name, bases in refined.items():
        assert all(issubclass(getattr(es, name), base) for base in bases), name
        assert name in (errors.__doc__ or ""), "the docstring draws the tree"
        assert re.search(rf"^[ │├└─]*{name} ", errors.__doc__ or "", re.MULTILINE), "a line each"


def test_the_import_is_light() -> None:
    """And what few calls need (a third of what is imported for a fit) waits for them."""
    code = (
        "import sys, dask_embstab as es; loaded = lambda *names: print({*names} & {*sys.modules});"
        " loaded('numpy', 'dask', 'zarr', 'xarray', 'scipy'); import numpy, zarr; from"
        " dask_embstab import api; from dask_embstab.cli.main import main;"
        " api.fit(zarr.array(numpy.eye(8)), numpy.eye(8)), es.Series;"
        " loaded('xarray', 'pandas', 'dask.array', 'pyarrow')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()"]
