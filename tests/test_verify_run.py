"""A stabilized run outside of a series records the digests of its own files; who asks for it gets
them compared.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_series
from oracle import Stop, chunk_file, stop_at, vectors_of, world
from test_published import exchange, mend

import dask_embstab as es
from dask_embstab.cli.main import main

Damage = Callable[[Path], Any]
IDS: dict[str, Any] = {"item_ids": np.arange(60) * 3, "user_ids": [f"u{i}" for i in range(90)]}
run = test_series.run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stabilized runs, and one as training left it."""
    folder = tmp_path_factory.mktemp("verify")
    for number in (0, 1):
        raw = es.create_run(
            folder / f"raw-{number}.zarr", *world(90 + number), chunk_rows=16, **IDS
        )
        es.stabilize(raw, folder / f"run-{number}.zarr")
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "copy")
    return tmp_path / "copy" / "run-1.zarr"


def embstab(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"], prog_name="embstab")
    return int(ended.value.code or 0)


def changed(file: str, *where: str, **new: Any) -> Damage:
    """JSON with other values at a place in it."""

    def damage(place: Path) -> None:
        values = json.loads((place / file).read_text())
        part = values
        for name in where:
            part = part[name]
        part.update(new)
        (place / file).write_text(json.dumps(values))

    return damage


def mended(file: str) -> Damage:
    def damage(place: Path) -> None:
        data = bytearray((place / file).read_bytes())
        data[7] ^= 1
        (place / file).write_bytes(bytes(data))
        mend(place / file)

    return damage


def added(place: Path) -> None:
    """A table that nobody stabilized."""
    shutil.copytree(place / "items", place / "more")
    shutil.rmtree(place / "users")
    shutil.copytree(place.parent / "run-0.zarr" / "users", place / "users")


DAMAGE: dict[str, tuple[Damage, str]] = {
    "exchanged chunks": (
        lambda p: exchange(*(chunk_file(p, "items", n) for n in (1, 2))),
        "items/vectors/c/1/0 is not",
    ),
    "exchanged ids": (
        lambda p: exchange(*(chunk_file(p, "users", n, "id") for n in (1, 2))),
        "users/id/c/1 is not",
    ),
    "a value with a mended checksum": (mended("items/vectors/c/2/0"), "items/vectors/c/2/0 is not"),
    "an id with a mended checksum": (mended("items/id/c/2"), "items/id/c/2 is not"),
    "a matrix with a mended checksum": (
        mended("transform/users/c/0/0"),
        "transform/users/c/0/0 is not",
    ),
    "a flipped bit": (
        lambda p: (p / "items/id/c/0").write_bytes(bytes(132)),
        "items/id/c/0 fails its checksum",
    ),
    "a chunk of another run": (
        lambda p: shutil.copy(
            chunk_file(p.parent / "run-0.zarr", "items", 1), chunk_file(p, "items", 1)
        ),
        "items/vectors/c/1/0 is not",
    ),
    "no chunk": (lambda p: chunk_file(p, "users", 2).unlink(), "users/vectors/c/2/0 is missing"),
    "a shape": (
        changed("items/vectors/zarr.json", shape=[48, 4]),
        "items/vectors/zarr.json is not|one id per row",
    ),
    "a fill value": (
        changed("items/vectors/zarr.json", fill_value=0.0),
        "items/vectors/zarr.json is not",
    ),
    "a copy of a shape": (
        changed("zarr.json", "consolidated_metadata", "metadata", "items/vectors", shape=[48, 4]),
        "consolidated copy of items/vectors/zarr.json is another",
    ),
    "a name": (
        changed("zarr.json", "attributes", "embstab", name="x"),
        "attributes of its root are others",
    ),
    "a figure": (
        changed("transform/zarr.json", "attributes", "diagnostics", rank=3),
        "attributes fail their checksum",
    ),
    "a digest": (
        changed("transform/zarr.json", "attributes", "output", root={}),
        "attributes fail their checksum",
    ),
    "no digests": (
        changed("transform/zarr.json", attributes={"diagnostics": {}}),
        "it has no 'output'",
    ),
    "a list of digests": (
        changed("transform/zarr.json", "attributes", output=[]),
        "is not the run that was written",
    ),
    "a table of another run": (added, "users/vectors/c/0/0 is not"),
    "a table that was added": (
        lambda p: shutil.copytree(p / "items/vectors", p / "items/weight"),
        "items/weight/zarr.json was added since",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_stabilized_run_is_compared_with_what_it_records(
    place: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    damage, says = DAMAGE[what]
    damage(place)
    with pytest.raises(es.EmbstabError, match=says):
        es.open_run(place, verify=True)
    assert embstab("verify", place) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_whole_run_passes_wherever_it_lies(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / ".DS_Store").write_bytes(b"a foreign one")
    assert embstab("verify", place) == 0
    output = json.loads(capsys.readouterr().out)
    files = [path for path in place.rglob("*") if path.is_file() and path.name != ".DS_Store"]
    assert (output["files"], output["damage"]) == (len(files), [])
    shutil.move(place, tmp_path / "moved.zarr")
    moved = es.open_run(tmp_path / "moved.zarr", verify=True)
    assert moved.transform is not None
    np.testing.assert_array_equal(
        vectors_of(moved), vectors_of(es.open_run(tmp_path / "moved.zarr"))
    )


def test_what_was_verified_is_compared_again_when_it_is_read(place: Path) -> None:
    verified = es.open_run(place, verify=True)
    exchange(*(chunk_file(place, "items", n) for n in (1, 2)))
    with pytest.raises(es.DamageError, match=r"items/vectors/c/1/0 is not"):
        es.fit(verified)
    assert es.fit(es.open_run(place)).items.shape == (4, 4), "who does not ask is told nothing"
    with pytest.raises(es.DamageError, match=r"items/vectors/c/1/0 is not"):
        es.open_run(verified, verify=True)


def test_runs_that_record_nothing_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = place.parent / "raw-1.zarr"
    with pytest.raises(
        es.InputError, match=r"has no transform and no such record, so there is nothing to compare"
    ):
        es.open_run(raw, verify=True)
    assert embstab("verify", raw) == 2
    assert embstab("verify", tmp_path / "none") == 2
    assert embstab("verify", "memory://run") == 2
    assert capsys.readouterr().err.count("\n") == 3


@pytest.mark.usefixtures("small_tasks")
def test_runs_of_a_series_and_of_a_resumed_write_record_themselves_too(
    place: Path, tmp_path: Path, writing: Any
) -> None:
    series = es.Series.init(tmp_path / "series")
    series.add(place.parent / "raw-0.zarr")
    series.add(place.parent / "raw-1.zarr", accept="of another world")
    series.rebase(1, rewrite=True)
    for path in (tmp_path / "series" / "runs").iterdir():
        assert es.open_run(path, verify=True).items.n_rows == 60
    raw, out = es.open_run(place.parent / "raw-0.zarr"), tmp_path / "out.zarr"

    with writing(stop_at(3)), pytest.raises(Stop):
        es.stabilize(raw, out, resume=True)
    es.stabilize(raw, out, resume=True)
    assert es.open_run(out, verify=True).users.n_rows == 90
