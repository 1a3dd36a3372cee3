"""The benchmark of the compiled kernel compares both ways."""

from __future__ import annotations

import compiled
import pytest

from dask_embstab.core.tile_kernel import vector_width


@pytest.mark.skipif(not vector_width(), reason="no llvmlite, or no kernel for this processor")
def test_both_fits_are_measured_with_the_kernel_and_without() -> None:
    results = compiled.main(["--gb", "0.002", "--d", "16", "--repeats", "1"])
    (row,) = results["rows"]
    assert row["fit"]["processors"] > 0
    assert row["fit onto a reference"]["clock"] > 0
    assert "| 16 |" in compiled.markdown(results)
