r"""Experiment 6: what one would do instead of a rotation, on the data of experiments 1 and 3, and
what it costs.

A new model's vectors must work with stored ones of the old model. One can do nothing; map the new
vectors by a rotation, by an unconstrained or a ridge map, by a small network or by canonical
correlations (`adapters.py`); or retrain, that is embed everything anew and rebuild whatever uses
it.

*Recommenders*: B is a later training than A. Half of the shared items (and users) decide, the
others are measured: mean cosine of B's mapped vectors with A's. *RBO*: overlap of A's items ranked
by A's users and by B's mapped users. *nDCG own*: items left out of B's training, found by B's
mapped users on B's mapped items; *nDCG mixed*: by B's mapped users on A's stored items. A rotation
acts on both tables; the other maps are found for each table alone, but for "users by the inverse",
which keeps the scores that the items' linear map would change. Canonical correlations move A's
vectors too.

*Texts* (`text_models.py`): queries of one model, mapped, on the documents of another,
nDCG@10 as in experiment 3, over the ceiling. Cost is CPU time of one process: of the fit, and of
mapping a million rows.

    python examples/alternatives.py [--data FOLDER] [--seeds 0 1 2] [--cache FOLDER] \
        [--markdown docs/experiments.md] [--small]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import dask_embstab as es
from dask_embstab.core.metrics.rankings import overlaps, rank_biased_overlap

sys.path.insert(
    0, str(Path(__file__).resolve().parent)
)  # also where the example is run by another program

import gmf
from adapters import ADAPTERS, Adapter, linear
from papers import (
    Rows,
    Titled,
    columns_of,
    command_line,
    mean_cosine,
    parser_of,
    report,
    require_data,
)
from recsys_table1 import LeftOut, leave_one_out, leave_one_out_quality
from text_models import Figures, embedding_seconds, text_tables, texts
from webshop import Events, Week, read_events, train, weeks

FIGURES = ("items", "users", "RBO", "nDCG own", "nDCG mixed")
COST = ("fit, CPU s", "1e6 rows, CPU s", "numbers kept")


@dataclass(frozen=True)
class Model:
    """Both tables of one training and their ids, ascending; what training did not see, and took."""

    items: Rows
    users: Rows
    item_ids: NDArray[Any]
    user_ids: NDArray[Any]
    left_out: LeftOut | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Matched:
    """Rows of the ids that two tables share; ``decides`` marks the half that decides."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    decides: NDArray[np.bool_]

    @classmethod
    def of(cls, a_ids: NDArray[Any], b_ids: NDArray[Any], *, seed: int) -> Matched:
        """Half of the shared ids, at random."""
        _, i, j = np.intersect1d(a_ids, b_ids, assume_unique=True, return_indices=True)
        return cls(i, j, np.random.default_rng((seed, 5)).permutation(len(i)) % 2 == 0)


def both_tables(
    name: str, a: Model, b: Model, items: Matched, users: Matched, seed: int
) -> tuple[Adapter, Adapter]:
    """The adapters of items and of users by the name of a method."""
    if name == "stabilized":
        return stabilized(a, b, items)
    base = name.partition(",")[0]
    x, y = b.items[items.b[items.decides]], a.items[items.a[items.decides]]
    of_items = ADAPTERS[base](x, y, seed)
    if base in ("nothing", "rotation"):
        return of_items, of_items
    if name == "linear map, users by the inverse":
        W = of_items.ours(np.eye(x.shape[1]))
        return of_items, linear(np.asarray(np.linalg.inv(W).T, np.float64))
    x, y = b.users[users.b[users.decides]], a.users[users.a[users.decides]]
    return of_items, ADAPTERS[base](x, y, seed)


METHODS = (
    "nothing",
    "rotation",
    "stabilized",
    "linear map",
    "linear map, users by the inverse",
    "ridge map",
    "MLP",
    "CCA",
)


