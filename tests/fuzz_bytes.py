"""A process that reads files whose bytes somebody has changed, and watches itself while it does.

    python tests/fuzz_bytes.py FOLDER SEED SECONDS [ENTRY.json ...]

For SECONDS it draws edits by hypothesis and tries them (or the given entries of the corpus). What a
call may do is succeed or raise `EmbstabError`. What is a failure: any other
exception, a call of more than `MOST_SECONDS`, more memory than `MOST_BYTES` above that of the
untouched files, a program started, a socket opened, an object unpickled, a file opened below the
sentinel or changed outside of FOLDER. One example of each failure is printed, an entry for the
corpus; the edits under trial are in FOLDER/trying.json, so a crash is known too.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import dask
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from oracle import world

import dask_embstab as es

MOST_SECONDS, MOST_BYTES = 60, 1 << 29
Edit = dict[str, Any]
Call = Callable[[], Any]
T, W = world(0)
IDS = {"item_ids": np.arange(60), "user_ids": [f"u{n}" for n in range(90)]}
ODD = (
    b"\0",
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"1e999",
    b'"',
    b"}",
    b"../",
    b"-1",
    b"NaN",
)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 1 << 31, 1 << 63, 10**30, 1e308, "", "../sentinel/secret", "x" * 300,
    "/etc/passwd", "\x1b[2J", [], [[]], {}, {"name": "pickle"}, "|O", "float16", [0], [1 << 40, 4],
)  # fmt: skip
WRITES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
NEVER = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"}
NEVER |= {"socket.bind"}


class Payload:
    """Unpickling it makes a folder in the sentinel's place."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.at),)


# --- what is changed, and who reads it


def runs(folder: Path) -> None:
    """A raw run, one stabilized onto another, a compressed one; ids of both kinds."""
    raw = es.create_run(folder / "raw.zarr", T, W, chunk_rows=16, **IDS)
    es.create_run(folder / "good.zarr", T + 0.1, W, chunk_rows=16, **IDS)
    stable = es.stabilize(raw, folder / "stable.zarr", reference=folder / "good.zarr")
    es.compress(stable, folder / "small.zarr", code="int8")


def read_runs(folder: Path) -> Iterator[Call]:
    good, out = folder / "good.zarr", folder / "out"
    for name in ("raw", "stable", "small"):
        place = folder / f"{name}.zarr"
        yield lambda place=place: repr(es.open_run(place, verify=True))
        yield lambda place=place: es.evaluate(good, place, users=10, k=3)
        yield lambda place=place: es.open_run(place).table("users").rows_of(["u3", "u5"])
    yield lambda: es.stabilize(folder / "raw.zarr", out, reference=good)
    yield lambda: es.apply(folder / "stable.zarr", folder / "raw.zarr", out)
    yield lambda: es.open_run(folder / "stable.zarr").transform
    yield lambda: es.report(folder / "stable.zarr")
    yield lambda: es.export(folder / "small.zarr", out, format="npy")


def a_series(folder: Path) -> None:
    """Two versions, a rebase, a delivery that was held."""
    made = es.Series.init(folder / "series")
    for n in range(2):
        made.add(es.create_run(folder / f"{n}.zarr", T + 0.02 * n, W, chunk_rows=64, **IDS))
    made.rebase(2)
    with __import__("contextlib").suppress(es.HoldError):
        made.add(es.create_run(folder / "held.zarr", T[::-1], W, chunk_rows=64, **IDS))
    es.create_run(folder / "next.zarr", T + 0.05, W, chunk_rows=64, **IDS)


def read_series(folder: Path) -> Iterator[Call]:
    place = folder / "series"
    for look in ("log", "status", "open", "manifest", "verify", "metrics", "report", "codes"):
        yield lambda look=look: getattr(es.Series(place), look)()
    yield lambda: es.evaluate(f"{place}@1", f"{place}@2", users=10, k=3)
    yield lambda: es.Series(place).add(folder / "next.zarr")
    yield lambda: es.Series(place).rollback(1)
    yield lambda: es.Series(place).forget([3], table="items", rewrite=True)
    yield lambda: es.Series(place).gc(grace=0)


def transforms(folder: Path) -> None:
    """Saved transforms and moments."""
    items, users = es.table(T, ids=IDS["item_ids"]), es.table(W, ids=IDS["user_ids"])
    es.fit(items, users, reference=es.table(T + 0.1, ids=IDS["item_ids"])).save(folder / "t.npz")
    es.moments(items).save(folder / "m.npz")


