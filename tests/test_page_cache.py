"""A table that is larger than half of memory leaves none of its pages in the system's cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from oracle import world

import dask_embstab as es
from dask_embstab.tables.write import chunk_writer, page_cache


@pytest.mark.parametrize("memory", [1 << 12, 1 << 40])
def test_pages_of_what_is_written_are_forgotten_where_it_is_large(
    make_run: Callable[..., es.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    run = make_run("in", *world(0, 600, 30), chunk_rows=16)
    transform, forgotten = es.fit(run), []

    def advise(descriptor: int, start: int, length: int, advice: int) -> None:
        assert (start, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        forgotten.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    undisturbed = es.apply(transform, run, tmp_path / "undisturbed.zarr")
    for module in (page_cache, chunk_writer):
        monkeypatch.setattr(module, "exceeds_cache", lambda n_bytes: n_bytes > memory // 2)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    made = es.apply(transform, run, tmp_path / "out.zarr")
    page_cache._written.clear()
    np.testing.assert_array_equal(made.items.vectors, undisturbed.items.vectors)

    if memory > 1 << 20:
        assert not forgotten
        return
    written = {path.name for path in (tmp_path / "out.zarr").rglob("*") if path.is_file()}
    assert {path.name for path in forgotten[-100:]} >= written
    early = [path for path in forgotten if "items/vectors" in str(path)]
    assert len(early) > len(set(early)), "some files behind the writer, all of them in the end"


def test_a_file_that_is_gone_is_no_error() -> None:
    for number in range(page_cache._FILES + 2):
        page_cache.forget_later(f"/nowhere/{number}")
    page_cache._written.clear()
