"""Bytes that cannot be read back as they were written are noticed, and options that cannot be meant
are refused.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from oracle import chunk_file, foreign_run, world

import dask_embstab as es

T, W = world(51)
MakeRun = Callable[..., es.Run]
Refused = Callable[..., contextlib.AbstractContextManager[None]]
IDS = {"int64": np.arange(60) + 1, "string": np.array([f"i{n}" for n in range(60)])}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


def flip(file: Path) -> None:
    """One bit, somewhere in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))


def flip_the_first_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(bytes(data))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-60])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0" * 8)


DAMAGE = {
    call.__name__: call
    for call in (flip, flip_the_first_bit, truncate, empty, lengthen, Path.unlink)
}
SAYS = "restore|write .*again"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("chunk", [0, 3])
def test_a_damaged_chunk_of_a_run(
    make_run: MakeRun, out: Path, refused: Refused, damage: str, chunk: int
) -> None:
    run, good = make_run("in", T, W), make_run("good", T, W)
    transform = es.fit(good)
    DAMAGE[damage](chunk_file(run.path, "items", chunk))
    names = rf"in\.zarr.*{chunk}"
    with refused(es.DamageError, names, SAYS):
        es.fit(run)
    with refused(es.DamageError, names, SAYS):
        es.apply(transform, run, out)
    with refused(es.DamageError, names, SAYS):
        es.fit(good, reference=run)
    with refused(es.DamageError, names, SAYS):
        es.evaluate(good, run)
    with refused(OSError):
        es.create_run(out, run.items, chunk_rows=7)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_chunk_of_users_or_of_a_joined_reference(
    make_run: MakeRun, out: Path, refused: Refused, damage: str
) -> None:
    run = make_run("in", T, W, item_ids=np.arange(60))
    reference = make_run("reference", T, item_ids=np.arange(60)[::-1])
    DAMAGE[damage](chunk_file(reference.path, "items", 1))
    with refused(es.DamageError, r"reference\.zarr.*1", SAYS):
        es.stabilize(run, out, reference=reference)
    DAMAGE[damage](chunk_file(run.path, "users", 5))
    with refused(es.DamageError, r"in\.zarr/users.*5", SAYS):
        es.stabilize(run, out)


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_ids(
    make_run: MakeRun, out: Path, refused: Refused, damage: str, kind: str
) -> None:
    run, good = (make_run(name, T, W, item_ids=IDS[kind]) for name in ("in", "good"))
    DAMAGE[damage](chunk_file(run.path, "items", 1, "id"))
    with refused(es.DamageError, r"in\.zarr/items", SAYS):
        es.stabilize(run, out)
    with refused(es.DamageError, r"in\.zarr/items", SAYS):
        es.fit(good, reference=run)


FOREIGN: dict[str, dict[str, Any]] = {
    "zstd": {},
    "none": {"compressors": None, "fill_value": np.nan},
    "v2": {"zarr_format": 2, "fill_value": np.nan},
    "v2-none": {"zarr_format": 2, "compressors": None, "fill_value": np.nan},
    "sharded": {"chunk_rows": 8, "shards": (16, 4)},
}


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("change", FOREIGN)
@pytest.mark.parametrize("damage", ["truncate", "empty"])
def test_a_truncated_chunk_of_another_s_run(
    tmp_path: Path, out: Path, refused: Refused, damage: str, change: str, joined: bool
) -> None:
    """No checksum of ours helps here; the length does."""
    ids = np.arange(60) if joined else None
    tables = {"items": (T, ids), "users": (W, None)}
    path = foreign_run(tmp_path / "in.zarr", tables, **FOREIGN[change])
    v2 = change.startswith("v2")
    DAMAGE[damage](path / "items/vectors" / ("1.0" if v2 else "c/1/0"))
    if joined:
        good = es.create_run(tmp_path / "good.zarr", T[::-1], W, item_ids=np.arange(60)[::-1])
        with refused(es.DamageError, r"in\.zarr", SAYS):
            es.stabilize(good, out, reference=path)
    else:
        with refused(es.DamageError, r"in\.zarr", SAYS):
            es.stabilize(path, out)


def test_a_chunk_that_another_left_out_is_its_fill_value(tmp_path: Path, out: Path) -> None:
    """Zarr's own rule for arrays with a finite fill value; with NaN every chunk must be there."""
    rows = T.copy()
    rows[16:32] = 0
    path = foreign_run(
        tmp_path / "in.zarr", {"items": (rows, None), "users": (W, None)}, compressors=None
    )
    assert not (path / "items/vectors/c/1/0").exists()
    assert not np.asarray(es.stabilize(path, out).items.vectors[16:32]).any()


@pytest.mark.parametrize("file", ["zarr.json", "items/vectors/zarr.json", "items/id/zarr.json"])
def test_metadata_that_cannot_be_read(
    make_run: MakeRun, out: Path, refused: Refused, file: str
) -> None:
    run = make_run("in", T, W, item_ids=IDS["int64"])
    root = Path(run.path) / "zarr.json"
    if file != "zarr.json":  # without the consolidated copy, the file itself is read
        plain = json.loads(root.read_text())
        del plain["consolidated_metadata"]
        root.write_text(json.dumps(plain))
    (Path(run.path) / file).write_text('{"zarr_format": 3, "node_')
    with refused(es.DamageError, r"metadata of .*in\.zarr", SAYS):
        es.stabilize(run.path, out)


