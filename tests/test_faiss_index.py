"""An index of faiss finds the neighbours that `search` finds; codes are moved as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_embstab as es
from dask_embstab.exchange.faiss_index import faiss_index

faiss: Any = pytest.importorskip("faiss", reason="faiss is an extra")

RNG = np.random.default_rng(0)
ITEMS = RNG.normal(size=(700, 16)).astype(np.float32)
ITEMS[::50] = 0  # rows of zeros are no answer
QUERIES = RNG.normal(size=(30, 16)).astype(np.float32)
IDS = RNG.permutation(10_000)[:700]
MOVED = ("float16", "int8-component", "pq4")
DECODED = (None, "bfloat16", "int8", "int6-component")


def coded(folder: Path, code: str | None, **options: Any) -> es.Run:
    run = es.create_run(folder / "run.zarr", ITEMS, QUERIES, item_ids=IDS, chunk_rows=256)
    if code is None:
        return run
    return es.compress(run, folder / "small.zarr", code=code, force=True, **options)


def require_equal(result: Any, ours: Any, *, atol: float) -> None:
    """Equal scores, and equal ids but where scores are as good as equal."""
    (scores, labels), (exact, ids) = result, ours
    np.testing.assert_allclose(scores, exact, atol=atol)
    for n in np.flatnonzero((labels != ids).any(axis=1)):
        gaps = np.abs(np.diff(exact[n]))
        apart = np.append(gaps, np.inf)[labels[n] != ids[n]]
        assert (np.minimum(apart, np.append(np.inf, gaps)[labels[n] != ids[n]]) < 2 * atol).all()


@pytest.mark.parametrize(("kind", "rotate"), [("flat", False), ("ivf", True)])
@pytest.mark.parametrize("code", [*DECODED, *MOVED])
@pytest.mark.usefixtures("small_tasks")
def test_the_same_neighbours(code: str | None, rotate: bool, kind: Any, tmp_path: Path) -> None:
    run = coded(tmp_path, code, **({"rotate": True} if rotate and code else {}))
    index = faiss_index(run, kind=kind)
    ours = es.search(QUERIES, run, 9, metric="dot")
    require_equal(index.search(QUERIES, 9), ours, atol=2e-5)
    # The nearest entries of a row of zeros are none.
    assert index.ntotal == (700 if code == "pq4" else 686)


@pytest.mark.parametrize("code", [None, "int8", "pq4"])
def test_cosines(code: str | None, tmp_path: Path) -> None:
    run = coded(tmp_path, code)
    result = faiss_index(run, metric="cosine").search(QUERIES, 9)
    require_equal(result, es.search(QUERIES, run, 9, metric="cosine"), atol=2e-6)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("rotate", [False, True])
def test_bits_that_differ(rotate: bool, kind: Any, tmp_path: Path) -> None:
    run = coded(tmp_path, "sign", rotate=rotate)
    asked = run.table("items").source.code.encode(QUERIES)[0]
    distances, labels = faiss_index(run, kind=kind).search(asked, 9)
    scores, _ = es.search(QUERIES, run, 9, metric="hamming")
    np.testing.assert_array_equal(distances, -scores)
    # Of rows at one distance either may name any: their own distances are those.
    rows = {int(n): code for n, code in zip(IDS, np.asarray(run.group["items/codes"]), strict=True)}
    far = [
        [np.unpackbits(rows[label] ^ query).sum() for label in line]
        for line, query in zip(labels.tolist(), asked, strict=True)
    ]
    np.testing.assert_array_equal(far, distances)


def test_codes_and_codebooks_are_moved_as_they_are(tmp_path: Path) -> None:
    run = coded(tmp_path, "pq4")
    index = faiss_index(run)
    stored = faiss.downcast_index(index.index)
    code = run.table("items").source.code
    centroids = faiss.vector_to_array(stored.pq.centroids).reshape(code.codebooks.shape)
    np.testing.assert_array_equal(centroids, code.codebooks)
    codes = faiss.vector_to_array(stored.codes).reshape(-1, 4)
    kept = np.asarray(run.table("items").vectors).any(axis=1)
    np.testing.assert_array_equal(codes, np.asarray(run.group["items/codes"])[kept])


def test_it_is_exported_as_one_file(tmp_path: Path) -> None:
    run = coded(tmp_path, "int8-component", rotate=True)
    place = tmp_path / "items.faiss"
    exported = es.export(run, place, format="faiss")
    assert exported["items"] == {"rows": 686, "labels": "ids", "binary": False}
    result = faiss.read_index(str(place)).search(QUERIES, 9)
    require_equal(result, es.search(QUERIES, run, 9, metric="dot"), atol=2e-5)


def test_hamming_is_of_sign_codes(tmp_path: Path) -> None:
    with pytest.raises(es.InputError, match="compares sign codes"):
        faiss_index(coded(tmp_path, "int8"), metric="hamming")
