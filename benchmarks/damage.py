"""Who finds which damage? Every kind is done to a copy of a series, of a stabilized run and of a
raw run, and each is asked.

    python benchmarks/damage.py docs/damage.md
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from common import table, write_between

import dask_embstab as es

BEGIN, END = "<!-- damage: written by benchmarks/damage.py -->", "<!-- end of damage -->"
ASKED = ("open", "read", "add", "series verify", "verify RUN", "stabilize RAW")
_ROWS, _D = 16, 4
Damage = Callable[[Path, Path], Any]
"""What is done to a run, with another one of the same shapes at hand."""


def chunk(run: Path, array: str, number: int) -> Path:
    """A chunk file."""
    return run / array / "c" / (f"{number}/0" if array.endswith("vectors") else str(number))


def changed(
    array: str, number: int, change: Callable[[bytearray], Any], *, mend: bool = False
) -> Damage:
    """Other bytes in one chunk, and the checksum that they should have."""

    def damage(run: Path, other: Path) -> None:
        del other
        _rewrite(chunk(run, array, number), change, mend=mend)

    return damage


def _rewrite(file: Path, change: Callable[[bytearray], Any], *, mend: bool) -> None:
    data = bytearray(file.read_bytes())
    change(data)
    if mend:
        data[-4:] = crc32c.crc32c(bytes(data[:-4])).to_bytes(4, "little")
    file.write_bytes(bytes(data))


def flip(data: bytearray) -> None:
    """A bit."""
    data[9] ^= 1


def cut(data: bytearray) -> None:
    """The end."""
    del data[-60:]


def zero(data: bytearray) -> None:
    """All of it."""
    data[:] = bytes(len(data))


def lengthen(data: bytearray) -> None:
    """More behind it."""
    data.extend(bytes(8))


def removed(array: str, number: int) -> Damage:
    """No file."""
    return lambda run, _: chunk(run, array, number).unlink()


def exchanged(array: str) -> Damage:
    """Two chunks in each other's place."""

    def damage(run: Path, other: Path) -> None:
        del other
        one, two = chunk(run, array, 1), chunk(run, array, 2)
        data = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(data)

    return damage


def of_another(array: str) -> Damage:
    """A chunk of another run in its place."""
    return lambda run, other: shutil.copy(chunk(other, array, 1), chunk(run, array, 1))


def metadata(array: str, **changes: Any) -> Damage:
    """Other metadata of an array, in the copy of the run's too."""

    def damage(run: Path, other: Path) -> None:
        del other
        for file, where in (
            (run / array / "zarr.json", ()),
            (run / "zarr.json", ("consolidated_metadata", "metadata", array)),
        ):
            values = part = json.loads(file.read_text())
            for name in where:
                part = part[name]
            part.update(changes)
            file.write_text(json.dumps(values))

    return damage


def text(file: str, old: str, new: str) -> Damage:
    """Another word in a file of metadata."""

    def damage(run: Path, other: Path) -> None:
        del other
        before = (run / file).read_text()
        if old not in before:
            raise FileNotFoundError(old)
        (run / file).write_text(before.replace(old, new))

    return damage


def renamed(run: Path, other: Path) -> None:
    """Another name among its attributes."""
    del other
    values = json.loads((run / "zarr.json").read_text())
    values["attributes"]["embstab"]["name"] = "another"
    (run / "zarr.json").write_text(json.dumps(values))


def instead(run: Path, other: Path) -> None:
    """Another run in its place."""
    shutil.rmtree(run)
    shutil.copytree(other, run)


def _matrix(change: Callable[[bytearray], Any], *, mend: bool) -> Damage:
    return lambda run, _: _rewrite(run / "transform/items/c/0/0", change, mend=mend)


