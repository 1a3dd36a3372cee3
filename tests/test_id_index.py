"""The index of a lookup is believed only as far as its checksums go, and is built again where it is
damaged.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import hidden, world

import dask_embstab as es
from dask_embstab.tables.ids import id_index

T, _ = world(61)
ORDER = np.random.default_rng(3).permutation(60)
IDS: dict[str, Any] = {
    "int64": ORDER * 7919 - 200_000,
    "string": np.array([f"i{n}" for n in ORDER], object),
    "uuid": np.array([uuid.uuid5(uuid.NAMESPACE_OID, str(n)).bytes for n in ORDER], "V16"),
}
DAMAGE: dict[str, Callable[[Path], Any]] = {
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "a flipped bit": lambda file: file.write_bytes(
        bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]
    ),
    "a cut": lambda file: file.write_bytes(file.read_bytes()[:-8]),
    "nothing": lambda file: file.write_bytes(b""),
    "no file": Path.unlink,
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_index, "_BLOCK_BYTES", 64)


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("file", [*id_index.NAMES, "checks.json"])
@pytest.mark.parametrize("kind", IDS)
def test_a_damaged_index_is_built_again(tmp_path: Path, kind: str, file: str, what: str) -> None:
    run = es.create_run(tmp_path / "a.zarr", T, item_ids=IDS[kind], chunk_rows=16)
    np.testing.assert_array_equal(run.items.rows_of(IDS[kind]), T)
    (index,) = hidden(tmp_path)
    whole = {path.name: path.read_bytes() for path in index.iterdir()}
    if (not whole[file] and what != "no file") or (kind == "int64" and file == "starts"):
        pytest.skip("a file that nobody reads")
    DAMAGE[what](index / file)
    np.testing.assert_array_equal(run.items.rows_of(IDS[kind]), T)
    with pytest.raises(es.IdError, match="in no row"):
        run.items.rows_of([{"int64": 5, "string": "none", "uuid": uuid.UUID(int=3)}[kind]])
    assert [path.name for path in hidden(tmp_path)] == [index.name]
    np.testing.assert_array_equal(run.items.rows_of(IDS[kind][::-1]), T[::-1])
    assert {path.name: path.read_bytes() for path in index.iterdir()} == whole


def test_names_are_no_patterns(tmp_path: Path) -> None:
    """A run called ``*`` leaves its neighbours' indexes alone."""
    for name in ("ab", "*", "[a]b", "a?"):
        run = es.create_run(tmp_path / f"{name}.zarr", T, item_ids=IDS["int64"])
        run.items.rows_of(IDS["int64"][:3])
    assert len(hidden(tmp_path)) == 4
