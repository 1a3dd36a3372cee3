"""A transform that says what none can say ends in one error, wherever it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from oracle import world

import dask_embstab as es
from dask_embstab.cli.main import main

EYE = np.eye(4)
WHOLE: dict[str, Any] = {
    "items": EYE,
    "users": EYE,
    "singular_values": np.ones(4),
    "diagnostics": {},
}
ODD: dict[str, dict[str, Any]] = {
    "complex": {"items": EYE * (1 + 1j)},
    "infinite": {"users": np.full((4, 4), np.inf)},
    "not a number": {"singular_values": np.full(4, np.nan)},
    "texts": {"items": np.full((4, 4), "x")},
    "truth values": {"items": EYE.astype(bool)},
    "a number": {"items": np.float64(3)},
    "a cube": {"items": np.ones((4, 4, 4))},
    "a matrix of singular values": {"singular_values": EYE},
    "offsets of another width": {"offsets": np.ones(7)},
    "users of another shape": {"users": np.ones((4, 3))},
    "no components": {"items": np.ones((4, 0)), "users": np.ones((4, 0))},
    "more singular values than components": {"singular_values": np.ones(99)},
    "an energy beyond float64": {"diagnostics": {"items": {"energy": 10**400}}},
    "an energy that is no number": {"diagnostics": {"users": {"energy": float("nan")}}},
    "digests beyond 32 bits": {"diagnostics": {"items": {"digests": [1 << 32]}}},
    "an error in words": {"diagnostics": {"alignment": {"relative_error": "x"}}},
    "a name that is an object": {"diagnostics": {"reference": {"name": {}}}},
    "a method that is an object": {"diagnostics": {"method": {}}},
    "a list of modes": {"diagnostics": {"keep": [1, 2]}},
    "a list": {"diagnostics": []},
    "null": {"diagnostics": None},
    "a text": {"diagnostics": "x"},
    "a list of items": {"diagnostics": {"items": []}},
    "a text of users": {"diagnostics": {"users": "x"}},
    "an energy in words": {"diagnostics": {"items": {"energy": "x"}}},
    "a true energy": {"diagnostics": {"items": {"energy": True}}},
    "digests in words": {"diagnostics": {"items": {"digests": ["x"]}}},
    "a number of digests": {"diagnostics": {"items": {"digests": 3}}},
    "no product": {"diagnostics": {"product": None}},
    "a list of references": {"diagnostics": {"reference": [1]}},
    "a reference at a list": {"diagnostics": {"reference": {"path": [1]}}},
    "an alignment in words": {"diagnostics": {"alignment": "x"}},
    "a truncation in words": {"diagnostics": {"truncation": {"frobenius_error": "x"}}},
}


def embstab(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"], prog_name="embstab")
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> es.Run:
    return es.create_run(tmp_path_factory.mktemp("odd") / "day.zarr", *world(3))


def written(path: Path, changes: dict[str, Any]) -> Path:
    values = WHOLE | changes
    np.savez(
        path,
        **{k: v for k, v in values.items() if k != "diagnostics"},
        diagnostics=json.dumps(values["diagnostics"]),
    )
    return path


@pytest.mark.parametrize("what", ODD)
def test_a_file_is_refused(
    run: es.Run, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "t.npz", ODD[what])
    with pytest.raises(es.EmbstabError):
        es.Transform.load(file)
    assert embstab("apply", file, run.path, tmp_path / "out.zarr") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out.zarr").exists()


def test_diagnostics_nested_without_end_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "deep.npz"
    np.savez(path, items=EYE, singular_values=np.ones(4), diagnostics=np.array("[" * 100_000))
    with pytest.raises(es.DamageError, match="not a whole transform file"):
        es.Transform.load(path)


def test_a_whole_file_is_read(run: es.Run, tmp_path: Path) -> None:
    done = es.apply(
        written(tmp_path / "t.npz", {"items": EYE.astype(int)}), run, tmp_path / "out.zarr"
    )
    np.testing.assert_array_equal(done.items.vectors, run.items.vectors)


@pytest.mark.parametrize(
    "what", [name for name, changes in ODD.items() if "diagnostics" in changes]
)
def test_a_run_is_refused(run: es.Run, tmp_path: Path, what: str) -> None:
    made = es.stabilize(run, tmp_path / "run.zarr").path
    zarr.open_group(made, path="transform", mode="r+").attrs.update(ODD[what])
    assert embstab("apply", made, run.path, tmp_path / "out.zarr") == 2
    assert embstab("inspect", made) == 2
