r"""Experiment 2: a re-ranker that is trained on one week's vectors and used on later weeks'.

"Orthogonal low rank embedding stabilization" (arXiv 2508.07574) reports nDCG of such a downstream
model for two labels: .4898 and .4601 without embeddings, .4777 and .4540 with raw ones, .4799 and
.4533 with raw ones of fewer components, .5120 and .5017 with stabilized ones; and heatmaps whose
mean cosine is .88 after a week and .87 after a month.

Here the vectors are those of a web shop's weekly factorizations, each from its own random start
(`examples/webshop.py`). Every customer of a run who buys in the week after it gets a slate: what
was bought, and 40 other items drawn by popularity. *Click-like*: the item is bought. *Purchase-
like*: at least a dozen pieces of it. A small network (`reranker_data.py`) sees counts (of the item,
of the customer, of both, of the item last week) and, but for "none", the item's vector, the
customer's and their products component by component. It is trained on the slates of one week, and
used as it is on those of later ones.

*Reduced*: raw vectors in the leading half of the principal axes of that week's items. *Procrustes*,
*stabilized*: every run aligned as a series does by default, keeping geometry or scores.
*Retrained*: trained anew on stabilized vectors, always on the week before.

    python examples/reranker.py [--data FOLDER] [--seeds 0 1 2 3 4] [--weeks 40] \
        [--markdown docs/experiments.md] [--heatmaps docs/experiments-heatmaps.svg] [--small]
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import dask_embstab as es
from dask_embstab.render.heatmap import heatmaps_svg

sys.path.insert(
    0, str(Path(__file__).resolve().parent)
)  # also where the example is run by another program

from papers import (
    Rows,
    Titled,
    command_line,
    mean_cosine,
    parser_of,
    report,
    require_data,
    spread,
    unit,
)
from reranker_data import AGES, Reranker, Slates, features, first_runs, mean_ndcg, slates
from webshop import Events, Week, read_events, train, weeks

ARMS = ("none", "raw", "raw, reduced", "Procrustes", "stabilized", "retrained")
LABELS = ("click-like", "purchase-like")
GAPS, TRAINED = (1, 2, 4, 8, 13, 20, 26), (0, 4, 8, 12)
DECAY = 0.5 ** (1 / 26)
"""Of what earlier runs weigh, from one run to the next."""
MONTH = range(8, 13)
"""Runs of the heatmaps."""

Vectors = tuple[Rows, Rows]
"""Items and users of one run."""
Figures = dict[tuple[str, ...], float | None]


def reduced(vectors: Vectors) -> Vectors:
    """Both tables in the leading half of the items' principal axes, the largest entry of each axis
    positive.
    """
    _, axes = np.linalg.eigh(vectors[0].T @ vectors[0])
    axes = axes[:, ::-1][:, : axes.shape[1] // 2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return vectors[0] @ axes, vectors[1] @ axes


def aligned(known: Sequence[Week], raw: Sequence[Vectors], *, scores: bool) -> list[Vectors]:
    """The runs as a series aligns them by default, `es.Series` without its files: each run's unit
    item rows are rotated onto the decayed sum of all earlier ones, the last one half more. An item
    leaves the sum when it is gone and was seen but once.
    """
    ids = np.unique(np.concatenate([week.item_ids for week in known]))
    total = np.zeros((len(ids), raw[0][0].shape[1]))
    last, weight, tables = np.zeros_like(total), np.zeros(len(ids)), []
    for week, (items, users) in zip(known, raw, strict=True):
        if scores:
            standard = es.fit(items, users)
            items, users = standard.transform_items(items), standard.transform_users(users)
        rows = np.searchsorted(ids, week.item_ids)
        target = (total + 0.5 * last)[rows]
        seen = target.any(axis=1)
        if seen.any():
            rotation = es.fit(unit(items[seen]), reference=target[seen], keep="geometry")
            items, users = rotation.transform_items(items), rotation.transform_items(users)
        last[:] = 0
        last[rows] = unit(items)
        total = DECAY * total + last
        weight *= DECAY
        weight[rows] += 1
        total[weight < 1] = weight[weight < 1] = 0
        tables.append((items, users))
    return tables


def vectors_of(known: Sequence[Week], *, seed: int, components: int) -> dict[str, list[Vectors]]:
    """Every week's vectors by arm."""
    raw = []
    for week in known:
        factors = train(week, seed=seed, components=components)
        raw.append((factors.items.astype(np.float64), factors.users.astype(np.float64)))
    return {
        "raw": raw,
        "raw, reduced": [reduced(vectors) for vectors in raw],
        "Procrustes": aligned(known, raw, scores=False),
        "stabilized": aligned(known, raw, scores=True),
    }


