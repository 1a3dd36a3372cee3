"""What a series' log says, and what its files are worth: versions, settings, copies, damage."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pytest
import series_log
import test_series
from oracle import snapshot, vectors_of
from test_damage import DAMAGE
from test_series import IDS, MakeRun, drifting

import dask_embstab as es
from dask_embstab.series.admin.metrics import metrics_text
from dask_embstab.series.admin.status import status_of
from dask_embstab.series.admin.verify import verify
from dask_embstab.series.log.log import Log, rows
from dask_embstab.series.log.versions import Version
from dask_embstab.series.store import Folder
from dask_embstab.tables.layout import TABLES

template, days, series, run = (
    test_series.template,
    test_series.days,
    test_series.series,
    test_series.run,
)


@pytest.mark.usefixtures("series")
def test_the_log_on_the_command_line(make_run: MakeRun, run: Any, tmp_path: Path) -> None:
    make_run("2026-01-09-late", *drifting(4), **IDS)
    code, output, _ = run(
        "add", tmp_path / "series", tmp_path / "2026-01-09-late.zarr", "--model", "v7"
    )
    assert (code, output["version"], output["published"], output["model"]) == (0, 4, True, "v7")
    code, output, _ = run("log", tmp_path / "series")
    assert code == 0
    assert [v["days_since_previous"] for v in output["versions"]] == [None, 1, 1, 6]
    keys = {
        "version",
        "run",
        "model",
        "parent",
        "state",
        "policy",
        "verdicts",
        "figures",
        "created",
        "kind",
    }
    assert keys <= set(output["versions"][0])
    assert run("log", tmp_path / "series")[1] == output, "nothing that changes between two calls"
    code, shown, _ = run("show", tmp_path / "series", 2)
    assert shown["digests"]["chunks"]
    assert run("show", tmp_path / "series")[1]["version"] == 4
    code, manifest, _ = run("export-manifest", tmp_path / "series")
    assert all((tmp_path / "series" / name).is_file() for name in manifest["files"])
    assert run("export-manifest", tmp_path / "series", tmp_path / "m.json")[1]["files"] == len(
        manifest["files"]
    )
    assert json.loads((tmp_path / "m.json").read_text()) == manifest
    assert (
        run("diff", tmp_path / "series", 1, 2, "--k", 5, "--users", 9)[1]["items"]["matched"] == 60
    )


def test_a_manifest_names_all_that_a_copy_needs(series: es.Series, tmp_path: Path) -> None:
    for name in series.manifest()["files"]:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "series" / name, tmp_path / "copy" / name)
    copy = es.Series(tmp_path / "copy")
    assert not copy.verify().damage
    np.testing.assert_array_equal(vectors_of(copy.open()), vectors_of(series.open()))


def test_rollback_is_a_version(
    series: es.Series, days: list[es.Run], run: Any, tmp_path: Path
) -> None:
    before = snapshot(tmp_path / "series")
    code, output, _ = run("rollback", tmp_path / "series", 1)
    assert (code, output["version"], output["restores"], output["run"], output["parent"]) == (
        0,
        4,
        1,
        "2026-01-01",
        3,
    )
    assert series.head().version == 4
    after = snapshot(tmp_path / "series")
    assert {name: after[name] for name in before} == before, "nothing is rewritten"
    assert not series.rollback(1).published
    assert series.add(days[3]).version.reference == 4
    series.rollback(3)
    assert series.head().run == "2026-01-03"
    for wrong in (0, 99):
        with pytest.raises(es.InputError, match=f"versions 1 to 6; {wrong} was asked for"):
            series.rollback(wrong)


def test_settings_change_by_a_recorded_version(
    series: es.Series, days: list[es.Run], run: Any, tmp_path: Path
) -> None:
    code, output, _ = run("settings", tmp_path / "series", "--policy", "first")
    assert (code, output["kind"], output["settings"]["policy"]) == (0, "settings", "first")
    assert series.head().run == "2026-01-03"
    assert series.add(days[3]).version.reference == 1
    series.rollback(2)
    assert series.settings.policy == "first", "a rollback is of runs, not of settings"
    assert not series.change(policy="first").published
    for bad in ({"policy": "none"}, {"nonsense": 1}, {"rank": 0}, {"keep": "geometry", "rank": 2}):
        with pytest.raises(es.InputError):
            series.change(**bad)
    empty = es.Series.init(tmp_path / "empty")
    empty.change(policy="first")
    assert empty.head() is None
    assert empty.add(days[0]).version.version == 2


@pytest.mark.usefixtures("series")
def test_places_that_are_no_series(tmp_path: Path, run: Any) -> None:
    assert run("log", tmp_path / "none")[0] == 2
    assert run("init", tmp_path / "series")[0] == 2
    assert run("log", tmp_path)[2].startswith("error: there is no series at")
    code, output, _ = run("init", tmp_path / "new", "--policy", "first", "--no-chain-minus-first")
    assert (code, output["settings"]["policy"], output["settings"]["chain_minus_first"]) == (
        0,
        "first",
        False,
    )
    assert run("show", tmp_path / "new")[2].startswith("error: nothing is published")
    assert run("rollback", tmp_path / "new", 1)[2].startswith("error: nothing is published")


# --- damage


def read_all(series: es.Series, folder: Path) -> None:
    """A reader of version 2."""
    reader = series.open(2)
    es.create_run(folder / "read.zarr", reader.items, reader.users)
    assert reader.transform


FILES = [
    "runs/2026-01-02.zarr/items/vectors/c/1/0",
    "runs/2026-01-02.zarr/users/vectors/c/5/0",
    "runs/2026-01-02.zarr/items/id/c/2",
    "runs/2026-01-02.zarr/users/id/c/0",
    "runs/2026-01-02.zarr/transform/users/c/0/0",
    "runs/2026-01-02.zarr/zarr.json",
    "versions/2.json",
]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.usefixtures("series")
def test_damage_is_found_by_verify_and_by_the_next_reader(
    run: Any, tmp_path: Path, file: str, damage: str
) -> None:
    code, output, _ = run("verify", tmp_path / "series")
    assert (code, output["versions"], output["runs"], output["damage"]) == (0, 3, 3, [])
    copy = shutil.copytree(tmp_path / "series", tmp_path / "copy")
    DAMAGE[damage](copy / file)
    code, out, err = run("verify", copy)
    assert (code, out) == (2, None)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert file in err
    if not (file.endswith("zarr.json") and damage in ("flip", "flip_the_first_bit", "lengthen")):
        with pytest.raises(es.EmbstabError):
            read_all(es.Series(copy), tmp_path)
    assert run("verify", tmp_path / "series")[0] == 0


def test_a_run_that_is_gone_or_exchanged(series: es.Series, run: Any, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "series" / "runs" / "2026-01-03.zarr")
    shutil.copytree(
        tmp_path / "series" / "runs" / "2026-01-02.zarr",
        tmp_path / "series" / "runs" / "2026-01-03.zarr",
    )
    assert "is not what was published" in run("verify", tmp_path / "series")[2]
    shutil.rmtree(tmp_path / "series" / "runs" / "2026-01-03.zarr")
    assert "is missing" in run("verify", tmp_path / "series")[2]
    with pytest.raises(es.DamageError, match="version 3 cannot be opened"):
        series.open()


@pytest.mark.usefixtures("series")
def test_a_version_that_is_gone_or_renamed(run: Any, tmp_path: Path) -> None:
    versions = tmp_path / "series" / "versions"
    (versions / "4.json").write_bytes((versions / "3.json").read_bytes())
    assert "4.json holds version 3" in run("verify", tmp_path / "series")[2]
    (versions / "4.json").unlink()
    (versions / "2.json").unlink()
    assert "versions/2.json is missing" in run("log", tmp_path / "series")[2]


class Counted(tuple[Version, ...]):
    """Versions that count how often somebody goes through them."""

    n_times = 0

    def __iter__(self) -> Iterator[Version]:
        Counted.n_times += 1
        return super().__iter__()

    def __reversed__(self) -> Iterator[Version]:
        Counted.n_times += 1
        return iter(self[::-1])


def gone_through(series: es.Series, n: int) -> int:
    """How often status, metrics, log, verify and a reader of every version go through a log of
    ``n`` versions, at most.
    """
    head = replace(series.head(), details=series.head().full_details)
    head = replace(head, parent=None, reference=None, restores=None)
    live = [
        replace(head, version=k, run=f"day-{k}", state="shadow" if k % 3 == 0 else "live")
        for k in range(1, n)
    ]
    moved = {v.run: v.place | {"run": f"{v.run}@01234567"} for v in live}
    basis = {"file": None, "crc32c": None}
    last = replace(live[0], version=n, kind="rebase", moved=moved, basis=basis)

    def times(ask: Callable[[Log], Any]) -> int:
        log, Counted.n_times = Log(Counted([*live, last])), 0
        ask(log)
        return Counted.n_times

    return max(
        times(lambda log: status_of(series.store, log)),
        times(lambda log: metrics_text(series.store, log, "series")),
        times(lambda log: list(rows(log))),
        times(lambda log: verify(series.store, log)),
        times(lambda log: [log.located(version) for version in log.versions]),
    )


def test_a_long_log_is_traversed_as_seldom_as_a_short_one(series: es.Series) -> None:
    assert 0 < gone_through(series, 10) == gone_through(series, 100) < 12


@pytest.mark.usefixtures("days")
def test_what_the_command_line_says_a_series_says_too(
    series: es.Series, run: Any, tmp_path: Path
) -> None:
    place = tmp_path / "series"
    assert run("status", place)[1] == series.status()
    assert run("show", place)[1] == series.show().to_dict()
    assert run("show", place, 2)[1] == series.show(2).to_dict()
    code, output, _ = run("metrics", place)
    assert (code, (place / "metrics.prom").read_text()) == (0, series.metrics())
    assert 'series="series"' in series.metrics()
    with contextlib.chdir(place):
        assert es.Series(".").metrics() == series.metrics()
    assert output["samples"] == sum(
        not line.startswith("#") for line in series.metrics().splitlines()
    )
    output = run("replay", place, tmp_path / "a", "--policy", "first", "--to", 2)[1]
    assert series.replay(tmp_path / "b", policy="first", last=2) == {
        k: v for k, v in output.items() if k != "seconds"
    }


def test_a_run_is_opened_from_a_handful_of_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their number; the digests of one run alone are read, and the log reads none."""
    series_log.make(tmp_path / "series", 40, 3)
    series, read = es.Series(tmp_path / "series"), []
    original = Folder.read
    monkeypatch.setattr(
        Folder, "read", lambda self, key: (read.append(key), original(self, key))[1]
    )
    assert series.head().version == 40
    assert read == ["versions/40.json"]
    series.open()
    assert {key for key in read if key.startswith("versions")} == {"versions/40.json"}
    assert len({key for key in read if key.startswith("digests")}) <= 1
    read.clear()
    assert len(list(rows(series.log()))) == 40
    assert not [key for key in read if key.startswith("digests")]
    assert series.log().version(7).digests["chunks"].keys() == {
        f"{k}/vectors/c/{n}/0" for k in TABLES for n in range(3)
    }
    wanted = {
        question: ask(series)
        for question, ask in series_log.QUESTIONS.items()
        if question != "open"
    }
    assert (wanted["head"].version, len(wanted["log"]), wanted["status"]["runs"]) == (
        40,
        40,
        39,
    ), "the first and the last version share a run"


