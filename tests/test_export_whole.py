"""An export and its import give the same bits; one that is killed, or reads damage, leaves nothing
to be seen; memory does not grow with the table.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from oracle import hidden, memory_below
from test_export import IDS, N, all_bytes, rows_of

import dask_embstab as es
from dask_embstab.exchange import panels

KINDS = ("int64", "string", "uuid")


@pytest.mark.parametrize(
    ("kind", "dtype", "options"),
    [
        ("int64", "float32", {}),
        ("string", "float64", {"vectors_as": "fixed-list"}),
        ("uuid", "float32", {"vectors_as": "binary"}),
        ("string", "float16", {"dtype": "float16"}),
    ],
)
def test_what_is_exported_is_imported_bit_for_bit(
    kind: str, dtype: str, options: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    rows = rows_of(dtype)
    run = es.create_run(tmp_path / "r.zarr", rows, rows, item_ids=IDS[kind], user_ids=IDS[kind])
    es.export(run, tmp_path / "out", rows_per_file=30, **options)
    back = es.ingest(tmp_path / "out/items", tmp_path / "b.zarr", users=tmp_path / "out/users")
    for table, was in ((back.items, run.items), (back.users, run.users)):
        assert table is not None
        assert was is not None
        assert table.dtype == was.dtype
        assert table.stored_ids.kind == kind
        assert table.ids.compute().tolist() == was.ids.compute().tolist()
        assert table.vectors.compute().tobytes() == rows.tobytes()


def test_a_damaged_chunk_of_a_version_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    """Also where its own checksum was made to fit: the series recorded another."""
    series = es.Series.init(tmp_path / "series", policy="first", first_run="raw", gates={})
    for name in "ab":
        rows = rows_of("float32")[3:].copy()
        series.add(es.create_run(tmp_path / f"{name}.zarr", rows, chunk_rows=16), accept="test")
    runs = sorted((tmp_path / "series" / "runs").iterdir())
    chunk, other = (runs[1] / f"items/vectors/c/{k}/0" for k in (1, 2))
    chunk.write_bytes(other.read_bytes())
    for since in ({}, {"ids_changed_since": 1}):
        with pytest.raises(es.DamageError, match="c/1/0"):
            es.export(series, tmp_path / "out", format="npy", **since)
    with pytest.raises(es.DamageError, match="c/1/0"):
        es.export(series, tmp_path / "out", format="npy", version=1, ids_changed_since=2)
    assert not (tmp_path / "out").exists()
    assert hidden(tmp_path) == []


def test_memory_does_not_grow_with_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panels, "_GROUP_BYTES", 1 << 18)
    path = tmp_path / "rows.npy"
    rows = np.lib.format.open_memmap(path, "w+", "float32", (100_000, 64))
    es.export(rows[:10], tmp_path / "warm", format="npy")
    with dask.config.set(scheduler="synchronous"), memory_below(4 << 20):
        es.export(rows, tmp_path / "out", format="npy", rows_per_file=60_000)
    vectors = np.load(tmp_path / "out/items/part-00001.vectors.npy", mmap_mode="r")
    assert vectors.shape == (40_000, 64)


KILLED = """
import os, signal, sys
import numpy as np
import dask_embstab as es
from dask_embstab.exchange import parts

write, calls = parts.WRITERS["npy"], []
def killed(spec, stem, panels, room):
    calls.append(stem)
    if len(calls) == 2:
        next(iter(panels))
        os.kill(os.getpid(), signal.SIGKILL)
    write(spec, stem, panels, room)
parts.WRITERS["npy"] = killed
es.export(np.load(sys.argv[1]), sys.argv[2], format="npy", rows_per_file=20, overwrite=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("before", [False, True])
def test_a_killed_export_leaves_what_stood_there_and_the_next_one_removes_the_rest(
    tmp_path: Path, *, before: bool
) -> None:
    rows, out = rows_of("float32"), tmp_path / "out"
    np.save(tmp_path / "rows.npy", rows)
    if before:
        es.export(rows[:5], out, format="npy")
    stood = all_bytes(out) if before else {}
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "rows.npy"), str(out)], check=False
    )
    assert ended.returncode == -9
    assert out.exists() == before
    assert not before or all_bytes(out) == stood
    assert len(hidden(tmp_path)) == 1
    es.export(rows, out, format="npy", overwrite=True)
    assert len(np.load(out / "items/part-00000.ids.npy")) == N
    assert hidden(tmp_path) == []
