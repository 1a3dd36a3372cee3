"""docs/diagnostics.md lists what fits record: all of it, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doc_pages import DOCS
from oracle import world

import dask_embstab as es

IDS, USER_IDS = np.arange(60), np.arange(90)
OF_KINDS = {"differ_only_by": ("the Unicode normal form",), "lags": ("GAP",)}


def keys(value: Any, at: str = "") -> Iterator[str]:
    """Paths of all values; of lists the list alone."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from keys(inner, f"{at}.{name}" if at else name)
    else:
        yield at


def listed(page: str) -> set[str]:
    """The keys of the page; those with TABLE once."""
    rows = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row)} - {"key"}


def generic(key: str) -> str:
    """As the page spells it."""
    key = re.sub(r"^(items|users)\.", "TABLE.", key)
    key = re.sub(r"^(product(\.\w+)?)\.(items|users)$", r"\1.TABLE", key)
    key = re.sub(r"\.lags\.\d+$", ".lags.GAP", key)
    return re.sub(r"\.differ_only_by\..*$", ".differ_only_by", key)


def fits(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Diagnostics of one fit of each kind."""
    T, W = world(0)
    U, V = world(1)
    items, users = es.table(T, ids=IDS), es.table(W, ids=USER_IDS)
    reference: Any = {
        "items": es.table((T + 0.1 * U)[::-1], ids=IDS[::-1]),
        "users": es.table(W + 0.1 * V, ids=USER_IDS),
    }
    aligned = es.fit(items, users, reference=reference, align_on="both")
    narrow = es.table((T + 0.1 * U)[:, :3], ids=IDS)
    twice = es.table(T, ids=np.r_[0, IDS[:-1]])
    yield from (
        fitted.diagnostics
        for fitted in (
            aligned,
            es.fit(items, users, rank=2),
            es.fit(items),
            es.fit(items, reference=reference["items"], keep="geometry", center=True),
            es.fit(items, reference=narrow, keep="geometry", width=3, max_lost_energy=0.9),
            es.fit(twice, users, reference=reference, duplicates="first"),
            es.fit(items, users, reference=reference, anchors=30),
            aligned.inverse(),
            aligned.compose(aligned.inverse()),
        )
    )
    series = es.Series.init(folder / "series", gaps={1: 1.0})
    for n in range(2):
        ids: dict[str, Any] = {"item_ids": IDS, "user_ids": USER_IDS}
        series.add(es.create_run(folder / f"{n}.zarr", T + 0.05 * n * U, W, **ids))
    series.rebase(2)
    transform = series.open(1).transform
    assert transform is not None
    yield transform.diagnostics
    transform = series.open(2).transform
    assert transform is not None
    yield transform.diagnostics


@pytest.mark.filterwarnings("ignore::dask_embstab.EmbstabWarning")
def test_the_page_lists_every_key_that_fits_record_and_no_other(tmp_path: Path) -> None:
    recorded = {generic(key) for known in fits(tmp_path) for key in keys(known)}
    recorded = {re.sub(r"^(inverse_of|composed_of).*", r"\1", key) for key in recorded}
    assert listed((DOCS / "diagnostics.md").read_text()) == recorded


def test_each_key_has_a_unit_and_a_meaning() -> None:
    page = (DOCS / "diagnostics.md").read_text()
    for line in page.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert len(cells) == 3, line
            assert all(cells), line
