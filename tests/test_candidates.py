"""The candidate of an interrupted `add`: gone on with, however large its matrices are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from oracle import Stop, stop_after, world

import dask_embstab as es
from dask_embstab import DamageError
from dask_embstab.series.publish import candidate
from dask_embstab.series.store import Folder


class OfWideTables(Folder):
    """Matrices of more than 5,792 components take more bytes than metadata may."""

    def read(self, key: str) -> bytes:
        if key.endswith("candidate.npz"):
            raise DamageError(f"{key} is too long")
        return super().read(key)


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("memory", [1 << 40, 1 << 12])
def test_a_candidate_may_be_longer_than_metadata(
    tmp_path: Path, writing: Any, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    es.create_run(tmp_path / "day.zarr", *world(3), chunk_rows=16)
    es.Series.init(tmp_path / "series")
    series = es.Series(OfWideTables(tmp_path / "series"))
    with writing(stop_after(2)), pytest.raises(Stop):
        series.add(tmp_path / "day.zarr")
    fits: list[Any] = []
    fitted = candidate.fit_tables
    monkeypatch.setattr(candidate, "fit_tables", lambda *a: fits.append(a) or fitted(*a))
    monkeypatch.setattr(candidate, "physical_memory", lambda: memory)
    assert series.add(tmp_path / "day.zarr").published
    assert len(fits) == (memory == 1 << 12), "only what does not fit in memory is fitted again"
    assert not series.verify().damage
