"""Fields of a version's file that a stranger wrote, with a checksum that is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import crc32c
import pytest
import test_series

import dask_embstab as es
from dask_embstab.files.stored_json import checksum_of

template, days, series, run = (
    test_series.template,
    test_series.days,
    test_series.series,
    test_series.run,
)

ODD: dict[str, tuple[dict[str, Any], ...]] = {
    "the last rebase is itself": ({"rebased": 2}, {}),
    "the last rebase is to come": ({"rebased": 10**9}, {}),
    "its parent is to come": ({"parent": 10**18}, {}),
    "it restores itself": ({"restores": 2}, {}),
    "its figures are a list": ({}, {"figures": [1]}),
    "its verdicts are numbers": ({}, {"verdicts": [1, None]}),
    "its settings are a list": ({}, {}, {"settings": []}),
    "its spectra are a number": ({}, {}, {"spectra": 7}),
}


@pytest.mark.usefixtures("series")
@pytest.mark.parametrize("odd", ODD)
def test_odd_fields_are_damage(odd: str, run: Any, tmp_path: Path) -> None:
    file = tmp_path / "series/versions/2.json"
    lines = file.read_bytes().splitlines()[:3]
    read = [json.loads(lines[0][:-1] + b"}")] + [
        json.loads(b"{%b}" % line[:-1]) for line in lines[1:]
    ]
    for n, changed in enumerate(ODD[odd]):
        inside = read[n] if n == 0 else next(iter(read[n].values()))
        inside.update(changed)
    texts = [json.dumps(part, sort_keys=True)[1:-1] for part in read]
    body = ("{" + ",\n".join(texts) + ",\n").encode()
    file.write_bytes(body + f'"crc32c": {crc32c.crc32c(body)}}}\n'.encode())
    assert json.loads(file.read_bytes()).keys() > {"version", "findings", "details", "crc32c"}
    assert run("verify", tmp_path / "series")[0] == 2
    if len(ODD[odd]) < 3:  # a log that is printed shows no settings and no spectra
        assert run("log", tmp_path / "series")[0] == 2
    with pytest.raises(es.DamageError, match=r"versions/2.json cannot be read as a version"):
        [version.full_details for version in es.Series(tmp_path / "series").log().versions]


@pytest.mark.usefixtures("series")
def test_a_later_format_is_no_damage(run: Any, tmp_path: Path) -> None:
    """Whatever else is on its lines; of a series' mark as well."""
    file = tmp_path / "series/versions/2.json"
    known = file.read_bytes()
    first, *others = known.splitlines()[:3]
    later = first.replace(b'"format": 1', b'"format": 2, "fresh": []')
    refusal = (
        "error: versions/2.json must be of format 1 at most; it is of format 2, which a later"
        " version of dask_embstab wrote; update the library\n"
    )
    for lines in ((later, *others), (later,), (later, *others, b'"more": {},')):
        body = b"\n".join(lines) + b"\n"
        file.write_bytes(body + f'"crc32c": {crc32c.crc32c(body)}}}\n'.encode())
        for verb in ("log", "verify", "status"):
            code, _, err = run(verb, tmp_path / "series")
            assert (verb, code, err) == (verb, 2, refusal)
    file.write_bytes(known)
    assert run("verify", tmp_path / "series")[0] == 0

    mark = tmp_path / "series/series.json"
    values = json.loads(mark.read_text()) | {"format": 2}
    del values["crc32c"]
    mark.write_text(json.dumps(values | {"crc32c": checksum_of(values)}))
    with pytest.raises(es.InputError, match="series must be of format 1 at most; it is of format"):
        es.Series(tmp_path / "series").log()


@pytest.mark.usefixtures("series")
def test_a_file_of_other_lines_is_one_clear_error(tmp_path: Path) -> None:
    """As versions were before 0.2.0."""
    file = tmp_path / "series/versions/2.json"
    body = b"\n".join(file.read_bytes().splitlines()[:2]) + b"\n"
    file.write_bytes(body + f'"crc32c": {crc32c.crc32c(body)}}}\n'.encode())
    with pytest.raises(es.DamageError, match="it has 2 lines before its checksum; a version has 3"):
        list(es.Series(tmp_path / "series").log().versions)
