"""The header of a file of arrays is another's word: what it claims is not computed with before it
can be true, and it names no other file.
"""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from oracle import memory_below

import dask_embstab as es

SHAPES = (
    "(99999999999999999999999, 4)",
    "(3, 99999999999999999999999)",
    "(4611686018427387904, 4)",
    "(3, 4611686018427387904)",
    "(2305843009213693952, 8)",
    "(-1, 4)",
    "(2.5, 4)",
    "(0, 99999999999999999999999)",
)
LITTLE = 96 << 20
"""Modules that are imported on the way take up to 40 MiB the first time."""
WORDS = (
    b"6" * 221 + b" 4\na 1 2 3 4\n",
    b"6" * 5000 + b" 4\na 1 2 3 4\n",
    b"3 " + b"6" * 30 + b"\na 1 2 3 4\n",
    b"300000000000 4\na 1 2 3 4\n",
)


def npy(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    padded = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + bytes(48)


def is_refused(path: Path) -> bool:
    with memory_below(LITTLE), pytest.raises(es.EmbstabError) as raised:
        es.fit(es.table(path))
    return str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_files(tmp_path: Path, shape: str) -> None:
    (tmp_path / "a.npy").write_bytes(npy(shape))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("vectors.npy", npy(shape))
    assert is_refused(tmp_path / "a.npy")
    assert is_refused(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", SHAPES)
def test_tensors(tmp_path: Path, shape: str) -> None:
    sizes = json.loads(f"[{shape[1:-1]}]")
    described = {"v": {"dtype": "F32", "shape": sizes, "data_offsets": [0, 48]}}
    header = json.dumps(described).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(48))
    assert is_refused(path)


@pytest.mark.parametrize("text", WORDS, ids=["rows", "digits", "components", "more rows"])
def test_words(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.vec").write_bytes(text)
    assert is_refused(tmp_path / "a.vec")


@pytest.mark.parametrize("n", [1 << 58, 1 << 50, 1 << 34, 10**9])
@pytest.mark.parametrize("chunks", [(1024, 4), None])
def test_datasets_of_which_nothing_is_stored(
    tmp_path: Path, n: int, chunks: tuple[int, int] | None
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", (n, 4), "f4", chunks=chunks)
    assert is_refused(tmp_path / "a.h5")


def test_a_dataset_in_another_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.ones((30, 4), "f4").tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = [(str(tmp_path / "secret"), 0, 480)]
        file.create_dataset("v", (30, 4), "f4", external=stored)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        layout = h5py.VirtualLayout((30, 4), "f4")
        layout[:] = h5py.VirtualSource(tmp_path / "c.h5", "v", (30, 4))
        file.create_virtual_dataset("v", layout)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["v"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "v")
    for name in ("a.h5", "b.h5", "c.h5"):
        with pytest.raises(es.InputError, match=f"{name} has none, or has them in other files"):
            es.table(tmp_path / name)
        with h5py.File(tmp_path / name, "a") as file:
            file["own"] = np.eye(30, 4)
        assert (es.table(tmp_path / name).vectors.compute() == np.eye(30, 4)).all()
        with pytest.raises(es.InputError, match="has no array 'v'; it has own"):
            es.ingest(tmp_path / name, tmp_path / "out.zarr", vector="v")


def test_a_dataset_with_rows_left_out_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        rows = file.create_dataset("v", (100, 4), "f4", chunks=(10, 4))
        rows[:30] = np.random.default_rng(0).normal(size=(30, 4))
    assert es.table(tmp_path / "a.h5").n_rows == 100
