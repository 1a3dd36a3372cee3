"""What the gates look at, measured on stabilized rows against the rows of the last live run.

No pass is added: the Gramians ride on the read that verifies the run, and all else comes from a
sample of at most 4,096 rows (16 per component where that is more) by the hash of their ids, read
from both runs, and of 256 rows of each table as it came. Rows of zeros are evidence of nothing: so
many more are read that the sample has its size without them. The ids are joined once more, a range
at a time. With a log of queries their rows are the sample of their table, and both items tables are
read once more, for what these queries find.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dask_embstab.core.similarity import (
    LEAST_PER_COMPONENT,
    LEAST_TO_TURN,
    Likeness,
    distances,
    likeness,
    score_error,
    spectrum_change,
)
from dask_embstab.core.types import Matrix, RowNumbers
from dask_embstab.errors import IdError
from dask_embstab.passes.engine.graph import compute, run_all
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.evaluate.stale import best_ids, recall_of
from dask_embstab.passes.join.anchors import anchor_sample
from dask_embstab.passes.join.options import JoinOptions, join_options
from dask_embstab.passes.join.pairing import Pairing
from dask_embstab.passes.join.queries import QueryLog, read_with_repeats
from dask_embstab.passes.join.rows import rows_at_places, rows_of
from dask_embstab.passes.join.sample import FewRows, RowSample, over_few_rows
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.version_file import Findings
from dask_embstab.series.publish.readback import Readback
from dask_embstab.series.publish.selecting import Selected
from dask_embstab.tables.ids.ids import ids_at
from dask_embstab.tables.ids.kinds import plain
from dask_embstab.tables.ids.row_index import gather
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_SAMPLE, _SAMPLE_PER_COMPONENT = 4096, 16
_OTHERS = 256
"""Rows of the head that each sampled row is compared with, besides its own."""
_LEAST_NONZERO = 1 / 64
"""A sample is not made larger than as if this share of the rows were not zero."""
_PLACES, _ROWS_AT_PLACE = (16, 128), 16
"""Places at which rows are read as they came, and how many where most of them are zeros."""
_LAST, _LEAST_LAST = 8, 3
"""Runs whose median a change is counted from, and how few of them will do."""
_WHOLE_RUN = "run"
_QUERY_K = 10
"""Items that a logged query asks for.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries of a log, at most 4,096: as they came and transformed, (q, d); which ``rows`` of the
    table ``key`` they are (of vectors: None), and how many ids it does not have.
    """

    key: str
    came: Matrix
    transformed: Matrix
    rows: RowNumbers | None
    unknown: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A table of the stabilized run and the head's, and how many rows of either are not zero."""

    ours: Table
    theirs: Table
    n_ours: int
    n_theirs: int

    @property
    def sampled(self) -> int:
        """Shared rows to read, so that enough of them are not zero in either."""
        share = min(self.n_ours / self.ours.n_rows, self.n_theirs / self.theirs.n_rows)
        return int(max(_SAMPLE, _SAMPLE_PER_COMPONENT * self.ours.d) / max(share, _LEAST_NONZERO))


