"""The example on three real training runs: what it prints is what the paper promises."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import pytest

import dask_embstab as es

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EMBSTAB_DATA") or REPOSITORY.parent / "shared" / "data")

needs_data = pytest.mark.skipif(
    not (DATA / "gmf" / "gmf_a.npz").exists(),
    reason=f"no gmf_a.npz in {DATA / 'gmf'}; set EMBSTAB_DATA",
)


@pytest.fixture(scope="module")
def main() -> Any:
    return runpy.run_path(str(REPOSITORY / "examples" / "gmf.py"))["main"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gmf") / "runs"


@pytest.fixture(scope="module")
def result(main: Any, kept: Path) -> dict[str, Any]:
    results: dict[str, Any] = main([str(DATA), "--out", str(kept)])
    return results


@needs_data
@pytest.mark.parametrize(
    ("run", "key", "before", "after"),
    [
        ("b", "items", -0.13, 0.987),
        ("c", "items", -0.15, 0.957),
        ("b", "users", None, 0.986),
        ("c", "users", None, 0.963),
    ],
)
def test_cosines_rise_to_the_known_figures(
    result: dict[str, Any], run: str, key: str, before: float | None, after: float
) -> None:
    figures = result["table"][run][key]
    assert figures["after"] == pytest.approx(after, abs=0.003)
    assert figures["before"] < 0.3
    if before is not None:
        assert figures["before"] == pytest.approx(before, abs=0.003)


@needs_data
def test_vectors_of_two_runs_rank_as_well_as_retraining_allows(result: dict[str, Any]) -> None:
    for row in result["table"].values():
        assert row["rbo"]["before"] < 0.15
        assert row["rbo"]["after"] > row["retrained"] - 0.05


@needs_data
def test_scores_are_kept(result: dict[str, Any]) -> None:
    assert result["score_change"] < 1e-5


@needs_data
@pytest.mark.usefixtures("result")
def test_out_keeps_the_runs(kept: Path) -> None:
    assert es.open_run(kept / "c-stabilized.zarr").transform is not None
    assert es.open_run(kept / "c.zarr").transform is None


@needs_data
@pytest.mark.usefixtures("result")
def test_a_taken_place_is_one_line(main: Any, kept: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*exists already"):
        main([str(DATA), "--out", str(kept)])


def test_an_absent_folder_is_one_line(main: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: there is no gmf_a.npz in .*; give the folder"):
        main([str(tmp_path)])
