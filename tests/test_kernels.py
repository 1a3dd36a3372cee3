"""Kernels chosen before NumPy is imported, by what `embstab doctor` measured here."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import world

import dask_embstab as es
from dask_embstab import kernels
from dask_embstab.diagnose import kernel_gain
from dask_embstab.passes.engine.blas import own_blas

T, W = world(7)
AMD = (
    "processor : 0\nvendor_id\t: AuthenticAMD\nflags\t\t: sse avx2 avx512f avx512dq avx512bw"
    " avx512vl\n\nprocessor : 1\n"
)
QUICK = ("--disk-bytes", "1MiB", "--seconds", "0.001", "--json")
linux = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="OPENBLAS_CORETYPE is set there alone",
)


def remember(folder: Path, **changed: Any) -> Path:
    """A record of this environment in a cache of its own, as `embstab doctor` leaves it."""
    numpy = np.__file__
    known = {
        "processor": "AuthenticAMD None None",
        "libraries": {numpy: kernels.stamp(numpy)},
        "default": "Zen",
        "gain": 1.5,
    }
    (folder / "embstab").mkdir(parents=True)
    (folder / "embstab" / "kernels.json").write_text(json.dumps({sys.prefix: known | changed}))
    return folder


@linux
@pytest.mark.parametrize(
    ("text", "changed", "wanted"),
    [
        (AMD, {}, "SkylakeX"),
        (AMD.replace(" avx512vl", ""), {}, None),
        (AMD.replace(" avx512dq", ""), {}, None),
        ("", {}, None),
        (AMD, {"processor": "AuthenticAMD 26 68"}, None),
        (AMD, {"default": "SkylakeX"}, None),
        (AMD, {"default": "Sandybridge"}, None),
        (AMD, {"gain": 1.04}, None),
        (AMD, {"gain": None}, None),
        (AMD, {"libraries": {np.__file__: [1, 2]}}, None),
        (AMD, {"libraries": 7}, None),
        (AMD, {"libraries": {"\0": [1, 2]}}, None),
        (AMD, {"libraries": {"\ud800": [1, 2]}}, None),
    ],
)
def test_better_kernels_are_those_that_were_measured_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    changed: dict[str, Any],
    wanted: str | None,
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(kernels, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kernels.better_kernels() is None
    remember(tmp_path / "cache", **changed)
    assert kernels.better_kernels() == wanted
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert kernels.better_kernels() is None


def test_a_pipe_in_place_of_the_record_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "embstab").mkdir()
    os.mkfifo(kernels.record())
    assert kernels.remembered() == {}


@linux
@pytest.mark.parametrize(
    ("rates", "gain"),
    [([3.0, 4.0], 1.5), ([1.9, 9.0], 0.95), (None, None), ([3.0, 3.0], "old kernels")],
)
def test_doctor_measures_both_kernels_and_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rates: list[float] | None, gain: Any
) -> None:
    (tmp_path / "cpuinfo").write_text(AMD)
    monkeypatch.setattr(kernels, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(kernels.CORETYPE, raising=False)
    loaded = [{"internal_api": "openblas", "architecture": "Zen", "filepath": np.__file__}]
    monkeypatch.setattr(kernel_gain, "own_blas", lambda: loaded)
    old = gain == "old kernels"  # a library that knows no SkylakeX runs what it ran before

    def asked(coretype: str | None, _: float) -> Any:
        if coretype is None:
            return ["Zen"], [2.0, 2.0]
        return None if rates is None else (["Zen" if old else coretype], rates)

    monkeypatch.setattr(kernel_gain, "_asked", asked)
    result = kernel_gain.kernel_gain()
    assert result is not None
    assert (result.default, result.gain) == ("Zen", None if old else gain)
    assert result.pays is (gain == 1.5)
    assert kernels.better_kernels() == ("SkylakeX" if result.pays else None)
    monkeypatch.setattr(
        kernel_gain, "own_blas", lambda: [{**loaded[0], "architecture": "Cooperlake"}]
    )
    assert kernel_gain.kernel_gain() is None


def test_a_kernel_is_asked_in_a_process_of_its_own() -> None:
    result = kernel_gain._asked(None, 0.0)
    assert result is not None
    assert result[0] == sorted({info.get("architecture") or "" for info in own_blas()})
    assert len(result[1]) == 2


def test_numpy_is_here_so_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.CORETYPE, raising=False)
    monkeypatch.setattr(kernels, "better_kernels", lambda: "SkylakeX")
    assert kernels.choose_kernels() is None
    assert kernels.CORETYPE not in os.environ


# Haswell stands for SkylakeX here: every machine that runs these tests has its kernels.
PROGRAM = """
import sys
from dask_embstab import kernels
kernels.AVX512_KERNELS = "Haswell"
kernels._CPUINFO = kernels.Path(sys.argv.pop(1))
{}
"""
ENTRIES = {
    "embstab": 'sys.argv[0] = "embstab"; from dask_embstab.cli.main import main; main()',
    "dask": 'sys.argv[0:1] = ["dask", "embstab"]; from dask.__main__ import main; main()',
    "dask, numpy first": (
        'import numpy; sys.argv[0:1] = ["dask", "embstab"]; from dask.__main__ import main; main()'
    ),
}


def told_by(entry: str, cpuinfo: Path, *arguments: Any, **environment: str) -> dict[str, Any]:
    ours = {key: value for key, value in os.environ.items() if key != kernels.CORETYPE}
    ours["XDG_CACHE_HOME"] = str(cpuinfo.parent / "cache")
    command = [sys.executable, "-c", PROGRAM.format(ENTRIES[entry]), cpuinfo, *arguments]
    ended = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=ours | environment
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return dict(json.loads(ended.stdout))


@linux
@pytest.mark.parametrize("entry", ENTRIES)
def test_the_command_line_chooses_kernels_and_says_so(
    entry: str, make_run: Callable[..., es.Run], tmp_path: Path
) -> None:
    run = make_run("a", T, W)
    (cpuinfo := tmp_path / "cpuinfo").write_text(AMD)
    remember(tmp_path / "cache")
    completed = told_by(entry, cpuinfo, "stabilize", run.path, tmp_path / "out.zarr", "--json")
    assert completed["openblas_coretype"] == "Haswell"
    assert "Haswell" in completed["kernel_family"]


@linux
def test_the_user_s_own_choice_stays(make_run: Callable[..., es.Run], tmp_path: Path) -> None:
    run = make_run("a", T, W)
    (cpuinfo := tmp_path / "cpuinfo").write_text(AMD)
    remember(tmp_path / "cache")
    completed = told_by("embstab", cpuinfo, "doctor", *QUICK, OPENBLAS_CORETYPE="Sandybridge")
    assert "openblas_coretype" not in completed
    assert "Sandybridge" in completed["blas"]["family"]
    assert completed["blas"]["set_by"] == "user"
    completed = told_by("embstab", cpuinfo, "doctor", *QUICK)["blas"]
    assert (completed["set_by"], completed["coretype"]) == ("embstab", "Haswell")
    cpuinfo.write_text("")
    assert "openblas_coretype" not in told_by(
        "embstab", cpuinfo, "fit", run.path, tmp_path / "t.npz", "--json"
    )
