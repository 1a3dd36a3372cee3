"""Experiment 4: search a corpus of images and captions by either, when the two stand apart in one
model's space.

CLIP's images and captions live in two narrow cones (Liang et al., Mind the gap, arXiv 2203.02053):
a caption is nearer to any other caption than to its own image. Maystre et al. (arXiv 2510.13406)
align the images to the captions by a rotation found on known pairs, centred or not. Both come from
one model, so their axes have something in common from the start: "pulled" lets the rotation leave
the identity only as far as the known pairs ask for. Here 500 pairs of COCO are split at random; the
known ones decide means and rotation, the others are searched. A query is a held-out caption (or
image); the corpus holds every held-out image and every held-out caption but the query itself; its
partner is the one right answer.

    python examples/mixed_modality.py [--data FOLDER] [--seeds 0 1 2 3 4] [--known 50 125 250 400]
    [--searched 100] [--markdown docs/experiments.md] [--small]
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import dask_embstab as es

sys.path.insert(
    0, str(Path(__file__).resolve().parent)
)  # also where the example is run by another program

from papers import (
    Rows,
    Titled,
    columns_of,
    command_line,
    mean_cosine,
    ndcg,
    parser_of,
    ranks_of,
    report,
    require_data,
    unit,
)

FIGURES = (
    "recall@1",
    "recall@10",
    "nDCG@10",
    "other kind in the top 10",
    "recall@10, other kind alone",
    "pair cosine",
)
Pairs = tuple[Rows, Rows]
"""Images and captions, row by row."""


def baseline(_: Pairs, searched: Pairs) -> Pairs:
    """As the model gives them."""
    return searched


def align(known: Pairs, searched: Pairs) -> Pairs:
    """Images by the rotation that brings the known images nearest to their captions."""
    return fitted(known, center=False).transform_items(searched[0]), searched[1]


def centre(known: Pairs, searched: Pairs) -> Pairs:
    """Each kind without the mean of its known rows."""
    images, captions = (
        rows - part.mean(axis=0) for rows, part in zip(searched, known, strict=True)
    )
    return images, captions


def align_and_centre(known: Pairs, searched: Pairs) -> Pairs:
    """Images by the centred rotation onto the captions, then both without the captions' mean."""
    moved = fitted(known, center=True).transform_items(searched[0])
    mean = known[1].mean(axis=0)
    return moved - mean, searched[1] - mean


def pulled_and_centred(known: Pairs, searched: Pairs) -> Pairs:
    """The same with a rotation pulled towards the identity: beside the known pairs every axis is
    paired with itself, all axes together as heavy as the known images.
    """
    x, y = (rows - rows.mean(axis=0) for rows in known)
    axes = np.linalg.norm(x) / np.sqrt(x.shape[1]) * np.eye(x.shape[1])
    transform = fitted((np.vstack([x, axes]), np.vstack([y, axes])), center=False)
    images, captions = centre(known, searched)
    return transform.transform_items(images), captions


def fitted(known: Pairs, *, center: bool) -> es.Transform:
    """The rotation; fewer pairs than components leave directions free, of which the fit warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", es.EmbstabWarning)
        return es.fit(known[0], reference=known[1], keep="geometry", center=center)


METHODS: dict[str, Callable[[Pairs, Pairs], Pairs]] = {
    "baseline": baseline,
    "align": align,
    "centre": centre,
    "align + centre": align_and_centre,
    "pulled + centre": pulled_and_centred,
}


def searched_by(queries: Rows, partners: Rows) -> dict[str, float]:
    """Figures of searching the partners and the other queries for each query's partner."""
    n = len(queries)
    scores = queries @ np.vstack([partners, queries]).T
    scores[np.arange(n), n + np.arange(n)] = -np.inf  # a query does not find itself
    own: NDArray[np.int64] = np.arange(n)
    ranks = ranks_of(scores, own)
    gains = np.zeros_like(scores)
    gains[own, own] = 1.0
    top = np.argsort(-scores, axis=1)[:, :10]
    return {
        "recall@1": float(np.mean(ranks < 1)),
        "recall@10": float(np.mean(ranks < 10)),
        "nDCG@10": float(ndcg(scores, gains).mean()),
        "other kind in the top 10": float(np.mean(top < n)),
        "recall@10, other kind alone": float(np.mean(ranks_of(scores[:, :n], own) < 10)),
        "pair cosine": mean_cosine(queries, partners),
    }


def measured(
    features: Rows, n_known: int, n_searched: int, *, seed: int
) -> dict[tuple[str, str], dict[str, float]]:
    """Figures by kind of query and by method."""
    order = np.random.default_rng(seed).permutation(features.shape[1])
    known, searched = (
        (features[0][rows], features[1][rows])
        for rows in (order[:n_known], order[len(order) - n_searched :])
    )
    recalls = {}
    for name, method in METHODS.items():
        images, captions = map(unit, method(known, searched))
        recalls["captions", name] = searched_by(captions, images)
        recalls["images", name] = searched_by(images, captions)
    return recalls


def main(
    argv: Sequence[str] | None = None,
) -> dict[int, list[dict[tuple[str, str], dict[str, float]]]]:
    """Run the experiment; the figures of every repetition by number of known pairs."""
    parser = parser_of("Search images and captions together.", seeds=range(5))
    parser.add_argument("--known", type=int, nargs="+", default=[50, 125, 250, 400])
    parser.add_argument("--searched", type=int, default=100, help="pairs that are searched")
    parser.add_argument("--small", action="store_true", help="250 known pairs, one seed")
    options = parser.parse_args(argv)
    if options.small:
        options.seeds, options.known = options.seeds[:1], [250]
    path = require_data(options.data, "clip_gap/features_clip.npy")
    features = np.load(path).astype(np.float64)
    most = features.shape[1] - options.searched
    if not (options.searched > 0 < min(options.known) <= max(options.known) <= most):
        parser.error(f"--known and --searched must be positive and share {features.shape[1]} pairs")
    results = {
        n: [measured(features, n, options.searched, seed=seed) for seed in options.seeds]
        for n in options.known
    }
    tables: list[Titled] = [
        (
            f"{n} known pairs, {options.searched} others searched",
            ("queries", "method", *FIGURES),
            [[*key, *columns_of([one[key] for one in many], FIGURES)] for key in many[0]],
        )
        for n, many in results.items()
    ]  # fmt: skip
    about = f"{len(options.seeds)} random splits; mean ± standard deviation over them."
    command = command_line("mixed_modality.py", argv)
    report(4, command, about, tables, options.markdown)
    return results


if __name__ == "__main__":
    main()
