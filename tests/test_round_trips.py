"""Requests to a store that need no answer of another go out side by side: here each waits until all
of them are there.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import ObjectStore

from dask_embstab.tables import identity
from dask_embstab.tables.stores.output_store import Standing, UrlOutput
from dask_embstab.tables.write.nodes import write_matrices

pytest.importorskip("obstore")
from obstore.store import MemoryStore

SECONDS = 20


def test_identities_of_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    group = zarr.open_group(ObjectStore(MemoryStore()), mode="w")
    arrays = [group.create_array(name, shape=(4, 2), dtype="f4") for name in "ab"]
    alone = [identity.identity_of(array) for array in arrays]
    met = threading.Barrier(4, timeout=SECONDS)
    for name in ("_metadata", "_stamps"):
        asked = getattr(identity, name)

        def meeting(array: Any, asked: Any = asked) -> Any:
            met.wait()
            return asked(array)

        monkeypatch.setattr(identity, name, meeting)
    result = identity.identities_of(arrays)
    assert [one.metadata for one in result] == [one.metadata for one in alone]


class Meeting(ObjectStore[Any]):
    """A store that takes chunks when three of them have come."""

    async def set(self, key: str, value: Any) -> None:
        if "/c/" in key:
            self.met = getattr(self, "met", None) or asyncio.Barrier(3)
            await asyncio.wait_for(self.met.wait(), SECONDS)
        await super().set(key, value)


def test_matrices_of_a_transform() -> None:
    group = zarr.open_group(Meeting(MemoryStore()), mode="w")
    matrices = {name: np.full((2, 3), float(at)) for at, name in enumerate("abc")}
    write_matrices(group, {name: (rows, ("x", "y")) for name, rows in matrices.items()})
    for name, rows in matrices.items():
        np.testing.assert_array_equal(group[name], rows)


class Place(UrlOutput):
    """A new place whose metadata and whose listing are asked for at once."""

    def __init__(self) -> None:
        self.held, self.met = {}, asyncio.Barrier(2)

    async def _standing(self) -> Standing | None:
        await asyncio.wait_for(self.met.wait(), SECONDS)
        return None

    async def _leftovers(self) -> list[str]:
        await asyncio.wait_for(self.met.wait(), SECONDS)
        return ["left"]


def test_what_stands_at_a_place_and_what_lies_below_it() -> None:
    assert Place().seen() == (None, ["left"])
