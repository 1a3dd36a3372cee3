"""A chunk that an interrupted call left is taken over where it is what it would be if it were made
now, else made anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from oracle import Stop, data_of, hidden, vectors_of, world

import dask_embstab as es
from dask_embstab.passes.running_mean import Aging, Mean, advance, seen_once, view_of
from dask_embstab.series.log.basis import moved_table
from dask_embstab.tables.write.journal import Journal, made_of
from dask_embstab.tables.write.run_writer import RunWriter, begin_run

pytestmark = pytest.mark.usefixtures("small_tasks")
T, W = world(5)
MakeRun = Callable[..., es.Run]
Writing = Callable[..., contextlib.AbstractContextManager[None]]
IDS: dict[str, Any] = {"item_ids": np.arange(60), "user_ids": [f"u{i}" for i in range(90)]}


@pytest.fixture
def run(make_run: MakeRun) -> es.Run:
    return make_run("in", T, W, dtype="float32", **IDS)


@pytest.fixture
def left(run: es.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run in the hidden folder of a write that stopped when its 4 chunks of items and 6 of
    users were there.
    """
    transform = es.fit(run)
    with monkeypatch.context() as patched:
        patched.setattr(RunWriter, "transform", stop)
        with pytest.raises(Stop):
            es.apply(transform, run, tmp_path / "out.zarr", resume=True)
    (folder,) = hidden(tmp_path)
    return folder / "run"


def stop(*_: Any) -> None:
    """What stands for the step at which a write stops."""
    raise Stop


def resumed(run: es.Run, tmp_path: Path, writing: Writing) -> list[int]:
    """Go on, compare with a write that was not interrupted; the chunks that were written."""
    transform, written = es.fit(run), []
    with writing(written.append):
        es.apply(transform, run, tmp_path / "out.zarr", resume=True)
    whole = es.apply(transform, run, tmp_path / "whole.zarr")
    assert data_of(tmp_path / "out.zarr") == data_of(whole.path)
    assert es.open_run(tmp_path / "out.zarr", verify=True).transform is not None
    assert not hidden(tmp_path)
    return written


def chunk(left: Path, key: str, number: int) -> Path:
    return left / key / "vectors" / "c" / str(number) / "0"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[17] ^= 1
    path.write_bytes(data)


def exchange(left: Path) -> None:
    one, other = chunk(left, "items", 0), chunk(left, "items", 1)
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])


def mended(path: Path) -> None:
    """Other values with a checksum of their own: those of a chunk of the other table."""
    path.write_bytes(chunk(path.parents[4], "users", 2).read_bytes())


