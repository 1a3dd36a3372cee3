"""Experiment 1: table 1 of "Orthogonal low rank embedding stabilization" (arXiv 2508.07574) on real
recommenders.

Three trainings A, B and C of one model. A run of each is compared with A's as trained, after
Procrustes alone (one rotation for both tables, found on the items both have) and stabilized
(standardized, then rotated). *users*, *items*: mean cosine of the vectors of one id. *RBO*:
rank-biased overlap of two rankings of A's items, by A's users and by the other run's users;
*retrained* is that of each run's own rankings, which no alignment changes.

*GMF*: the three trainings of `examples/gmf.py`. *Web shop*: A is the factorization of the 90 days
up to one week, B that of a week later, C that of four weeks later (`examples/webshop.py`). There
one item of every customer is left out of each training, at random, and searched among all items
that the customer did not buy: hit rate and nDCG in the first 10 places, by the run's own users and
items. The ratings behind GMF are not in the data. *Score change* is the largest change of a score
over the largest score.

    python examples/recsys_table1.py [--data FOLDER] [--seeds 0 1 2] [--weeks 12 13 16]
    [--markdown docs/experiments.md] [--small]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

import dask_embstab as es
from dask_embstab.demo.table1 import compare, score_change

sys.path.insert(
    0, str(Path(__file__).resolve().parent)
)  # also where the example is run by another program

import gmf
from papers import Rows, Titled, columns_of, command_line, parser_of, ranks_of, report, require_data
from webshop import Events, Week, read_events, train, weeks, write

FORMS = ("raw", "Procrustes", "stabilized")
FIGURES = ("users", "items", "RBO", "retrained", "hit rate@10", "nDCG@10", "score change")


@dataclass(frozen=True)
class LeftOut:
    """One item of every customer: customer k bought number ``items[k]``, which training did not
    see; ``seen`` (customers, items) is what it saw.
    """

    items: NDArray[np.int64]
    seen: NDArray[np.bool_]


def leave_one_out(week: Week, *, seed: int) -> tuple[Week, LeftOut]:
    """A week without one item of every customer, all events of the two."""
    rng = np.random.default_rng((seed, 2))
    counts = week.interactions.tocsr()
    chosen = np.array([rng.choice(counts[[user]].indices) for user in range(counts.shape[0])])
    kept = counts.toarray()
    kept[np.arange(len(kept)), chosen] = 0
    return replace(week, interactions=sparse.csr_array(kept)), LeftOut(chosen, kept > 0)


def leave_one_out_quality(users: Rows, items: Rows, left_out: LeftOut) -> tuple[float, float]:
    """Hit rate and nDCG in the first 10 places, over customers whose item is left with any."""
    scores = np.where(left_out.seen, -np.inf, users @ items.T)
    ranks = ranks_of(scores, left_out.items)
    return float(np.mean(ranks < 10)), float(np.mean((ranks < 10) / np.log2(ranks + 2)))


def rows_of(run: es.Run, key: str) -> Rows:
    """A small table in memory."""
    return np.asarray(run.table(key).vectors, np.float64)


def forms_of(raw: Sequence[es.Run], place: Path) -> dict[str, list[es.Run]]:
    """The runs by form, the first one of which the others are aligned to."""
    first = es.stabilize(raw[0], place / "first")
    return {
        "raw": list(raw),
        "Procrustes": [
            raw[0],
            *(
                es.stabilize(run, place / f"{k}-rotated", reference=raw[0], keep="geometry")
                for k, run in enumerate(raw[1:])
            ),
        ],
        "stabilized": [
            first,
            *(
                es.stabilize(run, place / f"{k}-stabilized", reference=first)
                for k, run in enumerate(raw[1:])
            ),
        ],
    }


def measured(
    raw: Sequence[es.Run], place: Path, left_out: Sequence[LeftOut] | None = None
) -> dict[tuple[str, str], dict[str, float]]:
    """Figures by pair of runs and form."""
    table = {}
    for form, runs in forms_of(raw, place).items():
        for k, name in enumerate("BC"[: len(raw) - 1], 1):
            row = compare(runs[0], runs[k])
            figures = {
                "users": row.users, "items": row.items, "RBO": row.rbo, "retrained": row.retrained,
                "score change": score_change(raw[k], runs[k]),
            }  # fmt: skip
            if left_out is not None:
                users, items = rows_of(runs[k], "users"), rows_of(runs[k], "items")
                hits, gain = leave_one_out_quality(users, items, left_out[k])
                figures |= {"hit rate@10": hits, "nDCG@10": gain}
            table[f"A-{name}", form] = figures
    return table


def of_shop(
    events: Events, numbers: Sequence[int], *, seed: int, components: int
) -> dict[tuple[str, str], dict[str, float]]:
    """Three weeks of one start."""
    with tempfile.TemporaryDirectory() as scratch:
        known = list(weeks(events, n_weeks=max(numbers) + 1))
        left = [leave_one_out(known[number], seed=seed) for number in numbers]
        raw = [
            write(Path(scratch), week, train(week, seed=seed, components=components))
            for week, _ in left
        ]
        return measured(raw, Path(scratch), [left_out for _, left_out in left])


def of_gmf(folder: Path, names: Sequence[str]) -> dict[tuple[str, str], dict[str, float]]:
    """The three trainings of GMF."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        raw = [gmf.create(folder / f"gmf_{name}.npz", place / f"{name}.zarr") for name in names]
        return measured(raw, place)


def lines(seeds: Sequence[Mapping[tuple[str, str], Mapping[str, float]]]) -> list[list[str]]:
    """A line per pair of runs and form; scores change by rounding alone, shown in powers of ten."""
    made = []
    for key in seeds[0]:
        figures = [one[key] for one in seeds]
        change = max(one["score change"] for one in figures)
        made.append([*key, *columns_of(figures, FIGURES[:-1]), f"{change:.0e}" if change else "0"])
    return made


def main(
    argv: Sequence[str] | None = None,
) -> dict[str, list[dict[tuple[str, str], dict[str, float]]]]:
    """Run the experiment; the figures of every repetition by data set."""
    parser = parser_of("Table 1 of the first paper on real recommenders.")
    parser.add_argument(
        "--weeks", type=int, nargs="+", default=[12, 13, 16], help="numbers of A, B and C"
    )
    parser.add_argument("--components", type=int, default=32, help="of the web shop's models")
    parser.add_argument(
        "--small", action="store_true", help="A and B alone, one seed, 8 components"
    )
    options = parser.parse_args(argv)
    if options.small:
        options.seeds, options.weeks, options.components = options.seeds[:1], [0, 1], 8
    events = read_events(require_data(options.data, "online_retail/online_retail.csv.gz"))
    folder = require_data(options.data, "gmf/gmf_a.npz").parent
    with threadpool_limits(1, "blas"):
        results = {
            "GMF": [of_gmf(folder, gmf.NAMES[: len(options.weeks)])],
            "Web shop": [
                of_shop(events, options.weeks, seed=seed, components=options.components)
                for seed in options.seeds
            ],
        }
    header = ("runs", "form", *FIGURES)
    tables: list[Titled] = [(name, header, lines(one)) for name, one in results.items()]
    about = (
        f"GMF: one set of runs. Web shop: {len(options.seeds)} sets of starts and of left-out"
        f" items, weeks {', '.join(map(str, options.weeks))}; mean ± standard deviation over them."
    )
    report(1, command_line("recsys_table1.py", argv), about, tables, options.markdown)
    return results


if __name__ == "__main__":
    main()
