"""Files of transforms and moments, and transforms in runs: nothing is read that the file could not
hold.
"""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import world

import dask_embstab as es
from dask_embstab.files.npz import read_npz

T, W = world(31)
MB = 1 << 20


def header(descr: str, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("items.npy", header("<f8", (64 * MB // 8, 1)) + bytes(64 * MB))


def claim(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("items.npy", header("<f8", (10**12, 4)) + bytes(MB))


def long_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("diagnostics.npy", header("<U500000000", ()) + bytes(MB))


def objects(path: Path) -> None:
    np.savez(path, items=np.array([None]), allow_pickle=True)


@pytest.mark.parametrize("hostile", [bomb, claim, long_text, objects])
@pytest.mark.parametrize("load", [es.Transform.load, es.TableMoments.load])
def test_no_file_takes_more_memory_than_it_could_hold(
    tmp_path: Path, hostile: Callable[[Path], None], load: Callable[[Path], Any]
) -> None:
    hostile(path := tmp_path / "it.npz")
    tracemalloc.start()
    try:
        with pytest.raises(es.DamageError, match="is not a whole"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * MB
    finally:
        tracemalloc.stop()


def test_what_numpy_writes_is_read_as_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 4)),
        "b": np.array("text"),
        "c": np.asfortranarray(rng.normal(size=(5, 2))),
    }
    arrays |= {"d": np.zeros((0, 3)), "e": np.array(7)}
    for write in (np.savez, np.savez_compressed):
        write(path := tmp_path / "it.npz", **arrays)
        with path.open("rb") as file:
            result = read_npz(file)
        assert result.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(result[name], array)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_an_archive_with_any_byte_changed_is_read_or_refused(tmp_path: Path, write: Any) -> None:
    """zipfile has errors of its own for flags, methods, lengths and ends that it does not take."""
    write(tmp_path / "it.npz", a=np.arange(6.0))
    data = (tmp_path / "it.npz").read_bytes()
    for at in range(len(data)):
        for value in (0, 0x41, 0x7F, 0xFF, data[at] ^ 1, data[at] ^ 0x40):
            changed = io.BytesIO(data[:at] + bytes([value]) + data[at + 1 :])
            with contextlib.suppress(ValueError, OSError):
                read_npz(changed)


@pytest.mark.parametrize("n", [10**8, 10**15])
@pytest.mark.parametrize("name", ["items", "users", "singular_values"])
@pytest.mark.parametrize("one_chunk", [False, True])
def test_a_transform_in_a_run_holds_what_it_claims(
    tmp_path: Path, name: str, n: int, *, one_chunk: bool
) -> None:
    es.create_run(tmp_path / "in.zarr", T, W)
    run = es.stabilize(tmp_path / "in.zarr", tmp_path / "out.zarr")
    shape = [n] if name == "singular_values" else [n, 4]
    changes: dict[str, Any] = {"shape": shape}
    if one_chunk:
        changes["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": shape}}
    place, root = (
        Path(str(run.path)) / "transform" / name / "zarr.json",
        Path(str(run.path)) / "zarr.json",
    )
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))
    whole = json.loads(root.read_text())
    whole["consolidated_metadata"]["metadata"][f"transform/{name}"].update(changes)
    root.write_text(json.dumps(whole))
    tracemalloc.start()
    try:
        with pytest.raises(es.DamageError, match=f"{name} must hold what its metadata claims"):
            es.apply(str(run.path), tmp_path / "in.zarr", tmp_path / "again.zarr")
        assert tracemalloc.get_traced_memory()[1] < 20 * MB
    finally:
        tracemalloc.stop()