def measured(
    events: Events, known: list[Week], options: Any, *, seed: int
) -> tuple[Figures, dict[str, Rows]]:
    """NDCG by arm, label and gap, and by arm, label and age; the cosines of a month by arm."""
    vectors = vectors_of(known, seed=seed, components=options.components)
    born = first_runs(events, known)
    each = [slates(events, week, born, number, seed=seed) for number, week in enumerate(known)]

    def trained(arm: str, number: int) -> Reranker:
        return Reranker(inputs(arm, number), each[number].labels, seed=seed)

    def inputs(arm: str, number: int) -> Rows:
        of = "stabilized" if arm == "retrained" else arm
        return features(each[number], vectors[of][number] if of in vectors else None)

    weekly: dict[int, Reranker] = {}
    by_key: dict[tuple[str, ...], list[float]] = {}
    for start in options.trained:
        models = {arm: trained(arm, start) for arm in ARMS[:-1]}
        for gap in (gap for gap in options.gaps if start + gap < len(known)):
            number = start + gap
            if number not in weekly:
                weekly[number] = trained("retrained", number - 1)
            for arm, model in {**models, "retrained": weekly[number]}.items():
                scores = model.scores(inputs(arm, number))
                for key, value in qualities(scores, each[number], f"{gap}").items():
                    by_key.setdefault((arm, *key), []).append(value)
    month = {
        arm: heatmap(known, vectors[arm], options.month)
        for arm in ("raw", "Procrustes", "stabilized")
    }
    return {key: statistics.fmean(values) for key, values in by_key.items()}, month


def qualities(scores: Rows, of: Slates, gap: str) -> dict[tuple[str, str], float]:
    """NDCG by label: of whole slates (under the gap, and "mean"), of their items of every age."""
    figures = {}
    for column, label in enumerate(LABELS):
        whole = mean_ndcg(scores[:, column], of.labels[:, column], of.starts)
        figures[label, gap] = figures[label, "mean"] = whole
        for number, age in enumerate(AGES):
            # Items of other ages have no gain, and their places are after all others'.
            inside = of.ages == number
            alone = np.where(inside, scores[:, column], -np.inf)
            figures[label, age] = mean_ndcg(alone, of.labels[:, column] * inside, of.starts)
    return {key: value for key, value in figures.items() if value is not None}


def heatmap(known: Sequence[Week], vectors: Sequence[Vectors], numbers: Sequence[int]) -> Rows:
    """Mean cosine of the items that two runs share, for every two."""
    cosines = np.ones((len(numbers), len(numbers)))
    for i, first in enumerate(numbers):
        for j, second in enumerate(numbers):
            _, a, b = np.intersect1d(
                known[first].item_ids, known[second].item_ids, return_indices=True
            )
            cosines[i, j] = mean_cosine(vectors[first][0][a], vectors[second][0][b])
    return cosines


def tables(
    results: Sequence[Figures], months: Sequence[Mapping[str, Rows]], gaps: Sequence[int]
) -> list[Titled]:
    """NDCG by gap and by age, and the cosines after a week and a month."""

    def lines(label: str, columns: Sequence[str]) -> list[list[str]]:
        return [
            [
                arm,
                *(
                    spread([one.get((arm, label, name)) for one in results], digits=4)
                    for name in columns
                ),
            ]
            for arm in ARMS
        ]

    by_gap = [*map(str, gaps), "mean"]
    made: list[Titled] = [
        (f"nDCG, {label}, by {what}", ("vectors", *columns), lines(label, columns))
        for what, columns in (
            ("weeks from training to use", by_gap),
            ("the item's age in weeks, all gaps", AGES),
        )
        for label in LABELS
    ]
    distance = {"a week": 1, "a month": len(months[0]["raw"]) - 1}
    cosines = [
        [arm, *(
            spread([float(np.diagonal(month[arm], gap).mean()) for month in months])
            for gap in distance.values()
        )]
        for arm in months[0]
    ]  # fmt: skip
    made.append(("Mean item cosine of two runs within a month", ("vectors", *distance), cosines))
    return made


def main(argv: Sequence[str] | None = None) -> list[Figures]:
    """Run the experiment; the figures of every seed."""
    parser = parser_of(
        "A re-ranker trained on one week's vectors and used on later weeks'.", seeds=range(5)
    )
    parser.add_argument(
        "--weeks", type=int, default=40, help="how many runs (the last of 41 has no labels)"
    )
    parser.add_argument("--components", type=int, default=16, help="of the shop's models")
    parser.add_argument("--heatmaps", type=Path, help="draw the heatmaps of the first seed there")
    parser.add_argument("--small", action="store_true", help="3 weeks, one seed, 8 components")
    options = parser.parse_args(argv)
    options.gaps, options.trained, options.month = GAPS, TRAINED, MONTH
    if options.small:
        options.seeds, options.weeks, options.components = options.seeds[:1], 3, 8
        options.gaps, options.trained, options.month = (1, 2), (0, 1), range(3)
    events = read_events(require_data(options.data, "online_retail/online_retail.csv.gz"))
    known = list(weeks(events, n_weeks=options.weeks))
    with threadpool_limits(1, "blas"):
        results = [measured(events, known, options, seed=seed) for seed in options.seeds]
    figures, months = [one for one, _ in results], [month for _, month in results]
    if options.heatmaps:
        labels = [known[number].name for number in options.month]
        picture = heatmaps_svg(
            list(months[0].items()), labels, title="Mean cosine of one item in two weeks"
        )
        options.heatmaps.write_text(picture, encoding="utf-8")
    about = (
        f"{len(figures)} seeds of all random starts; re-rankers trained after the weeks"
        f" {', '.join(map(str, options.trained))}, means over them; ± the standard deviation over"
        " the seeds."
    )
    report(
        2,
        command_line("reranker.py", argv),
        about,
        tables(figures, months, options.gaps),
        options.markdown,
    )
    return figures


if __name__ == "__main__":
    main()
