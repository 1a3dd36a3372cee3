"""What `evaluate` measured, as lines for a person to read: the figures that say most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dask_embstab.core.metrics.estimates import Estimate
from dask_embstab.passes.evaluate.results import (
    Judged,
    Metrics,
    RankingAgreement,
    Retrieval,
    TableMetrics,
)
from dask_embstab.passes.evaluate.skew import Skew
from dask_embstab.render.code_page import (
    code_label,
    frontier_cells,
    frontier_header,
    part_names,
)
from dask_embstab.render.table import text_table
from dask_embstab.tables.layout import TABLES

_LISTED = 5
_LISTS = {
    "stale_queries": "B's items by A's {queries}, found by B's own",
    "stale_table": "A's items by B's {queries}, found by A's own",
    "retrained": "each run's own items by its own {queries}",
}


def comparison_lines(metrics: Metrics) -> list[str]:
    """A few lines for each table, for top lists and for judgments; JSON has all of it."""
    lines: list[str] = []
    for key in TABLES:
        if (table := getattr(metrics, key)) is not None:
            lines += _table(key, table)
        elif key in metrics.unmeasured:
            lines.append(f"{key}: not measured: {metrics.unmeasured[key]}")
    if metrics.retrieval is not None:
        lines += _retrieval(metrics.retrieval)
    if metrics.judged is not None:
        lines += _judged(metrics.judged)
    return lines


def skew_lines(skew: Skew) -> list[str]:
    """The matrix of recalls as a table."""
    width = max(len(f"{number}") for number in skew.versions) + 8
    head = "".join(f"{f'on {number}':>{width}}" for number in skew.versions)
    lines = [
        f"recall@{skew.k} by {skew.metric} of {skew.sampled} {skew.queries}:",
        f"{'':{width}}{head}{'on a mixture':>{width + 6}}",
    ]
    for number, line, mixed in zip(skew.versions, skew.recall, skew.mixed, strict=True):
        cells = "".join(f"{one.mean:>{width}.4f}" for one in line)
        lines.append(f"{f'from {number}':<{width}}{cells}{mixed.mean:>{width + 6}.4f}")

    return lines


def frontier_lines(frontier: Mapping[str, Any]) -> list[str]:
    """What every code keeps, and the one that a budget chose (`Frontier.to_dict`)."""
    k, chosen, sure = frontier["k"], frontier["chosen"], frontier["certified"]
    parts = part_names(frontier["entries"])
    rows = [
        [f"{cell:.4g}" if isinstance(cell, float) else cell for cell in frontier_cells(one, parts)]
        for one in frontier["entries"]
    ]
    measured = (
        f"measured on {frontier['n_queries']} queries and {frontier['n_items']} items; the best of"
        " a rescored code are ranked anew by rows of float16"
    )
    lines = [*text_table(frontier_header(k, parts), rows).splitlines(), measured]
    if chosen is None:
        return lines
    certain = f"(95 % interval {sure['low']:.4f} to {sure['high']:.4f})"
    what = f"{sure['n']} other queries {sure['mean']:.4f} {certain}"
    over = (
        f"relative error of scores with {what}"
        if str(frontier.get("budget")).startswith("score_error")
        else f"recall@{k} over all items, of {what}"
    )
    return [*lines, f"chosen: {code_label(chosen)}, {chosen['n_bytes']} bytes a row; {over}"]


def _table(key: str, table: TableMetrics) -> Iterator[str]:
    yield (
        f"{key}: {table.matched} matched ({table.zero_rows} left out as zeros),"
        f" {table.unmatched_a} in A alone, {table.unmatched_b} in B alone"
    )
    if table.cosine is None or table.norms is None or table.alignment is None:
        return

    cosine, norms = table.cosine, table.norms
    yield (
        f"  mean cosine {table.mean_cosine:.4f} (10th percentile {cosine.percentiles['10']:.4f},"
        f" median {cosine.percentiles['50']:.4f}; {cosine.ceiling:.4f} after the best rotation)"
    )
    yield (
        f"  beyond chance {cosine.beyond_chance:.4f}, share of rows at chance"
        f" {cosine.share_at_chance:.2%}"
    )
    yield (
        f"  norm ratio {table.norm_ratio:.4f} (medians {norms.ratio_of_medians:.4f}), linear CKA"
        f" {table.cka:.4f}, relative alignment error {table.alignment.relative_error:.4f}"
    )
    for name, group in (table.groups or {}).items():
        yield (
            f"  {name}: mean cosine {group.mean_cosine:.4f}, norm ratio {group.norm_ratio:.4f},"
            f" {group.rows} rows"
        )

    if table.most_moved:
        named = ", ".join(f"{one.id} ({one.cosine:.3f})" for one in table.most_moved[:_LISTED])
        yield f"  moved most: {named}"


def _retrieval(retrieval: Retrieval) -> Iterator[str]:
    yield (
        f"top {retrieval.k} of {retrieval.n_ranked} by {retrieval.metric}, {retrieval.sampled} of"
        f" {retrieval.population} {retrieval.queries} sampled (95 % intervals of what was sampled):"
    )
    if not retrieval.k:
        return

    for name, text in _LISTS.items():
        agreement: RankingAgreement | None = getattr(retrieval, name)
        if agreement is None:
            continue
        yield (
            f"  {text.format(queries=retrieval.queries)}: {_recall(retrieval, agreement)},"
            f" rank-biased overlap {_text(agreement.rbo)}"
        )
        for group, one in (agreement.groups or {}).items():
            yield f"    {group}: {_recall(retrieval, one)}, {one.rbo.n} {retrieval.queries}"


def _judged(judged: Judged) -> Iterator[str]:
    yield (
        f"judged queries: {judged.queries}, {judged.unknown_queries} not in both runs,"
        f" {judged.without_relevant} without a relevant item"
    )
    names = {"a": "A", "b": "B", "stale_queries": "A's queries on B", "stale_table": "B's on A"}
    for key, name in names.items():
        figures = getattr(judged, key)
        shown = (_by_depth(metric, getattr(figures, metric)) for metric in ("ndcg", "recall"))
        yield f"  {name}: {', '.join(shown)}"


def _recall(retrieval: Retrieval, agreement: RankingAgreement) -> str:
    """At the depth that says most and at the lists' end, if that is not the end of all items."""
    ends = {retrieval.k} - {retrieval.n_ranked}
    depths = sorted({retrieval.depth} - {0} | ends)
    shown = (f"recall@{depth} {_text(agreement.recall[depth])}" for depth in depths)
    return ", ".join(shown) if depths else "recall of all items is not informative"


def _by_depth(name: str, values: Mapping[int, Estimate]) -> str:
    """At depth 10, where the lists are so long, and at their end."""
    depths = sorted({depth for depth in values if depth == 10} | {max(values)}) if values else []
    return ", ".join(f"{name}@{depth} {_text(values[depth])}" for depth in depths)


def _text(value: Any) -> str:
    interval = f" ({value.low:.4f} to {value.high:.4f})" if value.low < value.high else ""
    return f"{value.mean:.4f}{interval}"
