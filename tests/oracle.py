"""What the library must compute, written plainly with NumPy, and runs as other people write them.

Nothing here is shared with the library: whole tables in memory, tall QR, one svd. Row vectors
throughout: y = x @ M.
"""

from __future__ import annotations

import contextlib
import os
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zarr

Array = np.ndarray[Any, Any]


def draws(n: int) -> int:
    """Examples of a law: ``n``, and as many times more as `make test-all` draws."""
    return n * int(os.environ.get("EMBSTAB_DRAWS", "1"))


@dataclass(frozen=True)
class Standard:
    """Matrices that keep every score and give both tables the Gramian diag(s) (arXiv 2508.07574,
    algorithm 1).
    """

    items: Array
    users: Array
    s: Array


def standardize(
    items: Array, users: Array, *, rank: int | None = None, balance: str = "gramians"
) -> Standard:
    """The paper's own M_T = R_W' V s^-1/2 and M_W = R_T' U s^-1/2, then the free scalar."""
    R_T, R_W = np.linalg.qr(items, mode="r"), np.linalg.qr(users, mode="r")
    U, s, Vh = np.linalg.svd(R_T @ R_W.T)
    kept = rank or len(s)
    U, s, V = U[:, :kept], s[:kept], Vh[:kept].T
    n_items, n_users = (np.count_nonzero(rows.any(axis=1)) for rows in (items, users))
    factor = (n_items / n_users) ** 0.25 if balance == "rows" else 1.0
    return Standard(R_W.T @ V / np.sqrt(s) * factor, R_T.T @ U / np.sqrt(s) / factor, s)


def rotation(x: Array, y: Array) -> Array:
    """Q with orthonormal rows that brings x @ Q nearest to y (algorithm 2)."""
    P, _, Zh = np.linalg.svd(x.T @ y, full_matrices=False)
    return P @ Zh


def align(
    items: Array,
    users: Array,
    reference: Array,
    pairs: tuple[Array, Array] | None = None,
    *,
    balance: str = "rows",
) -> tuple[Array, Array]:
    """Both tables in the reference's space; ``pairs`` are row numbers of items and of the
    reference, side by side.
    """
    mine, theirs = pairs or (np.arange(len(items)), np.arange(len(items)))
    frame = standardize(items, users, balance=balance)
    Q = rotation((items @ frame.items)[mine], reference[theirs])
    return items @ frame.items @ Q, users @ frame.users @ Q


def pairs_by_id(mine: Any, theirs: Any) -> tuple[Array, Array]:
    """Row numbers of the rows with one id, found by looking each of them up."""
    at = {value: row for row, value in enumerate(list(theirs))}
    pairs = [(row, at[value]) for row, value in enumerate(list(mine)) if value in at]
    return np.array([a for a, _ in pairs], dtype=int), np.array([b for _, b in pairs], dtype=int)


def align_signs(table: Array, like: Array) -> Array:
    """Columns of ``table`` with the signs of ``like``: all that a first run leaves open."""
    return table * np.where(np.einsum("ij,ij->j", table, like) < 0, -1.0, 1.0)


def rank_biased_overlap(a: list[int], b: list[int], p: float) -> float:
    """Webber, Moffat & Zobel, truncated at the lists' length and normalized, one depth after the
    other.
    """
    k = len(a)
    overlap = [
        sum(1 for x in a[: depth + 1] if x >= 0 and x in b[: depth + 1]) for depth in range(k)
    ]
    total = sum(overlap[depth] / (depth + 1) * p**depth for depth in range(k))
    return total / sum(p**depth for depth in range(k))


def world(seed: int, n_items: int = 60, n_users: int = 90, d: int = 4) -> tuple[Array, Array]:
    """Items and users of well separated spectra along axes of their own."""
    rng = np.random.default_rng(seed)
    spread = 1.6 ** -np.arange(d)
    T = rng.normal(size=(n_items, d)) * spread @ _orthogonal(rng, d)
    W = rng.normal(size=(n_users, d)) * spread[::-1] @ _orthogonal(rng, d)
    return T, W


