"""A log that is printed: one read of every version, and no more of them in memory than
their text.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import crc32c
import pytest
import test_series
from oracle import memory_below

import dask_embstab as es
from dask_embstab.cli.streams import json_line, write_line
from dask_embstab.render.text import render
from dask_embstab.series.log import version_file
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


def test_what_is_stored_is_printed_as_what_was_decoded(series: es.Series) -> None:
    plain = [dict(row) for row in rows(series.log())]
    assert json.loads("".join(json_line({"versions": rows(series.log())}))) == {"versions": plain}
    assert all(row.members for row in rows(series.log()))


@pytest.mark.parametrize("odd", ["\x7f", "é", "\u009b"])
def test_a_stored_text_that_steers_a_terminal_is_escaped(
    series: es.Series, tmp_path: Path, odd: str
) -> None:
    file = tmp_path / "series/versions/2.json"
    core, findings, details, _ = file.read_text().splitlines()
    body = "\n".join([core, findings.replace('"gate": "', f'"gate": "{odd}'), details, ""]).encode()
    assert odd.encode() in body
    file.write_bytes(body + f'"crc32c": {crc32c.crc32c(body)}}}\n'.encode())
    line = "".join(json_line({"versions": rows(series.log())}))
    assert line.isascii()
    assert "\x7f" not in line
    assert json.loads(line)["versions"][1]["verdicts"][0]["gate"].startswith(odd)


def test_numbers_that_json_has_not_are_null(series: es.Series, tmp_path: Path) -> None:
    file = tmp_path / "series/versions/2.json"
    core, _, details, _ = file.read_text().splitlines()
    findings = '"findings": {"figures": {"a": NaN, "b": -Infinity}, "verdicts": []},'
    body = f"{core}\n{findings}\n{details}\n".encode()
    file.write_bytes(body + f'"crc32c": {crc32c.crc32c(body)}}}\n'.encode())
    line = "".join(json_line({"versions": rows(series.log())}))
    assert json.loads(line, parse_constant=pytest.fail)["versions"][1]["figures"] == {
        "a": None,
        "b": None,
    }


def test_a_line_that_nobody_asks_for_is_not_decoded(
    series: es.Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    whole = version_file._decoded
    monkeypatch.setattr(version_file, "_decoded", lambda text: decoded.append(text) or whole(text))
    list(rows(series.log()))
    tuple(series.log().versions)
    assert len(decoded) == 3 * 3
    assert not any(b"half_life" in text or b"spectra" in text for text in decoded)


def test_an_iterator_is_printed_as_the_list_that_it_makes() -> None:
    values: list[Any] = [
        {"a": 1, "b": [1.5, float("nan")], "c": "\x7f\u202e"},
        {"a": 2, "b": [], "c": None},
    ]
    line = "".join(
        json_line({"versions": iter(values), "seconds": 0.5, "more": {"x": float("inf")}})
    )
    assert line.isascii()
    assert "\x7f" not in line
    lines = [{**values[0], "b": [1.5, None]}, values[1]]
    assert json.loads(line) == {"versions": lines, "seconds": 0.5, "more": {"x": None}}
    assert "".join(json_line({})) == "{}"
    assert render("log", {"versions": iter(values)}) == render("log", {"versions": values})


def test_the_parts_of_a_long_line_are_never_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    part = "x" * 1000
    with open(os.devnull, "w") as nowhere, memory_below(8 << 20):  # noqa: PTH123
        monkeypatch.setattr("sys.stdout", nowhere)
        assert write_line(*[part] * 50_000) is None
    written = io.StringIO()
    monkeypatch.setattr("sys.stdout", written)
    assert write_line("a" * (3 << 20), "b", "", "c" * 7) is None
    assert written.getvalue() == "a" * (3 << 20) + "b" + "c" * 7 + "\n"
