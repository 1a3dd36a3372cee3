"""A package that is not installed is one line that names the extra it comes with."""

from __future__ import annotations

import sys

import pytest

import dask_embstab as es
from dask_embstab.extras import require_extra


def test_a_missing_package_is_one_line_that_names_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(es.InputError) as caught:
        require_extra("pyarrow", "parquet", what="a Parquet file")
    assert str(caught.value) == (
        "a Parquet file needs the package pyarrow, which is not installed; pip install"
        " 'dask_embstab[parquet]'"
    )
    assert require_extra("json.decoder", "none", what="JSON").JSONDecoder
