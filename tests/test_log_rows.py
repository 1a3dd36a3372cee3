"""A log that is printed: one read of every version, and no more of them in memory than
their text.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import test_series

import dask_embstab as es
from dask_embstab.cli.streams import json_line
from dask_embstab.render.text import render
from dask_embstab.series.log.log import Log, rows
from dask_embstab.series.store import Folder

template, days, series = test_series.template, test_series.days, test_series.series


def test_every_version_is_read_once(series: es.Series, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    whole = Folder.read

    def counted(store: Folder, key: str) -> bytes:
        read[key] += 1
        return whole(store, key)

    monkeypatch.setattr(Folder, "read", counted)
    lines = list(rows(series.log()))
    assert read == {f"versions/{number}.json": 1 for number in (1, 2, 3)}
    assert lines == list(rows(Log(tuple(series.log().versions)))), (
        "the same as of versions that are held"
    )
    assert [line["version"] for line in lines] == [1, 2, 3]
    assert all(line["verdicts"] is not None and line["figures"] for line in lines)


def test_an_iterator_is_printed_as_the_list_that_it_makes() -> None:
    values: list[Any] = [
        {"a": 1, "b": [1.5, float("nan")], "c": "\x7f\u202e"},
        {"a": 2, "b": [], "c": None},
    ]
    line = json_line({"versions": iter(values), "seconds": 0.5, "more": {"x": float("inf")}})
    assert line.isascii()
    assert "\x7f" not in line
    said = [{**values[0], "b": [1.5, None]}, values[1]]
    assert json.loads(line) == {"versions": said, "seconds": 0.5, "more": {"x": None}}
    assert json_line({}) == "{}"
    assert render("log", {"versions": iter(values)}) == render("log", {"versions": values})