def read_transforms(folder: Path) -> Iterator[Call]:
    place = folder / "t.npz"
    yield lambda: es.load_transform(place).transform_items(T)
    yield lambda: es.load_transform(place).inverse()
    yield lambda: es.space_of(place)
    yield lambda: es.apply(place, es.table(T, ids=IDS["item_ids"]), folder / "out")
    yield lambda: es.export(place, folder / "out", format="numpy-source")
    yield lambda: es.fit(es.TableMoments.load(folder / "m.npz"))


def files(folder: Path) -> None:
    """Tables in files of other formats."""
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet as pq

    table = pa.table({"id": [f"i{n}" for n in range(60)], "vector": list(T.astype("f4"))})
    pq.write_table(table, folder / "t.parquet", row_group_size=20)
    pa.feather.write_feather(table, folder / "t.arrow", compression="uncompressed")
    np.save(folder / "t.npy", T)
    lines = [f"{n}," + ",".join(map(str, row)) for n, row in enumerate(T)]
    (folder / "t.csv").write_text("\n".join(["id,x0,x1,x2,x3", *lines]) + "\n")
    words = [f"w{n} " + " ".join(map(str, row)) for n, row in enumerate(T)]
    (folder / "t.vec").write_text("\n".join([f"{len(T)} 4", *words]) + "\n")
    header = json.dumps({"vector": {"dtype": "F64", "shape": [60, 4], "data_offsets": [0, 1920]}})
    tensors = len(header).to_bytes(8, "little") + header.encode() + T.tobytes()
    (folder / "t.safetensors").write_bytes(tensors)


def read_files(folder: Path) -> Iterator[Call]:
    for place in sorted(folder.glob("t.*")):
        yield lambda place=place: es.fit(es.table(place))
        yield lambda place=place: es.ingest(place, folder / "out")


def requests(folder: Path) -> None:
    """A series that is served, and a request of each kind."""
    a_series(folder)
    rows = T[:2].tolist()
    asked = {"transform": {"vectors": rows}, "search": {"vectors": rows, "k": 3}}
    asked |= {"lookup": {"table": "items", "ids": [3, 5]}}
    for name, body in asked.items():
        (folder / f"{name}.request").write_text(json.dumps({"k": 3, "version": None, **body}))


def ask(folder: Path) -> Iterator[Call]:
    for place in sorted(folder.glob("*.request")):
        yield lambda place=place: answered(folder / "series", place)


def answered(series: Path, place: Path) -> None:
    from starlette.testclient import TestClient

    from dask_embstab.serving.app import Service, application

    with es.Live(series, every=0) as live:
        client = TestClient(application(Service(live, None, 1 << 16)))
        sent = client.post(f"/{place.stem}", content=place.read_bytes())
        if sent.status_code not in (200, 400, 404, 409, 413) or not sent.json():
            raise Broken(f"{sent.status_code}: {sent.text}")


TARGETS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Iterator[Call]], str]] = {
    "runs": (runs, read_runs, r"[rs]*.zarr/**/*"),
    "series": (a_series, read_series, "series/**/*"),
    "transforms": (transforms, read_transforms, "*.npz"),
    "files": (files, read_files, "t.*"),
    "requests": (requests, ask, "*.request"),
}
"""What makes the files, who reads them, and which of them are changed."""


# --- edits


def edits() -> st.SearchStrategy[Edit]:
    """One change of the bytes of one file; places are shares of its length, so they fit any."""
    place, file = st.floats(0, 1, exclude_max=True), st.integers(0, 1 << 16)
    odd = st.one_of(st.sampled_from(ODD), st.binary(min_size=1, max_size=8))
    code = odd.map(lambda data: base64.b64encode(data).decode())
    made = {
        "flip": {"at": place, "bit": st.integers(0, 7)},
        "put": {"at": place, "bytes": code},
        "insert": {"at": place, "bytes": code},
        "cut": {"at": place, "length": st.sampled_from([1, 4, 64, 1 << 20])},
        "repeat": {"at": place, "length": st.sampled_from([1, 64]), "times": st.integers(2, 1000)},
        "exchange": {"with": file},
        "pickle": {"at": place},
        "json": {"at": place, "value": st.integers(0, len(VALUES) - 1)},
        "drop": {"at": place},
        "remove": {},
    }  # fmt: skip
    return st.one_of(
        *(
            st.fixed_dictionaries({"do": st.just(do), "file": file, **more})
            for do, more in made.items()
        )
    )


