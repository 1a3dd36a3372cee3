"""What `evaluate` returns: plain values, and how they print."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dask_embstab.core.metrics.agreement import (
    ComponentFigures,
    CosineFigures,
    GroupFigures,
    NormFigures,
)
from dask_embstab.core.metrics.estimates import Estimate
from dask_embstab.core.procrustes import Alignment
from dask_embstab.display import Displayed
from dask_embstab.tables.layout import TABLES

Id = int | str
ByDepth = dict[int, Estimate]


@dataclass(frozen=True, slots=True)
class Moved:
    """One id, the cosine of its two rows, and their lengths."""

    id: Id
    cosine: float
    norm_a: float
    norm_b: float


@dataclass(frozen=True, slots=True)
class TableMetrics:
    """Rows of both runs with one id: their mean cosine, and the second run's mean length over the
    first's.

    ``matched`` rows have an id that both runs have. Both means are over ``rows`` of them:
    ``zero_rows`` were left out, since the row of one run (or of both) is zeros and has no
    direction. ``unmatched_a`` and ``unmatched_b`` rows have an id that the other run does not have.
    Without any row the means are not numbers (null in JSON), and what follows is None.

    ``cosine``, ``norms`` and ``components`` say more of these rows; ``cka`` is linear CKA,
    ``alignment`` the exact alignment error and its bounds. ``groups`` are those of the user's
    column, ``most_moved`` the ids of the smallest cosines.
    """

    matched: int
    mean_cosine: float
    norm_ratio: float
    rows: int
    zero_rows: int
    unmatched_a: int
    unmatched_b: int
    cosine: CosineFigures | None = None
    norms: NormFigures | None = None
    components: ComponentFigures | None = None
    cka: float | None = None
    alignment: Alignment | None = None
    groups: dict[str, GroupFigures] | None = None
    most_moved: tuple[Moved, ...] = ()


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Mean rank-biased overlap (p = 0.9, truncated at ``k``, 1 for equal lists) of two top lists of
    ``k`` items.

    ``rbo`` is the paper's table 1 (Zielnicki & Hsiao, arXiv 2508.07574): a's items ranked by a's
    users and by b's. ``new_catalogue_rbo``: the same of b's items. ``retrained_rbo``: each run's
    own items by its own users, which stabilizing does not change. Means over ``users`` sampled
    users whose rows are zeros in neither run; ``zero_items_a`` and ``zero_items_b`` items are zeros
    and in no ranking. ``intervals`` are the 95 % confidence intervals of the three, by name.
    """

    rbo: float
    k: int
    retrained_rbo: float
    new_catalogue_rbo: float
    users: int
    zero_items_a: int
    zero_items_b: int
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class RankingAgreement:
    """How far two rankings of the same queries agree: rank-biased overlap, and recall by depth.

    ``recall[k]`` is the share of the k best rows of the one that are among the k best of the other.
    """

    rbo: Estimate
    recall: ByDepth
    groups: dict[str, RankingAgreement] | None = None


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Nearest rows of ``sampled`` queries of ``population`` that both runs have, to depth ``k`` of
    the ``n_ranked`` rows that either run ranks at least. Recall is quoted at ``depth``: 10, or
    less, at most a tenth of ``n_ranked``, 0 where there is none.

    ``queries`` are users, ranked by ``metric`` against items; or items among the other items.
    ``stale_queries``: b's items by a's queries against b's own (yesterday's queries on today's
    table). ``stale_table``: a's items by b's queries against a's own (the paper's). ``retrained``:
    each run's own items by its own queries; of items, the overlap of the neighbours of one id.

    A log of vectors asks both runs, so that nothing is stale: there the first two are None.
    """

    queries: str
    metric: str
    k: int
    sampled: int
    population: int
    stale_queries: RankingAgreement | None
    stale_table: RankingAgreement | None
    retrained: RankingAgreement
    n_ranked: int
    depth: int


@dataclass(frozen=True, slots=True)
class JudgedFigures:
    """nDCG, recall and precision by depth, and reciprocal rank to that depth, of one ranking."""

    ndcg: ByDepth
    recall: ByDepth
    precision: ByDepth
    mrr: ByDepth


@dataclass(frozen=True, slots=True)
class Judged:
    """Rankings by judgments, over ``queries`` that both runs have and that have a relevant item.

    ``unknown_queries`` of the judgments are not in both runs (or zeros there),
    ``without_relevant`` have no grade above 0. ``missing_a`` and ``missing_b`` relevant items are
    in no row of the run, and count as not found. ``a`` and ``b``: each run's own rankings;
    ``stale_queries``: b's items by a's queries; ``stale_table``: a's items by b's.
    """

    queries: int
    unknown_queries: int
    without_relevant: int
    missing_a: int
    missing_b: int
    a: JudgedFigures
    b: JudgedFigures
    stale_queries: JudgedFigures
    stale_table: JudgedFigures


@dataclass(frozen=True, slots=True, repr=False)
class Metrics(Displayed):
    """What `evaluate` measured; ``users`` and ``rank_correlation`` are None without users,
    ``judged`` without judgments. ``unmeasured`` says by table why one that both runs have is None:
    they share none of its ids. Every field is explained, with its source, in docs/metrics.md.

    Examples
    --------
    >>> metrics = es.evaluate(monday, monday)
    >>> metrics.items.mean_cosine, round(metrics.rank_correlation.rbo, 6)
    (1.0, 1.0)
    """

    items: TableMetrics | None
    users: TableMetrics | None
    rank_correlation: RankCorrelation | None
    retrieval: Retrieval | None = None
    judged: Judged | None = None
    unmeasured: dict[str, str] = field(default_factory=dict)

    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = {}
        for key in TABLES:
            table: TableMetrics | None = getattr(self, key)
            if table is not None:
                facts[key] = (
                    f"mean cosine {table.mean_cosine:.4f}, norm ratio {table.norm_ratio:.4f},"
                    f" {table.rows} rows"
                )
            elif key in self.unmeasured:
                facts[key] = f"not measured: {self.unmeasured[key]}"
        if (ranked := self.rank_correlation) is not None:
            facts["rank_correlation"] = f"{ranked.rbo:.4f} at {ranked.k}, {ranked.users} users"
        if (retrieval := self.retrieval) is not None and retrieval.k:
            of_users = self.rank_correlation is not None
            name = "stale_recall" if of_users else "neighbour_overlap"
            stale = retrieval.stale_queries if of_users else None
            shown = retrieval.retrained if stale is None else stale
            facts[name] = (
                f"{shown.recall[deep].mean:.4f} at {deep} of {retrieval.n_ranked}"
                if (deep := retrieval.depth)
                else f"not informative: lists hold {retrieval.k} of all {retrieval.n_ranked} items"
            )
        if self.judged is not None:
            depth = max(self.judged.b.ndcg, default=0)
            facts["judged"] = f"{self.judged.queries} queries" + (
                f", nDCG@{depth} {self.judged.b.ndcg[depth].mean:.4f}" if depth else ""
            )
        return facts

    def _repr_html_(self) -> str:
        """Its figures in a notebook."""
        from dask_embstab.render.pair_page import comparison_markup

        values = self.to_dict()
        own = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]
        return comparison_markup(values, f"m{own}-")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values with texts as keys, as the command prints them with JSON.

        Examples
        --------
        >>> es.evaluate(monday, monday).to_dict()["items"]["mean_cosine"]
        1.0
        """
        return plain_values(self)


def plain_values(result: Any) -> dict[str, Any]:
    """A dataclass with depths as texts and tuples as lists: what JSON gives back."""
    plain: dict[str, Any] = _plain(asdict(result))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
