"""What do the codes of a run keep, beside what they kept on the day they were made, and beside
codes that would be fitted anew today?

Measured on up to 16,384 rows of each table by the hash of their ids, read from the run and from its
codes, and on the rows of the last live run with the same ids. Half of the sampled rows, or 4,096 of
them, are kept from the refit, so that it is judged by rows that it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_embstab.core.codes.code import Code
from dask_embstab.core.codes.codebooks import CodebookCode
from dask_embstab.core.codes.row_code import RowCode, renumbered
from dask_embstab.core.types import Rows
from dask_embstab.passes.code_quality import through
from dask_embstab.passes.compress import codes_of
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.passes.sampled import SampledRows, SharedRows, sampled_rows, shared_rows
from dask_embstab.series.log.codes import codes_in, stamps
from dask_embstab.series.publish.coding import Coding
from dask_embstab.series.publish.delivery import Delivery
from dask_embstab.series.publish.readback import Readback
from dask_embstab.tables.coerce import run_of
from dask_embstab.tables.read.source import ArraySource
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_ROWS, _HELD_OUT, _VALUES = 1 << 14, 1 << 12, 1 << 24
"""Rows that are sampled, those that a refit does not see, and numbers in a sample at most."""
_LEAST = 64
"""Shared rows that an agreement is told of."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """Rows of a table, and those that share an id with rows of the last live run."""

    ours: SampledRows
    shared: SharedRows | None


def code_figures(
    delivery: Delivery, coding: Coding, readback: Readback, head: Run | None
) -> tuple[dict[str, dict[str, float]], dict[str, Any] | None]:
    """The figures of the gates by table, and what the version records; nothing without codes."""
    if not coding.codes:
        return {}, None
    log, ours = delivery.log, stamps(coding.codes)
    theirs = {} if log.head is None else codes_in(delivery.store, log.located(log.head))
    same = {key for key, stamp in stamps(theirs).items() if ours.get(key) == stamp}
    tables = {}
    for key, code in coding.codes.items():
        sample = _sampled(readback.run.table(key), None if head is None else getattr(head, key))
        figures = _errors(readback.run.codes.table(key), code, sample.ours)
        before = (coding.before.get("tables") or {}).get(key) or {}
        for name in ("error", "unused_entries"):
            figures[f"{name}_when_made"] = (
                before.get(f"{name}_when_made") if before else figures[name]
            )
        last = theirs.get(key)
        if sample.shared is not None and last is not None and len(sample.shared.x) >= _LEAST:
            name = "agreement" if key in same else "agreement_with_replaced"
            figures |= _agreement(code, last, sample.shared, name)
        if code.arrays() and coding.before:
            figures |= _refitted(
                code, last if key in same else None, coding, sample, readback.run.table(key)
            )
        tables[key] = figures
    recorded = {
        "asked": dict(coding.asked),
        "made": coding.made,
        "stamp": ours,
        "row_bytes": {key: code.row_bytes for key, code in coding.codes.items()},
        "tables": tables,
    }
    return _of_gates(tables), recorded


def _sampled(table: Table, last: Table | None) -> _Sample:
    n = max(min(_ROWS, _VALUES // table.d), 1)
    ours = sampled_rows(table, n)
    shared = None if last is None else shared_rows(ours, sampled_rows(last, n))
    return _Sample(ours, shared)


def _errors(coded: Table, code: RowCode, sample: SampledRows) -> dict[str, Any]:
    """Of the rows that the stored codes give back."""
    if not len(sample.numbers):
        return {"error": 0.0, "saturation": 0.0, "unused_entries": None}
    order = np.argsort(sample.numbers)
    decoded = read_rows(coded, sample.numbers[order], label="codes", verified=False)
    rows = sample.rows[order]
    unused = None
    if isinstance(code, CodebookCode):
        unused = code.unused_entries(code.encode(rows)[0])
    return {
        "error": _relative(decoded - rows, rows),
        "saturation": code.saturation(rows) if isinstance(code, Code) else 0.0,
        "unused_entries": unused,
    }


def _agreement(code: RowCode, last: RowCode, shared: SharedRows, name: str) -> dict[str, Any]:
    """The share of bytes that rows with one id have in common, and that unrelated rows have."""
    if shared.x.shape[1] != code.d or last.d != code.d or last.n_codes != code.n_codes:
        return {}
    ours, theirs = code.encode(shared.x)[0], last.encode(shared.y)[0]
    others = np.roll(theirs, len(theirs) // 2, axis=0)
    return {
        name: float(np.mean(ours == theirs)),
        f"{name}_by_chance": float(np.mean(ours == others)),
        "shared_rows": len(ours),
    }


def _refitted(
    code: RowCode, last: RowCode | None, coding: Coding, sample: _Sample, table: Table
) -> dict[str, Any]:
    """The error, and the agreement with the last live run's codes, that a code would have which is
    fitted to today's rows; its entries have the numbers of those of today that are near to them.
    """
    rows = sample.ours.rows
    held_out = rows[: min(_HELD_OUT, -(-len(rows) // 2))]
    seen = rows[len(held_out) :]
    if not len(seen):
        return {}
    asked = coding.asked
    few = replace(table, source=ArraySource(seen), stored_ids=None)
    made = codes_of(
        run_of({"items": few}),
        asked["code"],
        rotate=asked["rotate"],
        rank=asked["rank"],
        seed=0,
        force=True,
    )
    fitted = renumbered(made["items"], code)
    figures = {
        "frozen_error": _through(code, held_out),
        "refit_error": _through(fitted, held_out),
    }
    if last is not None and sample.shared is not None and len(sample.shared.x) >= _LEAST:
        figures |= {
            f"refit_{name}": value
            for name, value in _agreement(fitted, last, sample.shared, "agreement").items()
            if name != "shared_rows"
        }
    return figures


def _through(code: RowCode, rows: Rows) -> float:
    return _relative(through(code, rows) - rows, rows)


def _relative(error: Any, rows: Rows) -> float:
    size = float(np.linalg.norm(rows.astype(np.float64)))
    return float(np.linalg.norm(error.astype(np.float64))) / size if size else 0.0


def _of_gates(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {
        name: {} for name in ("code_saturation", "code_error", "dead_codes", "code_agreement")
    }
    for key, known in tables.items():
        figures["code_saturation"][key] = known["saturation"]
        if then := known["error_when_made"]:
            figures["code_error"][key] = known["error"] / then
        now, then = known["unused_entries"], known["unused_entries_when_made"]
        if now is not None and then is not None:
            figures["dead_codes"][key] = now - then
        if "agreement" in known:
            figures["code_agreement"][key] = known["agreement"] - known["agreement_by_chance"]
    return figures