def refactored(T: Array, W: Array, seed: int) -> tuple[Array, Array]:
    """The same scores from other factors: (T A, W A^-T)."""
    rng = np.random.default_rng(seed)
    A = (
        _orthogonal(rng, T.shape[1])
        * np.linspace(0.5, 2.0, T.shape[1])
        @ _orthogonal(rng, T.shape[1])
    )
    return T @ A, W @ np.linalg.inv(A).T


def _orthogonal(rng: np.random.Generator, d: int) -> Array:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def foreign_run(
    path: Path, tables: dict[str, tuple[Array, Any]], *, chunk_rows: int = 16, **options: Any
) -> Path:
    """A run as another program writes it: plain zarr-python, no attributes of ours, not
    consolidated.

    ``options`` go to ``Group.create_array`` of the vectors; ``zarr_format=2`` writes version 2.
    """
    zarr_format = options.pop("zarr_format", 3)
    dtype = options.pop("dtype", None)
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for key, (vectors, ids) in tables.items():
        group = root.create_group(key)
        kind = np.dtype(dtype or vectors.dtype)
        chunks = (chunk_rows, vectors.shape[1])
        stored = group.create_array(
            "vectors", shape=vectors.shape, chunks=chunks, dtype=kind, **options
        )
        stored[...] = vectors
        if ids is not None:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # zarr warns that strings have no final specification yet
                ids = np.asarray(ids)
                whole = ids.dtype.kind in "iu"
                kind = np.dtype(np.int64) if whole else str
                listed = group.create_array("id", shape=ids.shape, chunks=(chunk_rows,), dtype=kind)
                listed[...] = ids if whole else ids.astype(object)
    return path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, hidden ones too, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def vectors_of(run: Any, key: str = "items") -> Array:
    """The stored rows of one table."""
    return np.asarray(getattr(run, key).source.array[...])


def hidden(folder: Path) -> list[Path]:
    """What stands in a folder and is not to be seen: writes in progress, runs put aside."""
    return sorted(path for path in folder.iterdir() if path.name.startswith("."))


def data_of(path: Any) -> dict[str, bytes | None]:
    """Every chunk file of a run, and whatever lies beside them."""
    return {
        name: file.read_bytes() if file.is_file() else None
        for file in sorted(Path(path).rglob("*"))
        if "/c/" in (name := str(file.relative_to(path)))
    }


class Stop(Exception):
    """What interrupts a write in these tests."""


def stop_at(n: int) -> Callable[[int], None]:
    """A hook that stops at its n-th call."""

    def hook(count: int) -> None:
        if count == n:
            raise Stop

    return hook


def stop_after(n: int) -> Callable[[int], None]:
    """A hook that stops at every call after the n-th."""

    def hook(count: int) -> None:
        if count > n:
            raise Stop

    return hook


@contextlib.contextmanager
def meanwhile(module: Any, name: str, other: Callable[[], object]) -> Iterator[None]:
    """In the block somebody else does ``other`` right before every call of ``module.name``."""
    original = getattr(module, name)

    def late(*arguments: Any, **options: Any) -> Any:
        other()
        return original(*arguments, **options)

    with mock.patch.object(module, name, late):
        yield


def chunk_file(run_path: Path, key: str, chunk: int, name: str = "vectors") -> Path:
    """Where a chunk of a table stands on disk."""
    tail = f"{chunk}/0" if name == "vectors" else str(chunk)
    return Path(run_path) / key / name / "c" / tail


def assert_close(a: Any, b: Any, tolerance: float) -> None:
    """The largest difference is small against the largest value of ``b``."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
    size = max(float(np.abs(b).max()), 1e-300)
    error = float(np.abs(a - b).max()) / size
    assert error <= tolerance, (
        f"off by {error:.1e} of the largest value {size:.1e}; {tolerance:.1e} is allowed"
    )


@contextlib.contextmanager
def memory_below(most_bytes: int) -> Iterator[None]:
    """The block holds no more Python memory than this at its peak."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < most_bytes, f"{peak} bytes at the peak"
    finally:
        tracemalloc.stop()


def join_on_disk(patched: Any) -> None:
    """No join of ids fits in memory, and a reference in another order is shuffled."""
    from dask_embstab.passes.join import pairing, reference_rows

    patched.setattr(pairing, "_in_memory", lambda *_: None)
    patched.setattr(
        reference_rows,
        "strategy_for",
        lambda joined, _: "positional" if joined.index is None else "shuffle",
    )
