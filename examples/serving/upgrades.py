"""A model was retrained and an index holds the vectors of before: what does each way of going on
find, of what a rebuilt index would?

Two factorizations of the web shop, four weeks apart (as trained, and stabilized), and text models
on Cranfield. For every pair: recall@10 of the new model's own queries against the index that is
left as it is, through a bridge, in an index of usearch whose vectors were moved by one matrix, and
while a backfill has moved 10, 50 and 90 % of the rows.

    python examples/serving/upgrades.py [--data FOLDER] [--small]
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import dask_embstab as es

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from papers import parser_of, require_data, show
from text_vectors import models, read_collection
from webshop import default_file, read_events, train, weeks, write

K = 10
Pair = tuple[str, es.Run, es.Run, Any]
"""A name, the run in the index, the retrained one, and its queries (None: its users)."""


def shop_pairs(folder: Path, data: Path | None) -> Iterator[Pair]:
    """Two weeks of the web shop, four weeks apart."""
    months = list(weeks(read_events(default_file(data)), n_weeks=5))
    old, new = (
        write(folder / f"week-{n}", months[n], train(months[n], seed=n))
        for n in (0, len(months) - 1)
    )
    yield "web shop, as trained", old, new, None
    first = es.stabilize(old, folder / "first")
    yield "web shop, stabilized", first, es.stabilize(new, folder / "last", reference=first), None


def text_pairs(folder: Path, data: Path | None, *, small: bool) -> Iterator[Pair]:
    """Every two text models, the queries those of the collection."""
    collection = read_collection(require_data(data, "text/cran.tar.gz"))
    made = models(collection, seed=0, cache=None, small=small)
    ids = np.arange(len(collection.documents))
    runs = {
        name: es.create_run(folder / name.replace(" ", "-"), model.documents, item_ids=ids)
        for name, model in made.items()
    }
    for old, new in itertools.pairwise(runs):
        yield f"{old} to {new}", runs[old], runs[new], made[new].queries


def recall_of(run: es.Run, queries: Any, rows: Any) -> float:
    """The share of the exact answers of the new run."""
    _, exact = es.search(es.table(queries), run, K, metric="dot" if run.users else "cosine")
    return float(
        np.mean(
            [len(set(a) & set(b)) / K for a, b in zip(exact.tolist(), rows.tolist(), strict=True)]
        )
    )


def measured(folder: Path, name: str, old: es.Run, new: es.Run, queries: Any) -> list[str]:
    """One line of the table."""
    plan = es.upgrade_plan(old, new, k=K, queries=queries)
    asked = np.asarray(new.users.vectors) if queries is None and new.users else queries
    es.export(old, folder / "index", format="usearch", table="items", metric=plan.metric)
    moved = backfilled = ""
    if plan.transform is not None:
        es.upgrade_index(folder / "index", folder / "moved", plan.transform.inverse(), space=new)
        _, ids = es.query_index(folder / "moved", asked, k=K, space=new)
        moved = f"{recall_of(new, asked, ids):.3f}"
        rows = -(-new.table("items").n_rows // 10)
        moving = es.begin_backfill(folder / "moving", folder / "index", old, new, part_rows=rows)
        shares = []
        for part in range(10):
            if part in (1, 5, 9):
                shares.append(recall_of(new, asked, moving.search(asked, K)[1]))
            moving.step()
        backfilled = ", ".join(f"{share:.3f}" for share in shares)
    cells = [
        "" if one is None else f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})"
        for one in (plan.leave, plan.bridge)
    ]
    return [name, *cells, moved, backfilled, plan.decision]


def main() -> None:
    """Measure every pair."""
    parser = parser_of(str(__doc__).partition("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="latent semantic analysis alone")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        pairs = (
            *shop_pairs(root, options.data),
            *text_pairs(root, options.data, small=options.small),
        )
        for number, (name, old, new, queries) in enumerate(pairs):
            (root / str(number)).mkdir()
            lines.append(measured(root / str(number), name, old, new, queries))
    header = ["pair", "left", "bridge", "moved", "backfill at 10, 50, 90 %", "plan"]
    show([(f"recall@{K} of the new model's queries", header, lines)])


if __name__ == "__main__":
    main()