DAMAGE: dict[str, tuple[Callable[[Path], Any], int]] = {
    "nothing": (lambda _: None, 0),
    "an empty chunk": (lambda left: chunk(left, "items", 2).write_bytes(b""), 1),
    "a zeroed chunk": (lambda left: chunk(left, "items", 2).write_bytes(bytes(16 * 16 + 4)), 1),
    "a chunk that is cut short": (lambda left: os.truncate(chunk(left, "users", 0), 100), 1),
    "a flipped bit": (lambda left: flip(chunk(left, "users", 4)), 1),
    "a chunk that is missing": (lambda left: chunk(left, "users", 4).unlink(), 1),
    "exchanged chunks": (exchange, 2),
    "a chunk of another table": (lambda left: mended(chunk(left, "items", 1)), 1),
    "a pipe for a chunk": (
        lambda left: (chunk(left, "items", 0).unlink(), os.mkfifo(chunk(left, "items", 0))),
        1,
    ),
    "an id chunk that is zeroed": (
        lambda left: (left / "items/id/c/1").write_bytes(bytes(16 * 8 + 4)),
        0,
    ),
    "an id chunk that is empty": (lambda left: (left / "users/id/c/1").write_bytes(b""), 0),
    "no journal": (lambda left: (left.parent / "journal-items").unlink(), 4),
    "a journal that is cut short": (lambda left: os.truncate(left.parent / "journal-items", 30), 3),
    "a journal that is zeroed": (
        lambda left: (left.parent / "journal-items").write_bytes(bytes(80)),
        4,
    ),
    "a flipped bit in the journal": (lambda left: flip(left.parent / "journal-users"), 1),
    "a journal of another order": (
        lambda left: (left.parent / "journal-items").write_bytes(
            (left.parent / "journal-items").read_bytes()[20:60] * 2
        ),
        4,
    ),
    "metadata of another shape": (
        lambda left: (left / "items/vectors/zarr.json").write_text(
            (left / "items/vectors/zarr.json").read_text().replace("60", "61")
        ),
        4,
    ),
    "metadata that is torn": (lambda left: os.truncate(left / "users/vectors/zarr.json", 10), 6),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_whole_is_made_anew(
    run: es.Run, left: Path, tmp_path: Path, writing: Writing, damage: str
) -> None:
    harm, n_again = DAMAGE[damage]
    harm(left)
    assert len(resumed(run, tmp_path, writing)) == n_again


@pytest.mark.parametrize("what", ["vectors", "ids"])
def test_chunks_of_an_input_that_was_written_in_place_since_are_made_anew(
    run: es.Run, left: Path, tmp_path: Path, writing: Writing, what: str
) -> None:
    """The metadata of the input is as it was: only what is read now tells."""
    before = data_of(left)
    transform = es.fit(run)
    if what == "vectors":
        zarr.open_array(Path(run.path, "items/vectors"))[16:32] = 2 * T[16:32]
    else:
        zarr.open_array(Path(run.path, "items/id"))[16:32] = np.arange(100, 116)
    written: list[int] = []
    with writing(written.append):
        es.apply(transform, run, tmp_path / "out.zarr", resume=True)
    whole = es.apply(transform, run, tmp_path / "whole.zarr")
    assert data_of(tmp_path / "out.zarr") == data_of(whole.path) != before
    assert len(written) == (what == "vectors")


def test_an_earlier_chunk_of_another_call_is_never_taken_over(
    run: es.Run, left: Path, tmp_path: Path, writing: Writing
) -> None:
    """A chunk file of an earlier write of the same place, whole and with a right checksum, stands
    where one was.
    """
    es.apply(es.fit(run, balance="gramians"), run, tmp_path / "earlier.zarr")
    chunk(left, "users", 5).write_bytes(chunk(tmp_path / "earlier.zarr", "users", 5).read_bytes())
    assert resumed(run, tmp_path, writing) == [1]


def test_the_journal_has_one_short_record_per_chunk_and_is_gone_in_the_end(
    left: Path, tmp_path: Path
) -> None:
    assert left is not None
    sizes = {path.name: path.stat().st_size for path in left.parent.glob("journal-*")}
    assert sizes == {"journal-items": 4 * 24, "journal-users": 6 * 24}
    es.apply(es.fit(tmp_path / "in.zarr"), tmp_path / "in.zarr", tmp_path / "out.zarr", resume=True)
    assert not [
        path
        for path in (tmp_path / "out.zarr").rglob("*")
        if "journal" in path.name or path.name == "lock"
    ]


@pytest.mark.parametrize("damage", ["nothing", "vectors", "weights", "exchanged"])
def test_a_running_mean_goes_on_from_whole_chunks_alone(
    run: es.Run, tmp_path: Path, writing: Writing, damage: str
) -> None:
    def write(place: Path, *, resume: bool, ends: Callable[[], object] = dict) -> None:
        old = Mean(view_of(run.items, seen_once, 5), None)
        with begin_run(place, name=None, fingerprint="means", resume=resume) as writer:
            advance(writer, {"items": (run.items, old)}, Aging(1.0))
            ends()

    with pytest.raises(Stop):
        write(tmp_path / "out.zarr", resume=True, ends=stop)
    left = hidden(tmp_path)[0] / "run" / "items"
    if damage == "vectors":
        flip(left / "vectors/c/0/0")
    elif damage == "weights":
        (left / "weight/c/1").write_bytes(bytes(16 * 4 + 4))
    elif damage == "exchanged":
        exchange(left.parent)
    written: list[int] = []
    with writing(written.append):
        write(tmp_path / "out.zarr", resume=True)
    write(tmp_path / "whole.zarr", resume=False)
    assert data_of(tmp_path / "out.zarr") == data_of(tmp_path / "whole.zarr")
    assert len(written) == {"nothing": 0, "vectors": 1, "weights": 1, "exchanged": 2}[damage]


def test_a_chunk_across_two_chunks_of_the_input_is_made_of_both() -> None:
    digests = {0: 11, 1: 12, 2: 13}
    whole = made_of(digests, 16, range(2), 24, 48)
    assert whole[0] == made_of(digests | {2: 99}, 16, range(2), 24, 48)[0]
    assert whole[0] != made_of(digests | {1: 99}, 16, range(2), 24, 48)[0]
    assert whole[1] != made_of(digests | {2: 99}, 16, range(2), 24, 48)[1]
    assert made_of({0: 11}, 16, range(2), 24, 48) == {
        0: None,
        1: None,
    }, "what was not read whole is not known"


def test_what_is_not_known_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    journal = Journal(str(tmp_path / "journal"), (), 1)
    journal.record({0: None, 1: 7}, {0: 1, 1: 2})
    assert journal.recovered([0]) is None
    result = journal.recovered([1])
    assert result is not None
    assert result.made_of == {1: 7}
    assert journal.recovered([1, 2]) is None


def test_a_run_of_other_rows_is_not_mixed_with_what_was_left(
    run: es.Run, left: Path, tmp_path: Path, make_run: MakeRun
) -> None:
    assert left is not None
    other = make_run("other", T[::-1], W[::-1], dtype="float32", **IDS)
    transform = es.fit(run)
    es.apply(transform, other, tmp_path / "out.zarr", resume=True)
    whole = es.apply(transform, other, tmp_path / "whole.zarr")
    np.testing.assert_array_equal(vectors_of(es.open_run(tmp_path / "out.zarr")), vectors_of(whole))


@pytest.mark.parametrize("then", ["the same matrix", "another matrix", "as it is stored"])
def test_a_run_that_is_read_through_another_matrix_is_another_input(
    run: es.Run, tmp_path: Path, writing: Writing, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """As a version of a series is, once it was rebased: the stored rows and the transform are the
    same.
    """
    transform = es.fit(run)
    turned, again = (rebased(run, M) for M in (np.eye(4)[::-1].copy() for _ in range(2)))
    with monkeypatch.context() as patched:
        patched.setattr(RunWriter, "transform", stop)
        with pytest.raises(Stop):
            es.apply(transform, turned, tmp_path / "out.zarr", resume=True)
    source = {
        "the same matrix": again,
        "another matrix": rebased(run, np.eye(4)[[1, 0, 2, 3]]),
    }.get(then, run)
    written: list[int] = []
    with writing(written.append):
        es.apply(transform, source, tmp_path / "out.zarr", resume=True)
    assert len(written) == (0 if then == "the same matrix" else 10)
    assert data_of(tmp_path / "out.zarr") == data_of(
        es.apply(transform, source, tmp_path / "whole.zarr").path
    )


def rebased(run: es.Run, M: Any) -> es.Run:
    return replace(run, items=moved_table(run.items, M), users=moved_table(run.users, M))