def test_a_damaged_transform(
    make_run: MakeRun, tmp_path: Path, out: Path, refused: Refused
) -> None:
    run = make_run("in", T, W)
    transformed = es.stabilize(run, tmp_path / "transformed.zarr")
    flip(Path(transformed.path) / "transform/items/c/0/0")
    with refused(es.DamageError, r"transform of .*transformed\.zarr", SAYS):
        es.apply(transformed.path, run, out)
    es.fit(run).save(tmp_path / "t.npz")
    truncate(tmp_path / "t.npz")
    with refused(es.DamageError, r"t\.npz is not a whole transform", SAYS):
        es.apply(tmp_path / "t.npz", run, out)
    gc.collect()  # a file that was left open would be noticed here
    (tmp_path / "text.npz").write_text("hello")
    with refused(es.DamageError, r"text\.npz is not a whole transform"):
        es.Transform.load(tmp_path / "text.npz")
    with refused(es.InputError, r"no transform at .*none\.npz"):
        es.apply(tmp_path / "none.npz", run, out)
    with refused(es.InputError, "without a transform", "stabilize it first"):
        es.apply(run.path, run, out)
    with refused(es.InputError, "folder of .* does not exist"):
        es.fit(run).save(tmp_path / "none" / "t.npz")


# --- options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep": "cosines"}, "keep must be one of 'scores', 'geometry'; it is 'cosines'"),
        ({"align_on": "all"}, "align_on must be one of 'items', 'users', 'both'; it is 'all'"),
        ({"method": "svd"}, "method must be one of 'auto', 'gram', 'qr'; it is 'svd'"),
        ({"balance": "equal"}, "balance must be one of 'rows', 'gramians'; it is 'equal'"),
        ({"rank": 0}, "rank must be at least 1; it is 0"),
        ({"width": 0}, "width must be at least 1; it is 0"),
        ({"min_matched": 0}, "min_matched must be at least 1; it is 0"),
        ({"keep": "geometry", "rank": 2}, "rank= .*use width= instead"),
        ({"keep": "scores", "center": True}, "center=True .*keep='geometry'"),
        ({"weights": np.ones(59)}, r"\(60,\).*\(59,\)"),
        ({"weights": -np.ones(60)}, "not negative; row 0 has -1.0"),
        ({"weights": np.full(60, np.nan)}, "finite.*row 0 has nan"),
    ],
)
def test_options_that_cannot_be_meant(
    make_run: MakeRun, out: Path, refused: Refused, options: dict[str, Any], says: str
) -> None:
    run = make_run("in", T, W)
    with refused(es.InputError, says):
        es.stabilize(run, out, reference=run, **options)


def test_a_run_that_is_wider_than_its_reference(
    make_run: MakeRun, tmp_path: Path, out: Path, refused: Refused
) -> None:
    run, narrow = make_run("in", T, W), make_run("narrow", T[:, :3], W[:, :3])
    with refused(es.InputError, r"\b4\b.*\b3\b", "width=4", "rank="):
        es.stabilize(run, out, reference=narrow)
    with refused(es.InputError, r"\b4\b.*\b3\b", "width=4"):
        es.stabilize(run, out, reference=narrow, keep="geometry")
    with refused(es.InputError, r"width=2 is less than the 3"):
        es.stabilize(run, out, reference=narrow, rank=2, width=2)
    wide = es.stabilize(
        run, tmp_path / "wide.zarr", reference=narrow, width=4
    )  # what is padded is free, and no surprise
    assert wide.items.d == 4
    assert wide.transform.diagnostics["alignment"]["free_directions"] == 1
    assert es.stabilize(run, tmp_path / "cut.zarr", reference=narrow, rank=3).items.d == 3


def test_a_transform_of_another_run(make_run: MakeRun, out: Path, refused: Refused) -> None:
    run = make_run("in", T, W)
    with refused(es.InputError, "takes rows of 3 components", "have 4"):
        es.apply(es.fit(T[:, :3], W[:, :3]), run, out)
    with refused(es.InputError, "fitted without", "fit it on a run that has them"):
        es.apply(es.fit(T), run, out)
    with refused(es.InputError, "dtype must be float16, float32 or float64; it is 'int32'"):
        es.apply(es.fit(run), run, out, dtype="int32")
    with refused(es.InputError, "dtype must be float16, float32 or float64; it is 'nonsense'"):
        es.apply(es.fit(run), run, out, dtype="nonsense")
    for call in (es.fit(T).transform_users, es.fit(T, W).transform_items):
        with refused(es.InputError, "fitted without users|rows must be"):
            call(np.ones((2, 3)))
    with refused(es.InputError, "gives 4 components and the other takes 3"):
        es.fit(T).compose(es.fit(T[:, :3]))


def test_runs_that_cannot_be_compared(make_run: MakeRun, refused: Refused) -> None:
    run = make_run("in", T, W)
    for other in (make_run("narrow", T[:, :3], W[:, :3]),):
        with refused(es.InputError, "one space", r"\b4\b.*\b3\b", "stabilize one onto"):
            es.evaluate(run, other)
    with refused(es.InputError, "at least 1"):
        es.evaluate(run, run, k=0)


def test_a_folder_that_only_looks_like_a_run(tmp_path: Path, out: Path, refused: Refused) -> None:
    root = zarr.open_group(tmp_path / "in.zarr", mode="w")
    root.create_group("items").create_group("vectors")
    with refused(es.InputError, "array named vectors"):
        es.stabilize(tmp_path / "in.zarr", out)
    with refused(es.InputError, "chunk_rows must be at least 1; it is 0"):
        es.create_run(out, T, chunk_rows=0)