def figures_of(
    log: Log,
    head: Run | None,
    transformed: Run,
    source: Run,
    settings: Settings,
    readback: Readback,
    chosen: Selected,
    queries: QueryLog | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Every gate's figures by table, but for those of the input's digests; without a live run those
    of the run itself.

    And over how many sampled rows of each table they are, and how many were left out as zeros. Rows
    that were not ``chosen`` are in no sample; a list of pairs says which rows belong together. Of a
    log of ``queries`` the rows are the sample of their table.
    """
    asked = None if queries is None else _asked(queries, source, transformed)
    figures: dict[str, dict[str, float]] = {
        "finite": {_WHOLE_RUN: 0.0},
        "scores": _scores(source, transformed, asked),
    }
    if head is None or log.head is None:
        return figures, {}
    known = log.head.full_details
    tables = {
        key: Compared(a, b, a.n_rows - readback.zero_rows[key], b.n_rows - zero_rows_in(known, key))
        for key in TABLES
        if (a := getattr(transformed, key)) and (b := getattr(head, key))
    }
    with join_options(duplicates="first") as join:
        likenesses, matched = _likenesses(tables, chosen, join, asked)
    measurable = {
        key: like
        for key, like in likenesses.items()
        if like.n >= LEAST_PER_COMPONENT * tables[key].ours.d
    }
    turned = {
        key: like
        for key, like in measurable.items()
        if like.n >= LEAST_TO_TURN * tables[key].ours.d
    }
    aligned = [measurable[key] for key in settings.aligned if key in measurable]
    figures["alignment"] = (
        {_WHOLE_RUN: distances(aligned, unit_rows=settings.units)[0]} if aligned else {}
    )
    figures |= {
        "rows": {key: _change_of_rows(pair_) for key, pair_ in tables.items()},
        "matched": matched,
        "alignment_change": _change(log, figures["alignment"]),
        "rotation": {key: distances([like], unit_rows=True)[1] for key, like in turned.items()},
        "mirror": {key: like.lowest_correlation for key, like in measurable.items()},
        "agreement": {key: like.agreement for key, like in measurable.items()},
        "low_agreement": {key: like.low_agreement for key, like in measurable.items()},
        "chance_share": {key: like.chance_share for key, like in measurable.items()},
        "norm_ratio": {key: like.norm_ratio for key, like in measurable.items()},
        "spectrum": {
            key: spectrum_change(ours, known.spectra[key])
            for key, ours in readback.spectra.items()
            if key in known.spectra
        },
    }
    sampled = {
        key: {"rows": like.n, "zero_rows": like.zero_pairs} for key, like in likenesses.items()
    }
    if asked is not None:
        figures["query_recall"] = _query_recall(asked, transformed, head)
        sampled["queries"] = {"rows": len(asked.came), "unknown": asked.unknown}
    return figures, sampled


def _asked(log: QueryLog, source: Run, transformed: Run) -> Asked:
    key = "items" if transformed.users is None else "users"
    ours, came = transformed.table(key), source.table(key)
    if log.ids is not None:
        rows, unknown = log.rows_in(ours, _SAMPLE, 0)
        a, b = (read_with_repeats(one, rows, label="gates: queries") for one in (came, ours))
        return Asked(key, a, b, rows, unknown)
    vectors, made = log.rows(came.d, _SAMPLE, 0), transformed.transform
    assert made is not None
    through = made.transform_items if key == "items" else made.transform_users
    return Asked(key, vectors, np.asarray(through(vectors)), None, 0)


def _query_recall(asked: Asked, transformed: Run, head: Run) -> dict[str, float]:
    """Nothing where half of the items are found by chance."""
    fresh, stale = transformed.table("items"), head.table("items")
    metric: Metric = "dot" if asked.key == "users" else "cosine"
    own, k = None, _QUERY_K
    if asked.key == "items" and asked.rows is not None:
        own = plain(ids_at(fresh.row_ids, asked.rows))
    if fresh.d != stale.d or 2 * k > min(fresh.n_rows, stale.n_rows) - (own is not None):
        return {}
    wanted, seen = (
        best_ids(table, asked.transformed, k, metric, own, label="gates: rankings")
        for table in (fresh, stale)
    )
    return {asked.key: recall_of(seen, wanted, k, math.inf).mean}


def zero_rows_in(known: Findings, key: str) -> int:
    """Rows of zeros in a table of a published run; 0 where it was published before they were
    counted.
    """
    return int((known.figures.get(key) or {}).get("zero_rows") or 0)


def _change_of_rows(tables: Compared) -> float:
    """Of all rows or of those that are not zero, whichever changed more: rows that turned to zeros
    are lost too.
    """
    counts = (tables.ours.n_rows, tables.theirs.n_rows), (tables.n_ours, tables.n_theirs)
    return max(abs(ours / theirs - 1) if theirs else float(ours > 0) for ours, theirs in counts)


def delivered(log: Log, name: str, tables: Mapping[str, Any]) -> int | None:
    """The version whose run was made of the same rows in the same chunks, where there is one."""
    ours = content_of(tables)
    return next((v.version for v in log.runs.values() if v.run != name and v.content == ours), None)


def content_of(tables: Mapping[str, Any]) -> str:
    """One text for the rows, ids and chunks of an input: equal where all of them are."""
    read = {
        key: [table["rows"], table["ids"], list(table["digests"])] for key, table in tables.items()
    }
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:32]


def _likenesses(
    tables: Mapping[str, Compared],
    chosen: Selected,
    join: JoinOptions,
    asked: Asked | None = None,
) -> tuple[dict[str, Likeness], dict[str, float]]:
    """Of sampled shared rows, by table, and the shares of the rows that are not zero that are
    shared.
    """
    pairings: dict[str, tuple[Table, Pairing]] = {}
    for key, both in tables.items():
        with contextlib.suppress(IdError):  # nothing shared, or ids of another type
            pairings[key] = chosen.paired(both.ours, both.theirs, key, join)
    samples = {
        key: anchor_sample(pairing, table, tables[key].sampled, 0)
        for key, (table, pairing) in pairings.items()
    }

    if asked is not None and asked.rows is not None and asked.key in pairings:
        table, pairing = pairings[asked.key]
        logged = np.unique(asked.rows)
        logged = logged[gather(pairing.partners, logged) >= 0]
        # So few that nothing can be told of them would turn gates off.
        if table is tables[asked.key].ours and len(logged) >= LEAST_TO_TURN * table.d:
            sample = samples[asked.key]
            samples[asked.key] = RowSample.of(logged, sample.size, 0)

    # Every row is compared with the same few rows of the head: those with the smallest hashes of
    # all.
    others = []
    for key, sample in samples.items():
        n = (
            _OTHERS
            * tables[key].sampled
            // max(_SAMPLE, _SAMPLE_PER_COMPONENT * tables[key].ours.d)
        )
        fewer = RowSample(n, sample.rows, sample.hashes).rows
        partners = gather(pairings[key][1].partners, fewer)
        others.append(rows_of(tables[key].theirs, partners, verified=False))
    read: tuple[Matrix, ...] = compute(others, label="gates: rows to compare with", n_tasks=0)

    passes = {}
    for (key, sample), compared_with in zip(samples.items(), read, strict=True):
        table, pairing = pairings[key]
        rows = np.sort(sample.rows)
        partners = gather(pairing.partners, rows)
        few = FewRows(table.source, rows, tables[key].theirs.source, partners)
        passes[key] = over_few_rows(few, partial(likeness, others=compared_with), label="gates")
    reduced = run_all(passes)
    shares = {
        key: _shared(tables[key], pairings[key][1], like.n, like.zero_pairs)
        for key, like in reduced.items()
    }
    return reduced, dict.fromkeys(tables, 0.0) | shares


def _shared(tables: Compared, pairing: Pairing, n: int, zero_pairs: int) -> float:
    """Share of the rows that are not zero, of the smaller table, that the other has too; of a list
    of pairs: of the rows that it names.

    ``n`` sampled pairs have a direction, ``zero_pairs`` have none.
    """
    if pairing.listed:
        return (tables.ours.n_rows - pairing.new) / pairing.listed if n else 0.0
    nonzero = pairing.matched * n / max(n + zero_pairs, 1)
    return min(nonzero / max(min(tables.n_ours, tables.n_theirs), 1), 1.0)


def _scores(source: Run, transformed: Run, asked: Asked | None) -> dict[str, float]:
    """How far sampled scores (items with items where there are no users) moved, beyond what a
    truncation takes; those of logged queries where there are some.
    """
    keys = ("items", "items") if source.users is None else ("users", "items")
    rng, tables = (
        np.random.default_rng(0),
        [(source.table(key), transformed.table(key)) for key in keys],
    )
    for places in _PLACES:
        rows = [rows_at_places(ours.n_rows, places, _ROWS_AT_PLACE, rng) for ours, _ in tables]
        wanted = [
            rows_of(table, chosen, verified=False)
            for both, chosen in zip(tables, rows, strict=True)
            for table in both
        ]
        a, transformed_a, b, transformed_b = compute(wanted, label="gates: scores", n_tasks=0)
        if asked is not None:
            a, transformed_a = asked.came, asked.transformed
        kept = [np.flatnonzero(side.any(axis=1))[: _PLACES[0] * _ROWS_AT_PLACE] for side in (a, b)]
        if min(map(len, kept[asked is not None :])) >= _PLACES[0]:
            break
    moved = score_error((a[kept[0]], b[kept[1]]), (transformed_a[kept[0]], transformed_b[kept[1]]))
    return {_WHOLE_RUN: max(0.0, moved - _truncated(transformed))}


def _truncated(transformed: Run) -> float:
    """The relative error of all scores that the rank of the series costs."""
    made = transformed.transform
    known = {} if made is None else made.diagnostics.get("truncation") or {}
    if made is None or not known:
        return 0.0
    lost = known["frobenius_error"]
    return float(lost / np.hypot(lost, np.linalg.norm(made.singular_values)))


def _change(log: Log, alignment: Mapping[str, float]) -> dict[str, float]:
    """The run's figure minus the median of the last live runs' figures."""
    known = (
        verdict["figure"]
        for version in reversed(log.versions)
        if version.kind in ("publish", "promote") and version.state == "live"
        for verdict in version.verdicts
        if verdict["gate"] == "alignment" and verdict["figure"] is not None
    )
    last = list(itertools.islice(known, _LAST))
    return {
        key: value - statistics.median(last)
        for key, value in alignment.items()
        if len(last) >= _LEAST_LAST
    }
