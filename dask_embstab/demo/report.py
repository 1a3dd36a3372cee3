"""What the demonstration shows people: its page, its heat maps and its lines of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dask_embstab.demo.table1 import HEADER, LEGEND, ROWS_HEADER, ROWS_LEGEND, Row
from dask_embstab.demo.world import World
from dask_embstab.render.figures import sections_of
from dask_embstab.render.heatmap import heatmaps_svg
from dask_embstab.render.html import Key, Section, Verdict, page, paragraph, table
from dask_embstab.render.likeness import day_heatmaps
from dask_embstab.tables.layout import TABLES

Days = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""Mean same-id cosines between all days, ``before`` and ``after``, by table."""


def heatmaps(names: Sequence[str], days: Days) -> str:
    """Mean same-id cosines between all days, as one SVG."""
    panels = [(f"{key}, {when}", days[when][key]) for key in TABLES for when in days]
    return heatmaps_svg(
        panels, names, title="Mean cosine of the same items, and of the same users, on two days"
    )


def report_page(
    world: World, rows: Sequence[Row], change: float, names: Sequence[str], days: Days
) -> str:
    """The report for people."""
    about = (
        f"A simulated service of {world.n_users:,} users and {world.n_items:,} items trains its"
        f" recommender anew on each of {world.n_days} days, from a random start every time. In"
        f" between, tastes drift and {world.share_replaced:.0%} of the items are replaced. Every"
        " run was then aligned to the first day's."
    )
    figures = [
        day_heatmaps(
            key,
            names,
            days["before"][key].tolist(),
            days["after"][key].tolist(),
            of=len(names),
        )
        for key in TABLES
    ]
    return page(
        "Embeddings of a daily retrained model, before and after stabilizing",
        [
            *sections_of({"All days against each other": figures}, "f"),
            Section(
                "Each day against the first",
                (
                    table(("day", *HEADER), [row.cells() for row in rows]),
                    *map(paragraph, LEGEND),
                    table(("day", *ROWS_HEADER), [row.counts() for row in rows]),
                    paragraph(ROWS_LEGEND),
                    paragraph(scores_kept(change)),
                ),
            ),
        ],
        _verdict(rows, change, about),
    )


def _verdict(rows: Sequence[Row], change: float, about: str) -> Verdict:
    """What stabilizing did to the last day, in three figures."""
    before, after = rows[-1].before, rows[-1].after
    keys = tuple(
        Key(
            name,
            f"{getattr(after, key):.2f}",
            f"good is near {'1' if key != 'rbo' else f'that of retraining, {after.retrained:.2f}'}",
            bool(getattr(after, key) > getattr(before, key)),
            f"{meaning}; before stabilizing {getattr(before, key):z.2f}.",
        )
        for key, name, meaning in (
            ("items", "The same items agree", "Mean cosine of the last day's with the first day's"),
            ("users", "The same users agree", "Mean cosine of the last day's with the first day's"),
            ("rbo", "Rankings stay", "Overlap of the first day's items by users of both days"),
        )
    )
    is_well = all(key.is_good for key in keys)
    line = "Days are comparable after stabilizing" if is_well else "Stabilizing did not help here"
    return Verdict(is_well, line, keys, (about, scores_kept(change)))


def scores_kept(change: float) -> str:
    """How little stabilizing changed scores."""
    return (
        f"Scores are kept: the largest change of a sampled score is {change:.1e} of the largest"
        " score."
    )


def rows_line(row: Row) -> str:
    """Over how many rows the means of one day are."""
    known = row.after.rows
    tables = ", ".join(
        f"{known[key]['rows']} {key} ({known[key]['zero_rows']} of zeros left out)"
        for key in TABLES
    )
    return f"{row.name}: means over {tables}; rankings of {known['rbo']['users']} users"
