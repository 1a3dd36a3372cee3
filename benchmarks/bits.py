"""Which arrays does the library write with other bits than at an earlier commit, and since when?

    python benchmarks/bits.py a253c20 HEAD --bisect --markdown FILE

Every job of `bits_jobs.py` is done with the package of both commits, on the same runs. With
``--bisect`` the range is halved until every commit that changed an array stands alone; between two
commits with equal arrays none is looked for. A commit that fails at a job is passed over.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, machine, parser, publish, table

HERE = Path(__file__).resolve().parent
Arrays = dict[str, Any]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Compare the commits, print the table, return every figure."""
    options = _parser().parse_args(argv)
    before, now = (_git("rev-parse", "--short", name) for name in (options.before, options.now))
    between = _git("rev-list", "--reverse", "--first-parent", "--abbrev-commit", f"{before}..{now}")
    commits = [before, *between.split()]
    with tempfile.TemporaryDirectory(prefix="embstab-bits-", dir=options.dir) as folder:
        place = Path(folder)
        pairs = [(0, len(commits) - 1)]
        if options.bisect:
            pairs += changes(commits, *pairs[0], place, options.jobs)
        rows = [
            {"from": commits[first], "to": commits[last], "subject": _subject(commits[last])}
            | differences(*(arrays(commits[at], place, options.jobs) for at in (first, last)))
            for first, last in pairs
        ]
        digests = {
            commit: {
                name: hashlib.sha256(values.tobytes()).hexdigest()
                for name, values in arrays(commit, place, options.jobs).items()
            }
            for commit in (before, now)
        }
    results = {
        "command": command_line("bits", argv),
        "machine": machine(1),
        "commits": len(commits) - 1,
        "rows": rows,
        "digests": digests,
    }
    return publish(results, markdown(results), options)


def changes(
    commits: list[str], first: int, last: int, place: Path, only: str
) -> list[tuple[int, int]]:
    """The steps of a range of commits that change an array, the earliest first."""
    ends = [arrays(commits[at], place, only) for at in (first, last)]
    if not differences(*ends)["differ"]:
        return []
    common = ends[0].keys() & ends[1].keys()
    inner = sorted(range(first + 1, last), key=lambda at: abs(2 * at - first - last))
    for middle in inner:
        if common <= arrays(commits[middle], place, only).keys():
            parts = ((first, middle), (middle, last))
            return [step for part in parts for step in changes(commits, *part, place, only)]
    return [(first, last)]


def arrays(commit: str, place: Path, only: str) -> Arrays:
    """What the jobs give at a commit, by the names of job and array."""
    folder = place / commit
    if not folder.exists():
        (folder / "out").mkdir(parents=True)
        archive = ["git", "archive", commit, "dask_embstab"]
        tar = subprocess.run(archive, cwd=HERE.parent, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "x"], cwd=folder, input=tar, check=True)
        environment = os.environ | {"PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1"}
        arguments = (HERE / "bits_jobs.py", folder, place / "runs", only)
        command = [sys.executable, *map(str, arguments)]
        subprocess.run(command, check=False, env=environment, cwd=folder)
    values: Arrays = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            values |= {f"{path.stem}: {name}": stored[name] for name in stored.files}
    return values


def differences(before: Arrays, now: Arrays) -> dict[str, Any]:
    """How many arrays of both are compared, the names of those that differ, and the largest
    difference of each kind in units of its precision at its largest value.
    """
    both = sorted(before.keys() & now.keys())
    differ = [name for name in both if before[name].tobytes() != now[name].tobytes()]
    largest: dict[str, float] = {}
    for name in differ:
        a, b = before[name], now[name]
        kind = f"{name.split(':')[-1].strip()} {a.dtype}"
        units = float("inf")
        if a.shape == b.shape and a.dtype == b.dtype and a.dtype.kind == "f":
            a, b = (np.asarray(values, np.float64) for values in (a, b))
            units = np.abs(a - b).max() / (np.abs(a).max() * np.finfo(before[name].dtype).eps)
        largest[kind] = max(largest.get(kind, 0.0), float(units))
    return {"compared": len(both), "differ": differ, "largest": largest}


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    rows = [
        (f"`{row['from']}`", f"`{row['to']}`", row["subject"], row["compared"], len(row["differ"]),
         "; ".join(f"{kind} {units:.2g}" for kind, units in sorted(row["largest"].items())) or "-")
        for row in results["rows"]
    ]  # fmt: skip
    header = ("from", "to", "its subject", "arrays", "differ", "by, in eps of the largest value")
    made = f"Made by `{results['command']}` on {results['machine']}; {results['commits']} commits."
    return "\n".join([made, "", *table(header, rows), ""])


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=HERE, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _subject(commit: str) -> str:
    return _git("show", "-s", "--format=%s", commit).replace("|", "/")


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("before", help="a commit")
    options.add_argument("now", nargs="?", default="HEAD", help="a later one")
    options.add_argument("--bisect", action="store_true", help="find the commits that change bits")
    options.add_argument(
        "--jobs", default="", metavar="PATTERN", help="only jobs whose name matches"
    )
    return options


if __name__ == "__main__":
    main()