def edited(data: bytes, edit: Edit, others: list[Path], sentinel: Path) -> bytes:
    """The bytes after one edit."""
    at = int(len(data) * edit.get("at", 0))
    new = base64.b64decode(edit.get("bytes", ""))
    match edit["do"]:
        case "flip" if data:
            return data[:at] + bytes([data[at] ^ 1 << edit["bit"]]) + data[at + 1 :]
        case "put":
            return data[:at] + new + data[at + len(new) :]
        case "insert":
            return data[:at] + new + data[at:]
        case "cut":
            return data[:at] + data[at + edit["length"] :]
        case "repeat":
            part = data[at : at + edit["length"]]
            return data[:at] + part * edit["times"] + data[at + edit["length"] :]
        case "exchange":
            return others[edit["with"] % len(others)].read_bytes()
        case "pickle":
            return (
                data[:at] + pickle.dumps(Payload(sentinel / "made"))
                if at
                else pickle.dumps(Payload(sentinel / "made"))
            )
        case "json" | "drop":
            return _edited_json(data, edit)
    return data


def _edited_json(data: bytes, edit: Edit) -> bytes:
    """A value somewhere in a JSON file put or dropped; its checksum is mended where it has one."""
    try:
        values = json.loads(data)
    except ValueError:
        return data
    inner = list(_containers(values))
    if not inner:
        return data
    where, key = inner[int(len(inner) * edit["at"])]
    if edit["do"] == "drop":
        del where[key]
    else:
        where[key] = VALUES[edit["value"] % len(VALUES)]
    return _with_checksum(values, data)


def _with_checksum(values: Any, data: bytes) -> bytes:
    from dask_embstab.files.stored_json import checksum_of
    from dask_embstab.series.log.version_file import encoded_lines

    try:
        if b'\n"findings": {' in data:
            core = {k: v for k, v in values.items() if k not in ("findings", "details", "crc32c")}
            return encoded_lines(core, {**values["findings"], **values["details"]})
        if isinstance(values, dict) and "crc32c" in values:
            del values["crc32c"]
            values["crc32c"] = checksum_of(values)
    except (KeyError, TypeError):
        pass
    return json.dumps(values).encode()


def _containers(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _containers(inner)


# --- trying


class Broken(Exception):
    """What must not happen has happened."""


seen: list[str] = []


def watch(root: Path, sentinel: Path) -> None:
    """Note what this process does to the system."""
    allowed, secret = str(root), str(sentinel)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        unpickles = event == "pickle.find_class" and arguments[0] in ("os", "posix", "builtins")
        if event in NEVER or unpickles:
            seen.append(f"{event} {arguments[:2]}")
        elif event == "open" or event in WRITES:
            place = arguments[0]
            if not isinstance(place, str | bytes | os.PathLike):
                return
            path = os.path.abspath(os.fsdecode(place))  # noqa: PTH100 (links stay)
            flags = arguments[2] if event == "open" else os.O_WRONLY
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            outside = writes and not path.startswith(allowed) and not path.startswith("/dev/")
            if outside or path.startswith(secret):
                seen.append(f"{event} {path}")

    sys.addaudithook(hook)


def attempt(call: Callable[[], Any]) -> None:
    """Success and `EmbstabError` are both well."""
    del seen[:]
    try:
        call()
    except es.EmbstabError as error:
        if "\n" in str(error):
            raise Broken(f"an error of several lines: {error!r}") from error
    if seen:
        raise Broken("; ".join(seen[:3]))


def tried(folder: Path, target: str, changes: list[Edit], which: int | None = None) -> None:
    """Change a copy of the target's files, and make one of the calls that read them (None: all)."""
    _, read, pattern = TARGETS[target]
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder / target, work)
    (folder / "trying.json").write_text(json.dumps(entry(target, changes, which)))
    for edit in changes:
        result = sorted(path for path in work.glob(pattern) if path.is_file())
        if not result:
            break
        path = result[edit["file"] % len(result)]
        if edit["do"] == "remove":
            path.unlink()
        else:
            path.write_bytes(edited(path.read_bytes(), edit, result, folder / "sentinel"))
    signal.alarm(MOST_SECONDS)
    try:
        calls = list(read(work))  # none where every file was removed
        for call in calls if which is None else calls[which % max(1, len(calls)) :][:1]:
            attempt(call)
    finally:
        signal.alarm(0)


