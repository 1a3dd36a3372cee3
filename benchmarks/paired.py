"""How much faster or slower is this checkout than an earlier one? Whole processes that alternate.

    git worktree add /tmp/before COMMIT
    python benchmarks/paired.py --before /tmp/before --markdown FILE

The earlier code writes the runs, and both stabilize them: 10,000 items and 20,000 users, and as
many more as ``--gb`` says, alone and onto a stabilized run. Ratios are earlier over now, the median
of the pairs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import command_line, machine, parser, publish, table

HERE = Path(__file__).resolve().parent.parent
_MAKE = """
import sys
import numpy as np
import dask_embstab as es
place, n = sys.argv[1], int(sys.argv[2])
for name in ("monday", "tuesday"):
    rng = np.random.default_rng(name == "monday")
    rows, users = (rng.standard_normal((k, 64), np.float32) for k in (n, 2 * n))
    es.create_run(f"{place}/{name}", rows, users, item_ids=np.arange(n), user_ids=np.arange(2 * n))
es.stabilize(f"{place}/monday", f"{place}/reference")
"""
_RUN = "import sys; from dask_embstab.cli.main import main; sys.exit(main())"
_RUN_BEFORE = f"""
try:
    import dask_embstab.cli.main
except ImportError:
    import sys; from dask_embstab.cli import main; sys.exit(main())
{_RUN}
"""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("paired", argv),
        "machine": machine(os.cpu_count() or 1),
        "rows": [],
    }
    for n in (10_000, int(options.gb * 1e9) // (3 * 64 * 4)):
        with tempfile.TemporaryDirectory(prefix="embstab-paired-", dir=options.dir) as folder:
            _python(options.before, _MAKE, folder, n)
            for name, more in (("alone", ()), ("onto", ("--reference", f"{folder}/reference"))):
                results["rows"].append(
                    {"items": n, "job": name} | pairs(Path(folder), more, options)
                )
    return publish(results, markdown(results), options)


def pairs(folder: Path, more: tuple[str, ...], options: argparse.Namespace) -> dict[str, float]:
    """Medians of a job in both checkouts, in turn; a first pair does not count."""
    checkouts = {"before": (options.before, _RUN_BEFORE), "now": (HERE, _RUN)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
    for number in range(options.repeats + 1):
        for name in sorted(checkouts, reverse=bool(number % 2)):
            where, program = checkouts[name]
            out = folder / "out"
            began, used = time.perf_counter(), os.times()
            _python(where, program, "stabilize", folder / "tuesday", out, *more)
            wall, ended = time.perf_counter() - began, os.times()
            cpu = sum(ended[2:4]) - sum(used[2:4])
            shutil.rmtree(out)
            if number:
                taken[name].append((wall, cpu))
    both = list(zip(taken["before"], taken["now"], strict=True))
    return {
        **{f"{name} s": statistics.median(wall for wall, _ in taken[name]) for name in taken},
        "ratio": statistics.median(a[0] / b[0] for a, b in both),
        "CPU ratio": statistics.median(a[1] / b[1] for a, b in both),
    }


def _python(checkout: str | Path, program: str, *arguments: object) -> None:
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=checkout)


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    header = ("items", "job", "before s", "now s", "ratio", "CPU ratio")
    rows = [
        (f"{row['items']:,}", row["job"], *(f"{row[key]:.2f}" for key in header[2:]))
        for row in results["rows"]
    ]
    made = f"Made by `{results['command']}` on {results['machine']}; medians of pairs."
    return "\n".join([made, "", *table(header, rows), ""])


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--before", required=True, metavar="CHECKOUT")
    options.add_argument("--gb", type=float, default=0.5, help="of both tables of the larger run")
    options.add_argument("--repeats", type=int, default=3)
    return options


if __name__ == "__main__":
    main()