def stabilized(a: Model, b: Model, items: Matched) -> tuple[Adapter, Adapter]:
    """`es.fit` in scores mode: A standardized, B standardized and rotated onto it."""
    first = es.fit(a.items, a.users)
    reference = es.table(first.transform_items(a.items), ids=a.item_ids)
    transform = es.fit(
        es.table(b.items, ids=b.item_ids),
        es.table(b.users, ids=b.user_ids),
        reference=reference,
        only=b.item_ids[items.b[items.decides]].tolist(),
    )
    size = first.items.size + transform.items.size
    return (
        Adapter(transform.transform_items, first.transform_items, size),
        Adapter(transform.transform_users, first.transform_users, size),
    )


def ranking_overlap(users: tuple[Rows, Rows], items: tuple[Rows, Rows], *, k: int = 100) -> float:
    """Mean RBO of two rankings of one list of items, by row i of either table of users."""
    k = min(k, len(items[0]))
    a, b = (
        np.argsort(-(u @ v.T), axis=1, kind="stable")[:, :k]
        for u, v in zip(users, items, strict=True)
    )
    return float(rank_biased_overlap(overlaps(a, b)).mean())


def measured(a: Model, b: Model, *, seed: int) -> dict[str, Figures]:
    """Figures and cost by method; retraining leaves nothing of A to compare with."""
    items = Matched.of(a.item_ids, b.item_ids, seed=seed)
    users = Matched.of(a.user_ids, b.user_ids, seed=seed)
    sampled = np.flatnonzero(~users.decides)[:300]
    by_map = {}
    for name in METHODS:
        began = time.process_time()
        of_items, of_users = both_tables(name, a, b, items, users, seed)
        seconds = time.process_time() - began
        a_items, b_items = of_items.theirs(a.items), of_items.ours(b.items)
        a_users, b_users = of_users.theirs(a.users), of_users.ours(b.users)
        tested = ~items.decides
        figures = {
            "items": mean_cosine(a_items[items.a[tested]], b_items[items.b[tested]]),
            "users": mean_cosine(
                a_users[users.a[~users.decides]], b_users[users.b[~users.decides]]
            ),
            "RBO": ranking_overlap(
                (a.users[users.a[sampled]], b_users[users.b[sampled]]), (a.items, a_items)
            ),
            **cost(seconds, of_items, b.items.shape[1]),
        }
        if b.left_out is not None:
            figures["nDCG own"] = leave_one_out_quality(b_users, b_items, b.left_out)[1]
            figures["nDCG mixed"] = mixed_quality(b_users, a_items, items, b.left_out)
        by_map[name] = figures
    by_map["retrain"] = retrained(a, b, items, users, sampled)
    return by_map


def retrained(
    a: Model, b: Model, items: Matched, users: Matched, sampled: NDArray[np.int64]
) -> Figures:
    """All of B in place of all of A: its own quality, and its own rankings of the shared items
    against A's.
    """
    rows = (a.users[users.a[sampled]], b.users[users.b[sampled]])
    figures = {"RBO": ranking_overlap(rows, (a.items[items.a], b.items[items.b]))}
    if b.left_out is not None:
        figures["nDCG own"] = leave_one_out_quality(b.users, b.items, b.left_out)[1]
    if b.seconds is not None:
        figures[COST[0]] = b.seconds
    return figures


def cost(seconds: float, adapter: Adapter, d: int, *, n: int = 4000) -> Figures:
    """Of the fit, of the map, and of what is kept for one table."""
    rows = np.ones((n, d))
    began = time.process_time()
    adapter.ours(rows)
    mapping = (time.process_time() - began) * 1e6 / n
    return {COST[0]: seconds, COST[1]: mapping, COST[2]: float(adapter.n_numbers)}


def mixed_quality(users: Rows, items: Rows, shared: Matched, left_out: LeftOut) -> float:
    """NDCG of B's left-out items that A has too, among the items of both."""
    column = np.full(left_out.seen.shape[1], -1)
    column[shared.b] = np.arange(len(shared.b))
    known = np.flatnonzero(column[left_out.items] >= 0)
    narrowed = LeftOut(column[left_out.items[known]], left_out.seen[np.ix_(known, shared.b)])
    return leave_one_out_quality(users[known], items[shared.a], narrowed)[1]


