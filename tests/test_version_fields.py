"""Fields of a version's file that a stranger wrote, with a checksum that is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import crc32c
import pytest
import test_series

import dask_embstab as es

template, days, series, run = (
    test_series.template,
    test_series.days,
    test_series.series,
    test_series.run,
)

ODD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the last rebase is itself": ({"rebased": 2}, {}),
    "the last rebase is to come": ({"rebased": 10**9}, {}),
    "its parent is to come": ({"parent": 10**18}, {}),
    "it restores itself": ({"restores": 2}, {}),
    "its figures are a list": ({}, {"figures": [1]}),
    "its verdicts are numbers": ({}, {"verdicts": [1, None]}),
    "its settings are a list": ({}, {"settings": []}),
    "its spectra are a number": ({}, {"spectra": 7}),
}


@pytest.mark.usefixtures("series")
@pytest.mark.parametrize("odd", ODD)
def test_odd_fields_are_damage(odd: str, run: Any, tmp_path: Path) -> None:
    file = tmp_path / "series/versions/2.json"
    core, details, _ = file.read_bytes().splitlines()
    one, other = ODD[odd]
    head = json.dumps(json.loads(core[:-1] + b"}") | one, sort_keys=True)
    tail = json.dumps(json.loads(details[:-1].split(b": ", 1)[1]) | other, sort_keys=True)
    body = f'{head[:-1]},\n"details": {tail},\n'.encode()
    file.write_bytes(body + f'"crc32c": {crc32c.crc32c(body)}}}\n'.encode())
    for command in ("log", "verify"):
        assert run(command, tmp_path / "series")[0] == 2
    with pytest.raises(es.DamageError, match=r"versions/2.json cannot be read as a version"):
        [version.full_details for version in es.Series(tmp_path / "series").log().versions]