def forged(version: Version, line: int, old: str, new: str) -> bytes:
    """The file of a version with another text in one of its lines, and the right checksum."""
    lines = version.encoded().decode().splitlines()
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    body = "\n".join(lines[:3]) + "\n"
    return f'{body}"crc32c": {crc32c.crc32c(body.encode())}}}\n'.encode()


MOVED = (
    '{"run": "../../victim", "digests_crc32c": null, "digests_file": null, "has_reference": false,'
    ' "reference_at": null}'
)
FORGED = {
    "a run elsewhere": ('"run": "2026-01-03"', '"run": "../../victim"'),
    "a run that is hidden": ('"run": "2026-01-03"', '"run": ".hidden"'),
    "a run that is a list": ('"run": "2026-01-03"', '"run": ["2026-01-03"]'),
    "digests elsewhere": ('"digests/2026-01-03', '"digests/../../2026-01-03'),
    "matrices elsewhere": ('"basis": {', '"basis": {"file": "bases/../../0123456789abcdef.npz"'),
    "a basis that is a list": ('"basis": {}', '"basis": []'),
    "a run moved elsewhere": ('"moved": {}', f'"moved": {{"2026-01-01": {MOVED}}}'),
    "what moved has a place for a name": ('"moved": {}', '"moved": {"../x": {}}'),
    "a model that is a number": ('"model": "2026-01-03"', '"model": 7'),
    "a model without end": ('"model": "2026-01-03"', f'"model": "{"x" * 2000}"'),
    "no model": ('"model": "2026-01-03"', '"model": ""'),
    "another kind": ('"kind": "publish"', '"kind": "nonsense"'),
    "a parent that is a text": ('"parent": 2', '"parent": "2"'),
    "no time": ('"created": "2', '"created": "x2'),
    "an unknown field": ('"kind": "publish"', '"kind": "publish", "more": 1'),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_version_is_checked_as_it_is_read(
    series: es.Series, run: Any, tmp_path: Path, what: str
) -> None:
    """Its checksum is right: whoever wrote it meant it."""
    file = tmp_path / "series" / "versions" / "3.json"
    file.write_bytes(forged(series.head(), 0, *FORGED[what]))
    for verb in ("log", "show", "verify", "status", "gc"):
        code, _, err = run(verb, tmp_path / "series")
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: versions/3.json cannot be read as a version")


def test_details_and_digests_that_are_none(series: es.Series, run: Any, tmp_path: Path) -> None:
    file, head = (
        tmp_path / "series" / "versions" / "3.json",
        replace(series.head(), details=series.head().full_details),
    )
    whole = file.read_bytes()
    for old, new in (
        ('"findings": {', '"findings": [{'),
        ('"verdicts": [', '"verdicts": 7, "x": ['),
        ("figures", "x"),
    ):
        file.write_bytes(forged(head, 1, old, new))
        assert run("show", tmp_path / "series")[0] == 2
    file.write_bytes(whole)
    place = tmp_path / "series" / head.digests_file
    data = json.dumps({"run": {"chunks": {"../../x": 1}, "metadata": {}, "bytes": {}}}).encode()
    place.write_bytes(data)
    assert "fails its checksum" in run("verify", tmp_path / "series")[2]
    file.write_bytes(forged(head, 0, str(head.digests_crc32c), str(crc32c.crc32c(data))))
    code, _, err = run("verify", tmp_path / "series")
    assert (code, "lie elsewhere" in err) == (2, True)


def test_a_number_in_other_digits_is_no_version(series: es.Series, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "series/versions/2.json", tmp_path / "series/versions/1\u0662.json")
    assert len(series.log().versions) == 3
