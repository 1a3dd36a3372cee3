"""A series in a folder: what is removed goes, whatever is still put into it meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dask_embstab.series.store import Folder


@pytest.mark.parametrize("late", [1, 3])
def test_a_folder_is_removed_although_a_failed_write_still_puts_chunks_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    (tmp_path / "runs/a.zarr/items").mkdir(parents=True)
    remove, chunks = shutil.rmtree, iter(range(late))

    def removed_beside_a_writer(folder: Path, **options: Any) -> None:
        if (chunk := next(chunks, None)) is not None:
            (folder / "items").mkdir(exist_ok=True)
            (folder / "items" / str(chunk)).touch()
            folder.rmdir()  # "Directory not empty", as of a chunk that came after the listing
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", removed_beside_a_writer)
    Folder(tmp_path).remove("runs/a.zarr")
    assert not list((tmp_path / "runs").iterdir())


def test_a_folder_that_never_gets_empty_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs/a.zarr/items").mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", Path.rmdir)
    with pytest.raises(OSError, match="not empty"):
        Folder(tmp_path).remove("runs/a.zarr")
