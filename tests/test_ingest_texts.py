"""Texts of other writers that are not in UTF-8 are refused by their row, never by Arrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dask_embstab as es

pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow")


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
@pytest.mark.parametrize("bad", [b"\xed\xa0\x80", b"caf\xe9"])
def test_a_text_that_is_not_in_utf8_is_refused_by_its_row(
    tmp_path: Path, kind: str, bad: bytes
) -> None:
    import pyarrow.parquet as pq

    data = [b"a", bad, b"c"]
    ends = np.cumsum([0, *map(len, data)], dtype=np.int32)
    parts: list[Any] = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(data))]
    ids = pa.Array.from_buffers(pa.string(), len(data), parts)
    if kind == "dictionary":
        ids = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), ids)
    elif kind == "large_string":
        ids = ids.cast(pa.large_string())
    rows = pa.array(np.eye(3).tolist())
    pq.write_table(pa.table({"id": ids, "vector": rows}), tmp_path / "a.parquet")
    with pytest.raises(es.IdError, match=r"in UTF-8.*row 1 of"):
        es.fit(tmp_path / "a.parquet", reference=tmp_path / "a.parquet", min_matched=1)
