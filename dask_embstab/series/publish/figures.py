"""What the gates look at, measured on landed rows against the rows of the last live run.

No pass is added: the Gramians ride on the read that verifies the run, and all else comes from a sample of at most
4,096 rows (16 per component where that is more) by the hash of their ids, read from both runs, and of 256 rows of each
table as it came. The ids are joined once more, a range at a time.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from dask_embstab.core.similarity import Likeness, distances, likeness, score_error, spectrum_change
from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import IdError
from dask_embstab.passes.engine.graph import compute
from dask_embstab.passes.join.anchors import anchor_rows
from dask_embstab.passes.join.options import Joining, joining
from dask_embstab.passes.join.pairing import pair
from dask_embstab.passes.join.rows import rows_of
from dask_embstab.passes.join.sample import FewRows, over_few_rows
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.settings import Settings
from dask_embstab.tables.ids.row_index import picked
from dask_embstab.tables.layout import TABLES
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_SAMPLE, _SAMPLE_PER_COMPONENT = 4096, 16
_PLACES, _ROWS_AT_PLACE = 16, 16
_LEAST_PER_COMPONENT, _LEAST_TO_TURN = 4, 8
"""Fewer shared rows per component than this say little, and less about a free rotation."""
_LAST, _LEAST_LAST = 8, 3
"""Runs whose median a change is counted from, and how few of them will do."""
_WHOLE_RUN = "run"


def figures_of(
    log: Log, head: Run | None, landed: Run, source: Run, settings: Settings, spectra: Mapping[str, list[float]]
) -> dict[str, dict[str, float]]:
    """Every gate's figures by table, but for those of the input's digests; without a live run those of the run itself."""
    found: dict[str, dict[str, float]] = {"finite": {_WHOLE_RUN: 0.0}, "scores": _scores(source, landed)}
    if head is None or log.head is None:
        return found
    tables = {key: (a, b) for key in TABLES if (a := getattr(landed, key)) and (b := getattr(head, key))}
    with joining(duplicates="first") as how:
        likenesses, matched = _likenesses(tables, how)
    told = {key: found for key, found in likenesses.items() if found.n >= _LEAST_PER_COMPONENT * tables[key][0].d}
    turned = {key: found for key, found in told.items() if found.n >= _LEAST_TO_TURN * tables[key][0].d}
    aligned = [told[key] for key in settings.aligned if key in told]
    found["alignment"] = {_WHOLE_RUN: distances(aligned, unit_rows=settings.units)[0]} if aligned else {}
    return found | {
        "rows": {key: abs(a.n_rows / b.n_rows - 1) for key, (a, b) in tables.items()},
        "matched": matched,
        "alignment_change": _change(log, found["alignment"]),
        "rotation": {key: distances([found], unit_rows=True)[1] for key, found in turned.items()},
        "mirror": {key: found.lowest_correlation for key, found in told.items()},
        "agreement": {key: found.agreement for key, found in told.items()},
        "norm_ratio": {key: found.norm_ratio for key, found in told.items()},
        "spectrum": {
            key: spectrum_change(ours, theirs)
            for key, ours in spectra.items()
            if (theirs := log.head.spectra.get(key)) is not None
        },
    }


def delivered(log: Log, name: str, tables: Mapping[str, Any]) -> int | None:
    """The version whose run was made of the same rows in the same chunks, where there is one."""
    ours = content_of(tables)
    return next((v.version for v in log.runs.values() if v.run != name and v.content == ours), None)


def content_of(tables: Mapping[str, Any]) -> str:
    """One text for the rows, ids and chunks of an input: equal where all of them are."""
    read = {key: [table["rows"], table["ids"], list(table["digests"])] for key, table in tables.items()}
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:32]


def _likenesses(
    tables: Mapping[str, tuple[Table, Table]], how: Joining
) -> tuple[dict[str, Likeness], dict[str, float]]:
    """Of sampled shared rows, by table, and the shares of rows that are shared."""
    nodes, matched, n_tasks = {}, {}, 0
    for key, (ours, theirs) in tables.items():
        try:
            pairing = pair(ours, theirs, how)
        except IdError:  # nothing shared, or ids of another type
            matched[key] = 0.0
            continue
        matched[key] = pairing.matched / min(ours.n_rows, theirs.n_rows)
        rows = anchor_rows(pairing, ours, max(_SAMPLE, _SAMPLE_PER_COMPONENT * ours.d), 0)
        few = FewRows(ours.source, rows, theirs.source, picked(pairing.partners, rows))
        nodes[key], n = over_few_rows(few, likeness)
        n_tasks += n
    done: tuple[Likeness, ...] = compute(list(nodes.values()), label="gates", n_tasks=n_tasks)
    return dict(zip(nodes, done, strict=True)), matched


def _scores(source: Run, landed: Run) -> dict[str, float]:
    """How far sampled scores (items with items where there are no users) moved, beyond what a truncation takes."""
    keys = ("items", "items") if source.users is None else ("users", "items")
    rng, tables = np.random.default_rng(0), [(source.table(key), landed.table(key)) for key in keys]
    rows = [_spread(ours.n_rows, rng) for ours, _ in tables]
    wanted = [
        rows_of(both[side], chosen, verified=False)
        for side in (0, 1)
        for both, chosen in zip(tables, rows, strict=True)
    ]
    a, b, landed_a, landed_b = compute(wanted, label="gates: scores", n_tasks=0)
    return {_WHOLE_RUN: max(0.0, score_error((a, b), (landed_a, landed_b)) - _truncated(landed))}


def _spread(n: int, rng: np.random.Generator) -> RowNumbers:
    """Row numbers of a few rows at each of a few places: few chunks are read where chunks must be decoded whole."""
    starts = rng.integers(0, max(1, n - _ROWS_AT_PLACE + 1), _PLACES)
    found: RowNumbers = np.unique(starts[:, None] + np.arange(min(n, _ROWS_AT_PLACE)))
    return found


def _truncated(landed: Run) -> float:
    """The relative error of all scores that the rank of the series costs."""
    made = landed.transform
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
    return {key: value - statistics.median(last) for key, value in alignment.items() if len(last) >= _LEAST_LAST}