def shop_models(
    events: Events, numbers: Sequence[int], *, seed: int, components: int
) -> list[Model]:
    """Two weeks of the web shop, one item of every customer left out of each."""
    known = list(weeks(events, n_weeks=max(numbers) + 1))

    def trained(week: Week) -> Model:
        kept, left_out = leave_one_out(week, seed=seed)
        began = time.process_time()
        factors = train(kept, seed=seed, components=components)
        seconds = time.process_time() - began
        rows = factors.items.astype(np.float64), factors.users.astype(np.float64)
        return Model(*rows, week.item_ids, week.user_ids, left_out, seconds)

    return [trained(known[number]) for number in numbers]


def gmf_model(path: Path) -> Model:
    """One training of GMF, the weight folded into the items."""
    with np.load(path) as stored:
        items = (stored["items"] * stored["weight"]).astype(np.float64)
        users = stored["users"].astype(np.float64)
    return Model(items, users, np.arange(len(items)), np.arange(len(users)))


def recommenders(options: Any) -> dict[str, list[dict[str, Figures]]]:
    """Figures of every repetition by pair of trainings."""
    events = read_events(require_data(options.data, "online_retail/online_retail.csv.gz"))
    folder = require_data(options.data, "gmf/gmf_a.npz").parent
    trained = {name: gmf_model(folder / f"gmf_{name}.npz") for name in gmf.NAMES}
    results: dict[str, list[dict[str, Figures]]] = {
        f"GMF, a and {name}": [
            measured(trained["a"], trained[name], seed=seed) for seed in options.seeds
        ]
        for name in gmf.NAMES[1:]
        if not options.small
    }
    for seed in options.seeds:
        first, *later = shop_models(
            events, options.weeks, seed=seed, components=options.components
        )  # fmt: skip
        for number, model in zip(options.weeks[1:], later, strict=True):
            gap = number - options.weeks[0]
            name = f"web shop, {gap} week{'s' if gap > 1 else ''} later"
            results.setdefault(name, []).append(measured(first, model, seed=seed))
    return results


def recommender_lines(results: Mapping[str, Sequence[Mapping[str, Figures]]]) -> list[list[str]]:
    """A line per pair of trainings and method."""
    made = []
    for data, repetitions in results.items():
        for name in (*METHODS, "retrain"):
            figures = [one[name] for one in repetitions]
            costs = [
                f"{statistics.fmean(one[key] for one in figures):.{digits}f}"
                if key in figures[0]
                else "-"
                for key, digits in zip(COST, (2, 2, 0), strict=True)
            ]
            made.append([data, name, *columns_of(figures, FIGURES), *costs])
    return made


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the experiment; the figures of every repetition: of recommenders, of texts."""
    parser = parser_of("What one would do instead of a rotation.")
    parser.add_argument("--weeks", type=int, nargs="+", default=[12, 13, 16], help="A, then B's")
    parser.add_argument("--components", type=int, default=32, help="of the web shop's models")
    parser.add_argument("--shared", type=int, nargs="+", default=[200])
    parser.add_argument("--cache", type=Path, help="a folder to keep MiniLM's vectors in")
    parser.add_argument(
        "--small", action="store_true", help="weeks 0 and 1, LSA alone, one seed, no GMF"
    )
    options = parser.parse_args(argv)
    if options.small:
        options.seeds, options.weeks, options.components = options.seeds[:1], [0, 1], 8
        options.shared = []
    with threadpool_limits(1, "blas"):
        trainings, collections = recommenders(options), texts(options)
    header = ("trainings", "method", *FIGURES, *COST)
    tables: list[Titled] = [
        ("Recommenders", header, recommender_lines(trainings)),
        *text_tables(collections),
    ]
    about = (
        f"{len(options.seeds)} repetitions; mean ± standard deviation over them. To embed Cranfield"
        f" anew takes {embedding_seconds(options)} of CPU."
    )
    report(6, command_line("alternatives.py", argv), about, tables, options.markdown)
    return {"recommenders": trainings, "texts": collections}


if __name__ == "__main__":
    main()
