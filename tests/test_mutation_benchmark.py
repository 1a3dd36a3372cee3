"""Changes to the mathematics are found, made in place, and noticed by the tests."""

from __future__ import annotations

import ast
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dask_embstab.core import square_root

ROOT = Path(__file__).parent.parent
MUTATION: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks" / "mutation.py"))


def mutants(module: str) -> dict[tuple[str | None, str], Any]:
    result = MUTATION["mutants_of"](ROOT / "dask_embstab" / module)
    return {(mutant.function, mutant.change): mutant for mutant in result}


def test_changes_are_of_constants_comparisons_and_signs_and_leave_texts_alone() -> None:
    text = "-x < 0.5 and not (a + 2 == b)"
    changes = {
        change for node in ast.walk(ast.parse(text)) for change, _ in MUTATION["changes"](node)
    }
    assert changes == {
        "Lt becomes LtE",
        "Lt becomes Gt",
        "And becomes Or",
        "Eq becomes NotEq",
        "Add becomes Sub",
        "-x loses its sign",
        "not a + 2 == b loses its sign",
        "0.5 becomes 1.0",
        "2 becomes 3",
    }
    assert not list(MUTATION["changes"](ast.Constant("text")))


def test_a_changed_function_is_changed_for_those_who_hold_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = square_root.gramian_error
    monkeypatch.setattr(held, "__code__", held.__code__)
    assert held(2.0) == 4 * np.finfo(float).eps
    MUTATION["exchange"](mutants("core/square_root.py")["gramian_error", "Mult becomes Div"])
    assert held(2.0) == np.finfo(float).eps / 4


@pytest.mark.long
def test_a_changed_constant_is_changed_wherever_it_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dask_embstab.core import fit_transform, procrustes

    for module in (procrustes, fit_transform):
        monkeypatch.setattr(module, "FREE", 1e-10)
    MUTATION["exchange"](mutants("core/procrustes.py")[None, "1e-10 becomes 10000000000.0"])
    assert procrustes.FREE == fit_transform.FREE == 1e10


def verdicts_of(place: Path, *command: str, seconds: float) -> list[dict[str, str]]:
    """The rows of a campaign that runs in a process of its own."""
    file = place / "m.json"
    once = os.environ | {"EMBSTAB_DRAWS": "1"}  # the examples of the short tier
    subprocess.run(
        [sys.executable, *command, "--json", str(file)],
        cwd=ROOT,
        check=True,
        timeout=seconds,
        env=once,
    )
    rows: list[dict[str, str]] = json.loads(file.read_text())["rows"]
    return rows


@pytest.mark.long(minutes=40)
def test_two_thirds_of_a_sample_of_mutants_are_killed(tmp_path: Path) -> None:
    """The campaign of docs/mutation.md (79 %), on fewer mutants and other ones."""
    line = (ROOT / "docs" / "mutation.md").read_text().partition("`python ")[2].partition("`")[0]
    command = [*line.partition(" --markdown")[0].split(), "--limit", "60", "--seed", "1"]
    rows = verdicts_of(tmp_path, *command, seconds=2400)
    killed = sum(row["verdict"] == "killed" for row in rows)
    assert len(rows) == 60
    assert killed >= 40, [row for row in rows if row["verdict"] != "killed"]


@pytest.mark.long
def test_the_limits_of_the_routes_are_held_by_tests(tmp_path: Path) -> None:
    command = "benchmarks/mutation.py --code passes/fit/reread.py --tests routes --match e-"
    rows = verdicts_of(tmp_path, *command.split(), seconds=1200)
    verdicts = {row["change"]: row["verdict"] for row in rows}
    assert verdicts["5e-08 becomes 5000000000000.0"] == "killed"
    assert set(verdicts.values()) == {"killed"}, verdicts