def ready(folder: Path) -> Path:
    """Make the files of all targets, read them once untouched, and set the limits: of memory, and
    on what this process may do.
    """

    def give_up(*_: Any) -> None:
        raise Broken(f"a call took more than {MOST_SECONDS} s")

    warnings.simplefilter("ignore")
    os.fsync = lambda _: None  # no test cuts the power
    sentinel = folder / "sentinel"
    sentinel.mkdir(parents=True)
    (sentinel / "secret").write_text("nobody reads this")
    (folder / "scratch").mkdir()
    dask.config.set({"scheduler": "synchronous", "embstab.scratch": str(folder / "scratch")})
    signal.signal(signal.SIGALRM, give_up)
    for name, (make, _, _) in TARGETS.items():
        (folder / name).mkdir()
        make(folder / name)
        tried(folder, name, [])
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_BYTES, now + MOST_BYTES))
    os.chdir(folder)  # paths that are relative to an open folder are taken for ones of here
    watch(folder, sentinel)
    return sentinel


def entry(target: str, changes: list[Edit], which: int | None) -> Edit:
    """For the corpus."""
    return {"target": target, "edits": changes, "call": which}


def failure_of(folder: Path, target: str, changes: list[Edit], which: int | None) -> str | None:
    """What went wrong, by the kind of the exception and the place that raised it; None: nothing."""
    try:
        tried(folder, target, changes, which)
    except Broken as broken:
        return f"{target}: {str(broken).replace(str(folder), '')[:200]}"
    except Exception as error:  # noqa: BLE001 (that is what is looked for)
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "/dask_embstab/" in f.filename] or frames
        at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return f"{target}: {type(error).__name__} at {at}: {str(error)[:100]!r}"
    return None


def campaign(folder: Path, number: int, seconds: float) -> tuple[int, dict[str, Edit]]:
    """Draw edits until the time is over; how many were tried, and one example of each failure."""
    n_tried, end = 0, time.monotonic() + seconds
    failures: dict[str, Edit] = {}
    kinds: set[str] = set()

    @settings(max_examples=200, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(
        st.sampled_from(sorted(TARGETS)),
        st.lists(edits(), min_size=1, max_size=3),
        st.integers(0, 99),
    )
    def each(target: str, changes: list[Edit], which: int) -> None:
        nonlocal n_tried
        if time.monotonic() > end:
            return
        n_tried += 1
        failure = failure_of(folder, target, changes, which)
        kind = re.sub(r"(line \d+|: [\"'].*|[\d.]+)", "", failure or "")
        if failure and kind not in kinds:
            kinds.add(kind)
            for edit in changes:  # one of them alone, where that does
                if len(changes) > 1 and (alone := failure_of(folder, target, [edit], which)):
                    failure, changes = alone, [edit]
                    break
            failures[failure] = entry(target, changes, which)

    while time.monotonic() < end:
        seed(number + n_tried)(each)()
    return n_tried, failures


def main(folder: Path, number: int, seconds: float, entries: list[Path]) -> None:
    """Print how many edits were tried; any other end is a failure."""
    sentinel = ready(folder)
    before = set(folder.iterdir())
    failures = {}
    for file in entries:
        known = json.loads(file.read_text())
        if failure := failure_of(folder, known["target"], known["edits"], known["call"]):
            failures[f"{file.name}: {failure}"] = known
    n_tried, more = campaign(folder, number, seconds)
    assert [path.name for path in sentinel.iterdir()] == ["secret"], "the sentinel was touched"
    assert {path.name for path in {*folder.iterdir()} - before} <= {"work", "trying.json"}
    for failure, example in (failures | more).items():
        sys.stderr.write(f"{failure} {json.dumps(example)}\n")
    sys.stdout.write(f"{len(entries) + n_tried}\n")
    sys.exit(bool(failures or more))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]).absolute(),
        int(sys.argv[2]),
        float(sys.argv[3]),
        [Path(one).absolute() for one in sys.argv[4:]],
    )
