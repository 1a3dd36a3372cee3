"""Whatever fails or dies at whichever file operation of `compress`: its place stays empty or holds
the whole run, and the same call ends in the same bits.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
from oracle import data_of, world

import dask_embstab as es
from dask_embstab.cli.main import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("plainly"),
]
POINTS = 2
"""So many operations the short form strikes, evenly spread, and the last ones."""
KINDS: dict[str, Callable[[Path], Any]] = {
    "compress": lambda work: es.compress(work / "raw.zarr", work / "out.zarr", code="int5"),
    "compress stabilized": lambda work: es.compress(
        work / "run.zarr", work / "out.zarr", code="int5", rotate=True
    ),
    "compress resumed": lambda work: es.compress(
        work / "raw.zarr", work / "out.zarr", code="pq2", force=True, resume=True
    ),
    "compress over a run": lambda work: es.compress(
        work / "run.zarr", work / "old.zarr", code="int8", overwrite=True
    ),
}
SHORT = zip(KINDS, ("kill", "power", "fail", "power"), strict=True)
CASES = [
    *(pytest.param(False, kind, mode, id=f"few-{kind}-{mode}") for kind, mode in SHORT),
    *(
        pytest.param(True, kind, mode, id=f"every-{kind}-{mode}", marks=pytest.mark.long)
        for kind in KINDS
        for mode in faults.MODES
    ),
]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training left it, in two chunks a table, a stabilized one, and a compressed one that
    is to be replaced.
    """
    folder = tmp_path_factory.mktemp("compress") / "start"
    folder.mkdir()
    ids: dict[str, Any] = {"item_ids": np.arange(24), "user_ids": [f"u{i}" for i in range(30)]}
    es.create_run(folder / "raw.zarr", *world(3, 24, 30), chunk_rows=16, **ids)
    es.stabilize(folder / "raw.zarr", folder / "run.zarr")
    es.compress(folder / "run.zarr", folder / "old.zarr", code="sign")
    return folder


def out_of(kind: str) -> str:
    return "old.zarr" if "over" in kind else "out.zarr"


def strike(disk: faults.Faults, start: Path, kind: str, at: int, mode: str, wanted: Any) -> bool:
    """One fault, on a copy; whether it struck."""
    work = start.parent / "work"
    shutil.copytree(start, work)
    before = data_of(work / "old.zarr")
    with contextlib.suppress(faults.Killed, OSError, es.EmbstabError), disk.armed(work, at, mode):
        KINDS[kind](work)
    out = work / out_of(kind)
    if out.exists() and (kind != "compress over a run" or data_of(out) != before):
        es.open_run(out, verify=True)  # what stands there is whole
        assert wanted in (None, data_of(out))
    for name in ("raw.zarr", "run.zarr"):
        assert data_of(work / name) == data_of(start / name)
    if not out.exists() or data_of(out) == before:
        assert disk.struck
        KINDS[kind](work)  # the same call again
    es.open_run(out, verify=True)
    assert wanted in (None, data_of(out))
    shutil.rmtree(work)
    return disk.struck


@pytest.mark.parametrize(("every", "kind", "mode"), CASES)
def test_a_fault_at_the_nth_operation(
    disk: faults.Faults, start: Path, record_property: Any, every: bool, kind: str, mode: str
) -> None:
    """At every place in the library that they come from; the short form takes a few, and the last
    ones, around the rename.
    """
    work = start.parent / "work"
    shutil.copytree(start, work)
    KINDS[kind](work)  # a first call imports and looks up more than later ones
    wanted = data_of(work / out_of(kind))
    shutil.rmtree(work)
    assert not strike(disk, start, kind, faults.NEVER, mode, wanted)
    last, step = disk.count, max(1, disk.count // POINTS)
    offset = faults.MODES.index(mode) * step // len(faults.MODES)
    some = disk.every_place() if every else range(1 + offset, last + 1, step)
    chosen = sorted({*some, *range(max(1, last - 1), last + 1)})
    struck = sum(strike(disk, start, kind, at, mode, wanted) for at in chosen)
    assert struck == len(chosen)
    record_property("tried", struck)


@pytest.mark.parametrize("part", ["items/codes/c/0/0", "users/scale/c/1", "items/id/c/0"])
def test_verify_compares_a_compressed_run_without_a_transform(
    start: Path, tmp_path: Path, part: str, capsys: Any
) -> None:
    shutil.copytree(start / "raw.zarr", tmp_path / "raw.zarr")
    out = Path(str(es.compress(tmp_path / "raw.zarr", tmp_path / "small.zarr").path))
    es.open_run(out, verify=True)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(out), "--json"])
    assert ended.value.code == 0
    data = bytearray((out / part).read_bytes())
    data[1] ^= 4
    (out / part).write_bytes(data)
    with pytest.raises(es.DamageError, match=part):
        es.open_run(out, verify=True)
    capsys.readouterr()


def test_a_chunk_of_another_compressed_run_is_told(tmp_path: Path) -> None:
    places = []
    for seed in (0, 1):
        place = tmp_path / f"{seed}.zarr"
        es.compress({"items": world(seed, 24, 30)[0]}, place)
        places.append(place / "items" / "codes" / "c" / "0" / "0")
    shutil.copyfile(*places)
    with pytest.raises(es.DamageError, match="not what was"):
        es.open_run(tmp_path / "1.zarr", verify=True)
