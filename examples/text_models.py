"""Experiment 3: the queries of one model on the documents of another, two models that have nothing
in common but texts.

Maystre et al. (arXiv 2510.13406) combine text models by a rotation found on documents that both
have embedded. Here two collections and up to four models (`text_vectors.py`) are combined in every
order. A part of the documents, drawn at random, decides the rotation (`es.fit` in geometry mode);
the queries of the first model are then turned into the second model's space, and all of its stored
documents ranked by cosine, untouched. The narrower model is padded with zeros. "Centred" removes
the means before the rotation and adds the documents' mean afterwards; in "both centred" the stored
documents lose their mean too. The ceiling is what the documents' model finds for its own queries.
The part of experiment 6 on texts is here too: other maps in place of the rotation, asked for by
`alternatives.py`.

    python examples/text_models.py [--data FOLDER] [--seeds 0 1 2] [--shared 50 200 500]
    [--cache FOLDER] [--markdown docs/experiments.md] [--small]
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dask_embstab as es

sys.path.insert(
    0, str(Path(__file__).resolve().parent)
)  # also where the example is run by another program

from adapters import ADAPTERS, padded
from papers import (
    Rows,
    Titled,
    columns_of,
    command_line,
    ndcg,
    parser_of,
    report,
    require_data,
    spread,
    unit,
)
from text_vectors import (
    Collection,
    Vectors,
    encode,
    lsa,
    minilm_folder,
    models,
    read_collection,
)

ALIGNMENTS = ("Procrustes", "centred", "both centred")
FIGURES = ("unaligned", *ALIGNMENTS, "ceiling", "query model's own")
Figures = dict[str, float]
PairFigures = dict[tuple[str, str], dict[str, float]]
"""Of the models of queries and of documents: nDCG@10 by figure, and by number of shared pairs."""


def repetitions(options: Any) -> Iterator[tuple[Collection, int, dict[str, Vectors]]]:
    """Every collection with every seed, and the models' vectors of its texts."""
    for file in ("cran",) if options.small else ("cran", "cisi"):
        collection = read_collection(require_data(options.data, f"text/{file}.tar.gz"))
        for seed in options.seeds:
            vectors = models(collection, seed=seed, cache=options.cache, small=options.small)
            yield collection, seed, vectors


def aligned(ours: Vectors, theirs: Vectors, rows: Rows, alignment: str) -> tuple[Rows, Rows]:
    """Queries of the one model in the other's space, and the other's documents, of one width."""
    width = max(ours.documents.shape[1], theirs.documents.shape[1])
    with warnings.catch_warnings():
        # Of few pairs the fit says that they may agree by chance; how much is the table's question.
        warnings.simplefilter("ignore", es.EmbstabWarning)
        transform = es.fit(
            ours.documents[rows],
            reference=theirs.documents[rows],
            keep="geometry",
            center=alignment != "Procrustes",
            width=width,
        )
    queries, documents = transform.transform_items(ours.queries), padded(theirs.documents, width)
    if alignment == "both centred":
        mean = documents[rows].mean(axis=0)
        queries, documents = queries - mean, unit(documents - mean)
    return queries, documents


def quality(queries: Rows, documents: Rows, gains: Rows) -> float:
    """Mean nDCG@10 of the queries; the documents have length one, so a dot product ranks as the
    cosine does.
    """
    return float(ndcg(queries @ documents.T, gains).mean())


def combined(
    collection: Collection, vectors: Mapping[str, Vectors], n_shared: Sequence[int], *, seed: int
) -> PairFigures:
    """Every pair of models, in either order."""
    order = np.random.default_rng((seed, 1)).permutation(len(collection.documents))
    own = {
        name: quality(one.queries, one.documents, collection.gains)
        for name, one in vectors.items()
    }  # fmt: skip
    results: PairFigures = {}
    for a, b in permutations(vectors, 2):
        ours, theirs = vectors[a], vectors[b]
        width = max(ours.documents.shape[1], theirs.documents.shape[1])
        figures = {"ceiling": own[b], "query model's own": own[a]}
        figures["unaligned"] = quality(
            padded(ours.queries, width), padded(theirs.documents, width), collection.gains
        )
        for n in (*n_shared, len(order)):
            name = "all" if n == len(order) else str(n)
            for alignment in ALIGNMENTS:
                moved = aligned(ours, theirs, np.sort(order[:n]), alignment)
                figures[f"{alignment} {name}"] = quality(*moved, collection.gains)
        figures |= {alignment: figures[f"{alignment} all"] for alignment in ALIGNMENTS}
        results[a, b] = figures
    return results


def tables(results: Mapping[str, Sequence[PairFigures]], n_shared: Sequence[int]) -> list[Titled]:
    """All pairs decide; then against how many do."""
    made: list[Titled] = []
    for collection, repetitions in results.items():
        names = list(repetitions[0])
        lines = [
            [*pair, *columns_of([one[pair] for one in repetitions], FIGURES)] for pair in names
        ]
        made.append(
            (f"{collection}: nDCG@10, every document decides",
             ("queries of", "documents of", *FIGURES), lines)
        )  # fmt: skip
    sizes = [*map(str, n_shared), "all"]
    lines = []
    for collection, repetitions in results.items():
        for key in ALIGNMENTS:
            shares = [
                spread([share_of_ceiling(one, f"{key} {size}") for one in repetitions])
                for size in sizes
            ]
            lines.append([collection, key, *shares])
    made.append(
        ("Share of the ceiling by the number of shared documents, mean over the pairs of models",
         ("collection", "alignment", *sizes), lines)
    )  # fmt: skip
    return made