KINDS: dict[str, Damage] = {
    "a bit of vectors flipped": changed("items/vectors", 1, flip),
    "a value changed, its checksum mended": changed("items/vectors", 1, flip, mend=True),
    "a chunk truncated": changed("items/vectors", 1, cut),
    "a chunk emptied": changed("items/vectors", 1, bytearray.clear),
    "a chunk zeroed": changed("items/vectors", 1, zero),
    "a chunk zeroed, its checksum mended": changed("items/vectors", 1, zero, mend=True),
    "a chunk lengthened": changed("items/vectors", 1, lengthen),
    "a chunk removed": removed("items/vectors", 1),
    "two chunks exchanged": exchanged("items/vectors"),
    "a chunk of another run": of_another("items/vectors"),
    "a bit of an id flipped": changed("items/id", 1, flip),
    "an id changed, its checksum mended": changed("items/id", 1, flip, mend=True),
    "a chunk of ids removed": removed("items/id", 1),
    "two chunks of ids exchanged": exchanged("items/id"),
    "a chunk of ids of another run": of_another("items/id"),
    "two chunks of texts exchanged": exchanged("users/id"),
    "a shape shrunk": metadata("items/vectors", shape=[48, _D]),
    "both shapes shrunk": lambda run, other: [
        metadata(f"items/{name}", shape=shape)(run, other)
        for name, shape in (("vectors", [48, _D]), ("id", [48]))
    ],
    "a shape grown": metadata("items/vectors", shape=[4000, _D]),
    "another data type": metadata("users/vectors", data_type="int64"),
    "another fill value": metadata("items/vectors", fill_value=0.0),
    "metadata cut short": (
        lambda run, _: (run / "items/vectors/zarr.json").write_text('{"zarr_format": 3, "node_')
    ),
    "metadata removed": lambda run, _: (run / "items/vectors/zarr.json").unlink(),
    "a bit of a transform flipped": _matrix(flip, mend=False),
    "a transform changed, its checksum mended": _matrix(flip, mend=True),
    "a figure of a transform changed": text("transform/zarr.json", '"rank": 4', '"rank": 3'),
    "a name changed": renamed,
    "another run in its place": instead,
    "the run removed": lambda run, _: shutil.rmtree(run),
}
"""Done to a run."""
OF_A_SERIES: dict[str, Callable[[Path], Any]] = {
    "two chunks of the running reference exchanged": lambda place: exchanged("items/vectors")(
        _reference(place), place
    ),
    "a weight of the running reference changed, its checksum mended": lambda place: changed(
        "items/weight", 1, flip, mend=True
    )(_reference(place), place),
    "the running reference removed": lambda place: shutil.rmtree(_reference(place)),
    "a bit of a version flipped": lambda place: _rewrite(
        place / "versions/2.json", flip, mend=False
    ),
    "a version removed": lambda place: (place / "versions/1.json").unlink(),
    "a bit of its digests flipped": lambda place: _rewrite(
        next((place / "digests").glob("day-1.*")), flip, mend=False
    ),
    "its digests removed": lambda place: next((place / "digests").glob("day-1.*")).unlink(),
}
"""Done to what lies beside the runs."""


def _reference(place: Path) -> Path:
    return place / "references" / "day-1.zarr"


def template(folder: Path) -> Path:
    """A series of two days, a third to add, and the two days stabilized outside of a series; all of
    them raw too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = es.Series.init(folder / "series")
    for day in range(3):
        rng, world = np.random.default_rng(day), np.random.default_rng(99)
        items, users = (
            world.normal(size=(n, _D)) + 0.1 * rng.normal(size=(n, _D)) for n in (60, 90)
        )
        order = np.roll(np.arange(60), day)
        ids: dict[str, Any] = {"item_ids": order + 7, "user_ids": [f"u{n}" for n in range(90)]}
        raw = es.create_run(
            folder / f"day-{day}.zarr", items[order], users, chunk_rows=_ROWS, **ids
        )
        es.stabilize(raw, folder / f"run-{day}.zarr")
        if day < 2:
            series.add(raw, accept="unrelated days")
    return folder


def who_finds(what: str, source: Path, folder: Path) -> list[str]:
    """Who finds this damage: yes, no, or - where it cannot be done."""
    cells = []
    for asked in ASKED:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        try:
            if what in OF_A_SERIES:
                if asked in ASKED[4:]:
                    raise FileNotFoundError
                OF_A_SERIES[what](folder / "series")
            else:
                runs = {"verify RUN": "run-{}.zarr", "stabilize RAW": "day-{}.zarr"}
                name = runs.get(asked, "series/runs/day-{}.zarr")
                KINDS[what](folder / name.format(1), folder / name.format(0))
        except FileNotFoundError:
            cells.append("-")
            continue
        cells.append("yes" if _refuses(asked, folder) else "no")
    return cells


def _refuses(asked: str, folder: Path) -> bool:
    def read() -> None:
        run = es.Series(folder / "series").open()
        es.create_run(folder / "read.zarr", run.items, run.users)
        assert run.transform is not None

    questions: dict[str, Callable[[], Any]] = {
        "open": lambda: es.Series(folder / "series").open(),
        "read": read,
        "add": (
            lambda: es.Series(folder / "series").add(folder / "day-2.zarr", accept="unrelated days")
        ),
        "series verify": lambda: es.Series(folder / "series").verify().require_whole(),
        "verify RUN": lambda: es.open_run(folder / "run-1.zarr", verify=True),
        "stabilize RAW": lambda: es.stabilize(folder / "day-1.zarr", folder / "out.zarr"),
    }
    try:
        questions[asked]()
    except es.EmbstabError:
        return True
    return False


def main(docs: Path | None, kinds: tuple[str, ...] = (*KINDS, *OF_A_SERIES)) -> list[list[str]]:
    """Rows of the table, written into ``docs`` between its marks."""
    with tempfile.TemporaryDirectory() as folder:
        source = template(Path(folder, "template"))
        if any(_refuses(asked, shutil.copytree(source, Path(folder, asked))) for asked in ASKED):
            raise RuntimeError("what nothing was done to is refused")
        rows = [[what, *who_finds(what, source, Path(folder, "copy"))] for what in kinds]
    counts = [
        f"{sum(row[i] == 'yes' for row in rows)} of {sum(row[i] != '-' for row in rows)}"
        for i in range(1, 7)
    ]
    shown = table(["done to it", *ASKED], [*rows, ["**found**", *counts]])
    print("\n".join(shown))
    if docs is not None:
        write_between(docs, BEGIN, END, "\n".join([*shown, ""]))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("docs", type=Path, nargs="?")
    main(parser.parse_args().docs)
