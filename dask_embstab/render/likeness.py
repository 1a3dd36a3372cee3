"""Figures of how like rows with one id are: between many days, and between two runs.

They are drawn from plain values, of the names that `evaluate` and a series' report give them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dask_embstab.render.charts import (
    Line,
    columns,
    heatmap,
    histogram,
    line_chart,
    ranked_bars,
)
from dask_embstab.render.figures import Absent, Figure, merged
from dask_embstab.render.marks import shortened
from dask_embstab.render.table import Cell

_MOST_MOVED = 24
"""Ids that a page lists, however many were asked for."""
_MOST_COMPONENTS = 128
_COLUMNS = {
    "cosine": "cosine",
    "distance": "distance",
    "norm_a": "length, first",
    "norm_b": "length, second",
}
Shown = Figure | Absent


def day_heatmaps(
    key: str, names: Sequence[str], before: Sequence[Any], after: Sequence[Any], *, of: int
) -> Figure:
    """Mean same-id cosines of all pairs of days, as training left them and as published."""
    means = [_mean_apart(matrix) for matrix in (before, after)]
    thin = "" if of <= len(names) else f" Of {of} runs these {len(names)} are shown, evenly spread."
    rows = tuple(
        (name, *((before if j < i else after)[i][j] for j in range(len(names))))
        for i, name in enumerate(names)
    )
    return Figure(
        f"The same {key} on two days",
        f"Two heat maps of the mean cosine of the same {key} between {len(names)} days. Off the"
        f" diagonal the mean is {as_text(means[0])} before and {as_text(means[1])} after"
        " stabilizing.",
        "Each square is the mean cosine of the vectors that the same ids have on two days: dark"
        " (on a dark page, bright) is 1, the same space. Before, all but the diagonal is near 0;"
        f" after, it should be even, and fade slowly with the days between.{thin}"
        " In the table, before is below the diagonal, after above.",
        (
            heatmap(names, before, name="Before: as trained"),
            heatmap(names, after, name="After: stabilized"),
        ),
        ("run", *names),
        rows,
    )


def cosine_by_gap(key: str, by_gap: Sequence[Mapping[str, Any]]) -> Figure:
    """Cosine against the number of runs between, with the ceiling of a rotation per pair."""
    names = [str(one["gap"]) for one in by_gap]
    lines = [
        Line(name, [one[column] for one in by_gap])
        for name, column in (
            ("stabilized", "stabilized"),
            ("ceiling", "ceiling"),
            ("as trained", "as_trained"),
        )
    ]
    first = by_gap[0]
    return Figure(
        f"Cosine of the same {key} by distance",
        f"At {first['gap']} run apart the mean cosine is {as_text(first['stabilized'])}, its"
        f" ceiling {as_text(first['ceiling'])}; as trained it is {as_text(first['as_trained'])}.",
        "Mean cosine of the same ids against how many runs lie between: the nearer the solid line"
        " is to the ceiling (the best rotation for each pair alone), the less the series gives away"
        " for keeping all runs in one space.",
        (line_chart(names, lines, unit="mean cosine, by runs between", ends=(0.0, 1.0)),),
        ("runs between", "pairs", "as trained", "stabilized", "ceiling"),
        tuple(
            (one["gap"], one["pairs"], one["as_trained"], one["stabilized"], one["ceiling"])
            for one in by_gap
        ),
    )


def skew_heatmap(skew: Mapping[str, Any]) -> Figure:
    """Queries of each version on the table of each, and on one mixed of all."""
    names, k = [shortened(str(run)) for run in skew["runs"]], skew["k"]
    recall = [[one["mean"] for one in row] for row in skew["recall"]]
    mixed = [one["mean"] for one in skew["mixed"]]
    rows = [[*row, on_mixed] for row, on_mixed in zip(recall, mixed, strict=True)]
    across = [*names, "mixed"]
    return Figure(
        "Version skew: old queries on new items",
        f"A heat map of recall at {k} between {len(names)} versions; between different versions the"
        f" mean is {as_text(_mean_apart(recall))}, on a table mixed of all"
        f" {as_text(sum(mixed) / len(mixed))}.",
        f"Each square is the share of the best {k} items of the column's version that the row's"
        f" {skew['queries']} find, of what the column's own find: off the diagonal, near 1 means"
        " that versions may mix. The last column is a table that holds items of all versions. Over"
        f" {skew['sampled']} sampled {skew['queries']}, ranked by {skew['metric']}.",
        (heatmap(names, rows, across=across, name=f"Recall at {k}"),),
        ("queries of", *(f"items of {name}" for name in names), "a mixed table"),
        tuple((name, *values) for name, values in zip(names, rows, strict=True)),
    )


def cosine_histogram(key: str, figures: Mapping[str, Any], between: str) -> Shown:
    """The distribution of the same-id cosines of two runs."""
    title, cosine = f"Cosines of the same {key}", figures.get("cosine")
    if not cosine:
        return Absent(title, f"no row of {between} has the same id and a direction in both.")
    counts = cosine["histogram"]
    edges = [-1 + 2 * k / len(counts) for k in range(len(counts) + 1)]
    ceiling = cosine.get("ceiling")
    points = [("mean", figures["mean_cosine"]), ("ceiling", ceiling), ("chance", cosine["chance"])]
    total = sum(counts)
    return Figure(
        title,
        f"A histogram of {total} cosines between {between}: mean {as_text(figures['mean_cosine'])},"
        f" chance {as_text(cosine['chance'])}, ceiling of a rotation {as_text(ceiling)}.",
        f"How many rows have which cosine with the row of the same id, between {between}: a heap at"
        " the right is good; near the line of chance are ids that have nothing to do with their"
        " former vectors.",
        (histogram(edges, counts, unit="share of rows, by cosine", points=points),),
        ("cosine from", "to", "rows"),
        (
            ("mean", figures["mean_cosine"], total),
            ("chance", cosine["chance"], None),
            ("ceiling", ceiling, None),
            *(
                (f"{edges[k]:.2f}", f"{edges[k + 1]:.2f}", count)
                for k, count in enumerate(counts)
                if count
            ),
        ),
    )


def component_figure(key: str, figures: Mapping[str, Any], between: str) -> Shown:
    """Correlation and share of energy of every component."""
    title, known = f"Components of the {key}", figures.get("components")
    if not known:
        return Absent(title, "no rows with a direction are shared.")
    correlation, a, b = known["correlation"], known["share_a"], known["share_b"]
    names = [str(k + 1) for k in range(min(len(correlation), _MOST_COMPONENTS))]
    lowest = min((c for c in correlation if c is not None), default=None)
    return Figure(
        title,
        f"The correlation of each of {len(correlation)} components between {between}, the lowest"
        f" {as_text(lowest)}, and the share of the sum of squares that each holds.",
        f"A component's correlation between {between} should be well above 0: one far below 0 is"
        " mirrored, and one near 0 points elsewhere now. Its share says how much hangs on it.",
        (
            line_chart(
                names,
                [Line("correlation", correlation[:_MOST_COMPONENTS])],
                unit="correlation, by component",
                ends=(0.0, 1.0),
            ),
            line_chart(
                names,
                [
                    Line("first", a[:_MOST_COMPONENTS]),
                    Line("second", b[:_MOST_COMPONENTS]),
                ],
                unit="share of squares, by component",
                ends=(0.0,),
            ),
        ),
        ("component", "correlation", "share, first", "share, second"),
        tuple((k + 1, correlation[k], a[k], b[k]) for k in range(min(len(a), _MOST_COMPONENTS))),
    )


def moved_figures(by_table: Mapping[str, Mapping[str, Any]], between: str) -> list[Shown]:
    """The ids of the lowest cosines and of the farthest vectors, by table."""
    shown: list[Shown] = []
    for title, name, column, reading in (
        (
            "Worst ids: lowest cosine",
            "lowest_cosine",
            "cosine",
            (
                f"These ids point elsewhere in one of {between} than in the other: look whether"
                " their data changed."
            ),
        ),
        (
            "Most moved ids: distance",
            "farthest",
            "distance",
            (
                f"The vectors of these ids lie farthest apart in {between}, by direction or length;"
                " of a sample of rows."
            ),
        ),
    ):
        known = {key: listed[name] for key, listed in by_table.items() if listed.get(name)}
        shown += merged(
            title, {key: _moved(title, one, column, reading) for key, one in known.items()}
        )
    return shown


def _moved(title: str, moved: Sequence[Mapping[str, Any]], column: str, reading: str) -> Figure:
    n, moved = len(moved), moved[:_MOST_MOVED]
    header = [name for name in _COLUMNS if name in moved[0]]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (shortened(str(one["id"])), *(one[name] for name in header)) for one in moved
    )
    names, values = [str(one["id"]) for one in moved], [one[column] for one in moved]
    return Figure(
        title,
        f"Bars of {len(moved)} of {n} ids; the first has {as_text(values[0])}.",
        reading,
        (ranked_bars(names, values, unit=column),),
        ("id", *(_COLUMNS[name] for name in header)),
        rows,
    )


def share_columns(
    title: str, shares: Sequence[float], reading: str, *, unit: str = "share"
) -> Figure:
    """What each component explains."""
    shown = shares[:_MOST_COMPONENTS]
    return Figure(
        title,
        f"Columns of {len(shares)} components; the first explains {as_text(shares[0])}.",
        reading,
        (columns([str(k + 1) for k in range(len(shown))], shown, unit=unit),),
        ("component", "share"),
        tuple((k + 1, share) for k, share in enumerate(shown)),
    )


def _mean_apart(matrix: Sequence[Sequence[float | None]]) -> float | None:
    """Mean off the diagonal."""
    known = [
        value
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
        if i != j and value is not None
    ]
    return sum(known) / len(known) if known else None


def as_text(value: float | None) -> str:
    """A figure in a sentence."""
    return "unknown" if value is None else f"{value:.3g}"
