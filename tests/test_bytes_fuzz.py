"""Whoever reads bytes that somebody has changed succeeds or gets one clear error.

`fuzz_bytes` draws the changes and watches the process that reads: no other exception, no crash, no
hang, no code of theirs, no file outside touched, no memory beyond a limit. Edits that once failed
lie in ``tests/corpus`` and are tried again. ``EMBSTAB_FUZZ_SECONDS`` is the time of a campaign.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fuzz_bytes
import pytest

pytest.importorskip("pyarrow", reason="Parquet is one of the formats that are read")
pytest.importorskip("starlette", reason="the service is asked too (the extra serve)")

HERE = Path(__file__).resolve().parent
CORPUS = sorted((HERE / "corpus").glob("*.json"))
QUICK = ("files", "transforms")


def fuzzed(folder: Path, *, seed: int, seconds: float, entries: list[Path]) -> int:
    """How many changes were tried by a process of its own; an assertion where one failed."""
    program = [sys.executable, str(HERE / "fuzz_bytes.py"), str(folder), str(seed), str(seconds)]
    ended = subprocess.run(
        [*program, *map(str, entries)],
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    trying = folder / "trying.json"
    last = trying.read_text() if trying.exists() else "nothing was tried"
    assert ended.returncode == 0, f"{ended.stderr[-4000:]}\nthe last one tried: {last}"
    return int(ended.stdout)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for name in QUICK:
        (folder / name).mkdir()
        fuzz_bytes.TARGETS[name][0](folder / name)
    return folder


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
@pytest.mark.filterwarnings("ignore")
def test_edits_of_the_corpus_end_well(file: Path, targets: Path) -> None:
    """Those of small targets here; all of them are tried, and watched, in the long tier."""
    known = json.loads(file.read_text())
    if known["target"] in QUICK:
        failure = fuzz_bytes.failure_of(targets, known["target"], known["edits"], known["call"])
        assert failure is None


def test_entries_of_the_corpus_are_small() -> None:
    for entry in CORPUS:
        assert entry.stat().st_size < 4096
        assert {"target", "edits", "call"} == json.loads(entry.read_text()).keys()


@pytest.mark.long(minutes=40)
def test_ten_minutes_of_changed_bytes_end_well(tmp_path: Path) -> None:
    seconds = float(os.environ.get("EMBSTAB_FUZZ_SECONDS", "600"))
    seed = int.from_bytes(os.urandom(3)) if "CI" not in os.environ else 1
    assert fuzzed(tmp_path / "fuzz", seed=seed, seconds=seconds, entries=CORPUS) > seconds / 5


EVIL = """
import os, pathlib, pickle, subprocess, sys, time
import fuzz_bytes as fuzz
import numpy as np
import dask_embstab as es

root = pathlib.Path(sys.argv[1])
def reads(folder):
    yield lambda: {}["key"]
    yield lambda: (root.parent / "outside").write_text("")
    yield lambda: (root / "sentinel" / "secret").read_text()
    yield lambda: subprocess.run(["true"])
    yield lambda: pickle.loads(pickle.dumps(fuzz.Payload(root / "sentinel" / "made")))
    yield lambda: time.sleep(3)
    yield lambda: np.ones(1 << 28)
    yield lambda: exec("raise es.InputError('one line')")
    yield lambda: (folder / "inside").write_text("")

fuzz.MOST_SECONDS = 1
well = lambda folder: iter(())
fuzz.TARGETS = {"x": (lambda folder: (folder / "f").write_text("{}"), well, "f")}
fuzz.ready(root)
fuzz.TARGETS["x"] = (None, reads, "f")
print(*(int(fuzz.failure_of(root, "x", [], which) is not None) for which in range(9)))
"""


@pytest.mark.long
def test_what_must_not_happen_is_noticed(tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", EVIL, str(tmp_path / "fuzz")],
        env=os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout.split() == [*"111111100"], completed.stderr
