"""What every benchmark does: options, the machine, a scheduler, peaks of memory, and publishing its
figures.

``ru_maxrss`` of a child starts from its parent's peak, so `launched` puts a tiny process in
between; ``VmHWM`` of a process starts afresh with every program.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec

from dask_embstab.passes.engine.cluster import loaded_family
from dask_embstab.tables.read.limits import physical_memory

_LAUNCHER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def parser(description: str | None, *, folder: bool = True) -> argparse.ArgumentParser:
    """A parser with the options of all benchmarks; ``folder`` adds the place of their data."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--markdown", metavar="FILE", help="write the table there as well")
    made.add_argument("--json", metavar="FILE", help="write every figure there")
    if folder:
        made.add_argument(
            "--dir", help="folder for the data; the system's temporary one by default"
        )
    return made


def command_line(name: str, argv: list[str] | None) -> str:
    """The command that makes the same figures again."""
    return " ".join(["python", f"benchmarks/{name}.py", *(sys.argv[1:] if argv is None else argv)])


def machine(threads: int) -> str:
    """What the figures were measured on."""
    return (
        f"{os.cpu_count()} CPUs, {physical_memory() / 2**30:.0f} GiB, {threads} threads,"
        f" {loaded_family()}"
    )


def publish(results: dict[str, Any], text: str, options: argparse.Namespace) -> dict[str, Any]:
    """Print the Markdown ``text``, write it and the figures where the options say, and hand the
    figures back.
    """
    print(text)
    if options.markdown:
        Path(options.markdown).write_text(text)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    return results


def write_between(docs: Path, begin: str, end: str, text: str) -> None:
    """Write a text between its marks in a page."""
    page = docs.read_text()
    before, after = page[: page.index(begin)], page[page.index(end) :]
    docs.write_text(f"{before}{begin}\n\n{text}\n{after}")


def table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (header, *rows)]
    return [lines[0], "|" + "---|" * (lines[0].count(" | ") + 1), *lines[1:]]


def launched(*command: object, environment: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Output and peak memory in bytes of a command in a process of its own; RuntimeError with its
    words where it fails.
    """
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    *lines, peak = done.stdout.splitlines()
    return "\n".join(lines), int(peak)


def peak_bytes(process: int | str = "self") -> int | None:
    """Most memory that this process, or another by its number, has held so far; None where the
    system does not say.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def least_cpu_seconds(
    contestants: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, float]:
    """CPU seconds of each contestant in this process, all in turn, the least of the repeats; a
    first turn does not count.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats + 1):
        for name, work in contestants.items():
            before = _cpu_seconds()
            work()
            taken[name].append(_cpu_seconds() - before)
    return {name: min(seconds[1:]) for name, seconds in taken.items()}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def new_vectors(
    group: zarr.Group,
    n: int,
    d: int,
    chunk_rows: int,
    *,
    dtype: npt.DTypeLike = np.float32,
    codecs: Iterable[Any] = (Crc32cCodec(),),
) -> zarr.Array[Any]:
    """An empty table of vectors in a group, as the library lays it out."""
    return group.create_array(
        "vectors",
        shape=(n, d),
        chunks=(chunk_rows, d),
        dtype=dtype,
        compressors=list(codecs),
        fill_value=math.nan,
    )


def new_ids(group: zarr.Group, n: int, chunk_rows: int) -> zarr.Array[Any]:
    """An empty column of int64 ids in a group."""
    return group.create_array(
        "id", shape=(n,), chunks=(chunk_rows,), dtype="i8", compressors=[Crc32cCodec()]
    )


@contextlib.contextmanager
def scheduler(address: str | None, threads: int) -> Iterator[Any]:
    """Compute on the Dask scheduler at ``address`` (yields its client), or on so many threads
    (yields None).
    """
    if address is None:
        with dask.config.set(scheduler="threads", num_workers=threads):
            yield None
        return
    from distributed import Client

    with Client(address, set_as_default=False) as client, client.as_current():
        yield client