def share_of_ceiling(pairs: PairFigures, name: str) -> float:
    """A figure over the ceiling, mean over the pairs of models."""
    return statistics.fmean(figures[name] / figures["ceiling"] for figures in pairs.values())


# --- experiment 6


def texts(options: Any) -> dict[tuple[str, str], list[dict[tuple[str, str], Figures]]]:
    """By collection and number of shared documents, every repetition: nDCG@10 by models of queries
    and documents, and by method.
    """
    results: dict[tuple[str, str], list[dict[tuple[str, str], Figures]]] = {}
    for collection, seed, vectors in repetitions(options):
        order = np.random.default_rng((seed, 1)).permutation(len(collection.documents))
        for n in (*options.shared, len(order)):
            rows, size = np.sort(order[:n]), "all" if n == len(order) else str(n)
            one = {
                (a, b): by_method(vectors[a], vectors[b], collection.gains, rows, seed=seed)
                for a, b in permutations(vectors, 2)
            }
            results.setdefault((collection.name, size), []).append(one)
    return results


def by_method(
    ours: Vectors, theirs: Vectors, gains: Rows, rows: NDArray[np.int64], *, seed: int
) -> Figures:
    """NDCG@10 of one model's queries on the other's documents, some of which decide the maps."""

    def ndcg_of(queries: Rows, documents: Rows) -> float:
        return quality(unit(queries), unit(documents), gains)

    figures = {
        "ceiling": ndcg_of(theirs.queries, theirs.documents),
        "retrain": ndcg_of(ours.queries, ours.documents),
    }
    for name, fit in ADAPTERS.items():
        adapter = fit(ours.documents[rows], theirs.documents[rows], seed)
        figures[name] = ndcg_of(adapter.ours(ours.queries), adapter.theirs(theirs.documents))
    return figures


def text_tables(
    results: Mapping[tuple[str, str], Sequence[Mapping[tuple[str, str], Figures]]],
) -> list[Titled]:
    """The mean share of the ceiling by method, and nDCG@10 by models where all documents decide."""
    names = (*ADAPTERS, "retrain")
    shares = [
        [name, *(
            spread([statistics.fmean(f[name] / f["ceiling"] for f in one.values()) for one in many])
            for many in results.values()
        )]
        for name in names
    ]  # fmt: skip
    lines = [
        [collection, *pair, *columns_of([one[pair] for one in many], (*names, "ceiling"))]
        for (collection, size), many in results.items()
        if size == "all"
        for pair in many[0]
    ]
    title = (
        "Texts: share of the ceiling by collection and number of shared documents, mean over the"
        " pairs of models"
    )
    header = ("collection", "queries of", "documents of", *names, "ceiling")
    return [
        (title, ("method", *map(", ".join, results)), shares),
        ("Texts: nDCG@10, all documents decide", header, lines),
    ]


def embedding_seconds(options: Any, *, n: int = 10) -> str:
    """CPU time of embedding Cranfield anew, MiniLM's from ``n`` documents: what retraining costs
    beside what it breaks.
    """
    collection = read_collection(require_data(options.data, "text/cran.tar.gz"))
    began = time.process_time()
    lsa(collection, 200, np.arange(len(collection.documents)), entropy=True)
    text = f"{time.process_time() - began:.1f} s (LSA 200)"
    place = minilm_folder()
    if place is not None and not options.small:
        began = time.process_time()
        encode(collection.documents[:n], place)
        seconds = (time.process_time() - began) * len(collection.documents) / n
        text += f" or {seconds:.0f} s (MiniLM 384, from {n} documents)"
    return text


def main(argv: Sequence[str] | None = None) -> dict[str, list[PairFigures]]:
    """Run the experiment; the figures of every repetition by collection."""
    parser = parser_of("Queries of one text model on the documents of another.")
    parser.add_argument("--shared", type=int, nargs="+", default=[50, 200, 500])
    parser.add_argument("--cache", type=Path, help="a folder to keep MiniLM's vectors in")
    parser.add_argument("--small", action="store_true", help="Cranfield, two models, one seed")
    options = parser.parse_args(argv)
    if options.small:
        options.seeds, options.shared = options.seeds[:1], []
    results: dict[str, list[PairFigures]] = {}
    known: set[str] = set()
    for collection, seed, vectors in repetitions(options):
        known |= set(vectors)
        one = combined(collection, vectors, options.shared, seed=seed)
        results.setdefault(collection.name, []).append(one)
    left_out = sorted({"GloVe 50", "MiniLM 384"} - known)
    about = (
        f"{len(options.seeds)} repetitions (which half of the documents LSA is trained on, which"
        " documents are shared); mean ± standard deviation over them."
        + (f" Left out: {', '.join(left_out)}." if left_out else "")
    )
    command = command_line("text_models.py", argv)
    report(3, command, about, tables(results, options.shared), options.markdown)
    return results


if __name__ == "__main__":
    main()
