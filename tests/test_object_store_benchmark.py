"""Benchmarks of shards and of object stores run on small tables, and say what they measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import shards


@pytest.mark.long
def test_shards_are_measured_against_chunks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    argv = ["--gb", "0.001", "--d", "8", "--inner", "4096", "--repeats", "1", "--dir"]
    results = shards.main([*argv, str(tmp_path), "--markdown", str(page)])
    assert [row["kind"] for row in results["rows"]] == ["bytes", "crc32c"]
    assert all(row["fit of shards"] > 0 for row in results["rows"])
    assert page.read_text().count("\n| 8 |") == 2


@pytest.mark.long
def test_an_object_store_is_measured_against_its_client(tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="what the benchmark compares with")
    pytest.importorskip("obstore", reason="what object stores are read by")
    import object_store

    page = tmp_path / "page.md"
    argv = ["--gb", "0.001", "--d", "8", "--object-bytes", "200000", "--repeats", "1"]
    argv += ["--link", "1:0", "--layout", "chunks", "shards", "--dir", str(tmp_path)]
    results = object_store.main([*argv, "--markdown", str(page)])
    first, second = results["rows"]
    assert min(first["read / bare"], first["apply / bare"], second["fit / bare"]) > 0
    assert page.read_text().count("\n| 1.0 |") == 2
