"""Weights of a running reference are stored rows as all others: damaged ones are one clear error
for every verb that reads them, which then publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracle import world

import dask_embstab as es

T, W = world(71)
VERBS: dict[str, Callable[[es.Series, es.Run], Any]] = {
    "forget": lambda series, _: series.forget([3], table="items", rewrite=True),
    "rebase": lambda series, _: series.rebase(1, rewrite=True),
    "add": lambda series, run: series.add(run),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_weights_are_one_clear_error(tmp_path: Path, verb: str) -> None:
    series = es.Series.init(tmp_path / "series")
    for n in range(3):
        ids = range(n, 60)  # a row is gone each day: its weight is asked
        run = es.create_run(tmp_path / f"{n}.zarr", T[n:], W, chunk_rows=64, item_ids=[*ids])
        if n < 2:
            series.add(run)
    for path in sorted((tmp_path / "series").glob("references/*/items/weight/c/*")):
        data = bytearray(path.read_bytes())
        data[5] ^= 0xFF
        path.write_bytes(data)
    with pytest.raises(es.DamageError, match=r"\A[^\n]*\Z") as raised:
        VERBS[verb](es.Series(tmp_path / "series"), run)
    assert "restore" in str(raised.value)
    assert len(es.Series(tmp_path / "series").log().versions) == 2
