"""Small files appear whole and durable or not at all, whoever else writes and whatever lies in
wait.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import hidden, world

import dask_embstab as es
from dask_embstab.files import atomic
from dask_embstab.files.atomic import create_new, hidden_name, write_whole
from dask_embstab.tables.ids.row_index import FileIndex
from dask_embstab.tables.ids.spill import Spill

PACKAGE = Path(es.__file__).parent


def put(text: bytes) -> Callable[[Any], Any]:
    """A ``write`` that fills a file with these bytes."""
    return lambda file: file.write(text)


def test_every_file_of_the_product_is_made_by_one_helper() -> None:
    opened = re.compile(
        r"\.open\(\"[wx]|\.write_text|\.write_bytes|O_CREAT|O_TRUNC|getpid|NamedTemporaryFile|mkstemp"
    )
    writes = {
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if opened.search(line)
    }
    elsewhere = {line for line in writes if not line.startswith("files/")}
    # A private folder that this process has just made: the trial files of `doctor`, an index, a
    # scratch index.
    assert {line.partition(":")[0] for line in elsewhere} <= {
        "diagnose/rates.py",
        "tables/ids/id_index.py",
        "tables/ids/lookup.py",
        "tables/ids/row_index.py",
    }, elsewhere


def test_a_link_that_lies_in_wait_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"years of work")
    monkeypatch.setattr(atomic, "new_token", lambda: "0123456789ab")
    (tmp_path / hidden_name("out", "0123456789ab")).symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "out", put(b"mine"))
    assert victim.read_bytes() == b"years of work"
    with pytest.raises(OSError):
        FileIndex(str(tmp_path / hidden_name("out", "0123456789ab"))).put(0, np.arange(3))
    assert victim.read_bytes() == b"years of work"


def test_a_link_at_the_place_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / "out").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "out", put(b"mine"))
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"theirs"
    with pytest.raises(es.InputError, match="no regular file"):
        write_whole("/dev/null", put(b"mine"))


def test_two_threads_of_one_process_do_not_share_a_name(tmp_path: Path) -> None:
    out, barrier = tmp_path / "out", threading.Barrier(8)
    texts = [bytes([65 + i]) * 100_000 for i in range(8)]

    def save(text: bytes) -> None:
        def write(file: Any) -> None:
            file.write(text[:50_000])
            barrier.wait(30)  # all are half written at once
            file.write(text[50_000:])

        write_whole(out, write)

    threads = [threading.Thread(target=save, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert out.read_bytes() in texts
    assert not hidden(tmp_path)


def test_the_file_is_on_the_disk_before_its_name_is_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append(
            f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name.partition('.npz')[0]}"
        )
        fsync(descriptor)

    def renamed(self: Path, target: Any) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    transform = es.fit(*world(0))
    transform.save(tmp_path / "t.npz")
    assert steps == ["fsync .t", "rename", f"fsync {tmp_path.name}"]
    steps.clear()
    transform.save(tmp_path / "t.npz", sync=False)
    es.moments(world(0)[0]).save(tmp_path / "m.npz", sync=False)
    assert steps == ["rename", "rename"]


def test_one_of_all_who_try_creates_a_file(tmp_path: Path) -> None:
    won: list[int] = []

    def create(number: int) -> None:
        try:
            write_whole(tmp_path / "3.json", put(str(number).encode()), sync=False, replace=False)
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "3.json").read_bytes() == str(*won).encode()
    assert not hidden(tmp_path)


def test_a_lost_reply_to_link_is_no_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS asks again where a reply was lost, and is told that the name is taken: by this
    very file.
    """
    link = os.link

    def lost(source: Any, target: Any, **options: Any) -> None:
        link(source, target, **options)
        raise FileExistsError(target)

    monkeypatch.setattr(os, "link", lost)
    write_whole(tmp_path / "3.json", put(b"mine"), replace=False)
    assert (tmp_path / "3.json").read_bytes() == b"mine"
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "3.json", put(b"theirs"), replace=False)


def test_what_a_killed_process_left_is_removed_once_nobody_can_be_writing_it(
    tmp_path: Path,
) -> None:
    old, young, others = (
        tmp_path / hidden_name(name, token)
        for name, token in (("out", "0" * 12), ("out", "1" * 12), ("another", "2" * 12))
    )
    for path in (old, young, others):
        path.write_bytes(b"half")
    for path in (old, others):
        os.utime(path, (time.time() - 2e5,) * 2)
    write_whole(tmp_path / "out", put(b"whole"))
    assert hidden(tmp_path) == sorted([others, young])


@pytest.mark.parametrize("name", ["x" * 255, "\u00e9" * 127, "\udcff" * 255])
def test_names_as_long_as_a_file_system_takes_are_written(tmp_path: Path, name: str) -> None:
    write_whole(tmp_path / name, put(b"mine"), sync=False)
    assert (tmp_path / name).read_bytes() == b"mine"


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")

    def fail(file: Any) -> None:
        file.write(b"half")
        raise ValueError("the test's")

    with pytest.raises(ValueError, match="the test's"):
        write_whole(tmp_path / "out", fail)
    assert (tmp_path / "out").read_bytes() == b"old"
    assert not hidden(tmp_path)


def test_a_file_that_is_there_is_not_made_anew(tmp_path: Path) -> None:
    os.close(create_new(tmp_path / "chunk"))
    with pytest.raises(FileExistsError):
        create_new(tmp_path / "chunk")


def test_a_task_that_runs_twice_leaves_one_spill_file(tmp_path: Path) -> None:
    spill = Spill(str(tmp_path), (np.dtype(np.int64),), 2, 1)
    for _ in range(2):
        spill.write(0, (np.arange(5),), (np.array([0, 2, 5]),))
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert spill.read(0, 1)[0].tolist() == [2, 3, 4]
