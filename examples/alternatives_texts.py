"""The part of experiment 6 on texts: queries of one model on the documents of another, by every map
of `adapters.py`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import minilm
import numpy as np
from adapters import ADAPTERS
from numpy.typing import NDArray
from papers import Rows, Titled, columns_of, ndcg, require_data, spread, unit
from text_vectors import Vectors, lsa, models, read_collection

Figures = dict[str, float]


def texts(options: Any) -> dict[tuple[str, str], list[dict[tuple[str, str], Figures]]]:
    """By collection and number of shared documents, every repetition: nDCG@10 by models of queries
    and documents, and by method.
    """
    found: dict[tuple[str, str], list[dict[tuple[str, str], Figures]]] = {}
    for file in ("cran",) if options.small else ("cran", "cisi"):
        collection = read_collection(require_data(options.data, f"text/{file}.tar.gz"))
        for seed in options.seeds:
            vectors = models(collection, seed=seed, cache=options.cache, small=options.small)
            order = np.random.default_rng((seed, 1)).permutation(len(collection.documents))
            for n in (*options.shared, len(order)):
                rows, size = np.sort(order[:n]), "all" if n == len(order) else str(n)
                one = {
                    (a, b): by_method(vectors[a], vectors[b], collection.gains, rows, seed=seed)
                    for a, b in permutations(vectors, 2)
                }
                found.setdefault((collection.name, size), []).append(one)
    return found


def by_method(
    ours: Vectors, theirs: Vectors, gains: Rows, rows: NDArray[np.int64], *, seed: int
) -> Figures:
    """NDCG@10 of one model's queries on the other's documents, some of which decide the maps."""

    def quality(queries: Rows, documents: Rows) -> float:
        return float(ndcg(unit(queries) @ unit(documents).T, gains).mean())

    found = {
        "ceiling": quality(theirs.queries, theirs.documents),
        "retrain": quality(ours.queries, ours.documents),
    }
    for name, fit in ADAPTERS.items():
        adapter = fit(ours.documents[rows], theirs.documents[rows], seed)
        found[name] = quality(adapter.ours(ours.queries), adapter.theirs(theirs.documents))
    return found


def text_tables(
    found: Mapping[tuple[str, str], Sequence[Mapping[tuple[str, str], Figures]]],
) -> list[Titled]:
    """The mean share of the ceiling by method, and nDCG@10 by models where all documents decide."""
    names = (*ADAPTERS, "retrain")
    shares = [
        [name, *(
            spread([statistics.fmean(f[name] / f["ceiling"] for f in one.values()) for one in many])
            for many in found.values()
        )]
        for name in names
    ]  # fmt: skip
    lines = [
        [collection, *pair, *columns_of([one[pair] for one in many], (*names, "ceiling"))]
        for (collection, size), many in found.items()
        if size == "all"
        for pair in many[0]
    ]
    title = (
        "Texts: share of the ceiling by collection and number of shared documents, mean over the"
        " pairs of models"
    )
    header = ("collection", "queries of", "documents of", *names, "ceiling")
    return [
        (title, ("method", *map(", ".join, found)), shares),
        ("Texts: nDCG@10, all documents decide", header, lines),
    ]


def embedding_seconds(options: Any, *, n: int = 10) -> str:
    """CPU time of embedding Cranfield anew, MiniLM's from ``n`` documents: what retraining costs
    beside what it breaks.
    """
    collection = read_collection(require_data(options.data, "text/cran.tar.gz"))
    began = time.process_time()
    lsa(collection, 200, np.arange(len(collection.documents)), entropy=True)
    said = f"{time.process_time() - began:.1f} s (LSA 200)"
    place = minilm.folder()
    if place is not None and not options.small:
        began = time.process_time()
        minilm.encode(collection.documents[:n], place)
        seconds = (time.process_time() - began) * len(collection.documents) / n
        said += f" or {seconds:.0f} s (MiniLM 384, from {n} documents)"
    return said
