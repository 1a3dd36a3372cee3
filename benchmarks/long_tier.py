"""What did the long tier test, and how long did it take? Run every test and write a page of the
docs.

    # every test, the long ones too: more than an hour on two cores
    python benchmarks/long_tier.py docs/long-tier.md
    # from a folder of results that are there: long-tier.xml, and of `make test` on other Pythons
    # tests-3.12.xml and so on
    python benchmarks/long_tier.py docs/long-tier.md build

The results are left in ``build/``. Every test records how often it struck and the CPU seconds that
it took. A failed test ends the command with exit code 1, after the page is written. Five times as
many examples of every law are drawn as in the short tier, or ``EMBSTAB_DRAWS`` times.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from common import table, write_between

from dask_embstab.tables.read.limits import physical_memory

HERE = Path(__file__).resolve().parent.parent
BEGIN, END = (
    "<!-- long tier: written by benchmarks/long_tier.py -->",
    "<!-- end of the long tier -->",
)
LONG = "long-tier.xml"
DRAWS = "5"
LEAST_SECONDS = 20
"""Files that took less share a row."""
PROCESSES = str(min(4, (os.cpu_count() or 1) + 1))
"""One more than there are processors: long tests wait for servers, locks and processes that die."""
OPTIONS = (
    *("-v", "-rfE", "-n", PROCESSES),
    # Long tests one by one (tests/campaigns.py): whole files would leave all but one process
    # without work for the last half hour.
    *("--dist", "loadgroup", "--no-loadscope-reorder"),
    *("-o", "junit_family=xunit1"),
)
PACKAGES = ("numpy", "scipy", "dask", "zarr", "xarray", "pyarrow", "pytest")


def main(docs: Path, folder: Path | None = None) -> int:
    """Write the page; the exit code of the tests."""
    exit_code, others = (0, [])
    if folder is None:
        folder, exit_code = HERE / "build", run(HERE / "build" / LONG)
    else:
        others = sorted(folder.glob("tests-*.xml"))
    cases = list(ET.parse(folder / LONG).iter("testcase"))
    lines = [*summary(folder / LONG, cases), "", *by_file(cases), "", *skipped(cases)]
    lines += ["", *elsewhere(others)] if others else []
    failed = [case for case in cases if outcome(case) == "failed"]
    if failed:
        lines += ["", "Failed:", "", *(f"- `{_name(case)}`" for case in failed)]
    write_between(docs, BEGIN, END, "\n".join(lines) + "\n")
    print("\n".join(lines))
    return exit_code or bool(failed)


def run(result: Path) -> int:
    """Run every test; pytest's exit code."""
    result.parent.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, "--junitxml", str(result)],
        cwd=HERE,
        env={"EMBSTAB_DRAWS": DRAWS, **os.environ},
        check=False,
    ).returncode


def summary(result: Path, cases: Sequence[ET.Element]) -> list[str]:
    """The totals, and on what they were found."""
    outcomes = Counter(map(outcome, cases))
    suite = next(ET.parse(result).iter("testsuite"))
    cpu = sum(map(cpu_seconds, cases))
    counted = (
        f"**{len(cases)} tests: {outcomes['passed']} passed, {outcomes['failed']} failed,"
        f" {outcomes['skipped']} skipped; {sum(map(struck, cases))} faults and races, of which"
        f" {sum(map(killed, cases))} deaths of a process; {float(suite.get('time', 0)) / 60:.0f}"
        f" minutes, {cpu / 60:.0f} CPU minutes"
    )
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    made_by = (
        f"{suite.get('timestamp', '')[:10]}, Python {platform.python_version()}, {packages};"
        f" {os.cpu_count()} CPUs, {physical_memory() / 2**30:.0f} GiB:"
    )
    return [made_by, "", f"{counted}.**"]


def by_file(cases: Iterable[ET.Element]) -> list[str]:
    """A row for every file of tests that took its time or struck, the longest first, and one for
    the others.
    """
    files: dict[str, list[ET.Element]] = defaultdict(list)
    for case in cases:
        files[case.get("classname", "").removeprefix("tests.")].append(case)
    rows, others = [], list[ET.Element]()
    for name, own in sorted(files.items(), key=lambda one: -sum(map(seconds, one[1]))):
        if sum(map(seconds, own)) < LEAST_SECONDS and not sum(map(struck, own)):
            others += own
        else:
            rows.append(_row(f"`{name}`", own))
    header = ("file", "passed", "failed", "skipped", "faults and races", "seconds", "CPU seconds")
    return table(header, [*rows, *([_row("all others", others)] if others else [])])


def _row(name: str, own: Sequence[ET.Element]) -> tuple[object, ...]:
    outcomes, times = Counter(map(outcome, own)), (seconds, cpu_seconds)
    counts = (outcomes["failed"], outcomes["skipped"], sum(map(struck, own)))
    spent = (f"{sum(map(of, own)):.0f}" for of in times)
    return (name, outcomes["passed"], *(count or "" for count in counts), *spent)


def skipped(cases: Iterable[ET.Element]) -> list[str]:
    """Why tests were skipped."""
    reasons: Counter[str] = Counter()
    for case in cases:
        skipped = case.find("skipped")
        if skipped is not None:
            reasons[re.sub(r"\s+", " ", skipped.get("message", "")).replace("|", "\\|")] += 1
    return table(("skipped, because", "tests"), reasons.most_common()) if reasons else []


def elsewhere(results: Iterable[Path]) -> list[str]:
    """The short tier on other Pythons: the version is the end of the file's name."""
    rows = []
    for result in results:
        cases = list(ET.parse(result).iter("testcase"))
        outcomes, suite = Counter(map(outcome, cases)), next(ET.parse(result).iter("testsuite"))
        counts = (outcomes[kind] for kind in ("passed", "failed", "skipped"))
        python = result.stem.rpartition("-")[2]
        rows.append((python, *counts, f"{float(suite.get('time', 0)) / 60:.1f}"))
    return table(("`make test` on Python", "passed", "failed", "skipped", "minutes"), rows)


def outcome(case: ET.Element) -> str:
    """Passed, failed or skipped."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def properties(case: ET.Element) -> dict[str, str]:
    """What a test has recorded."""
    return {one.get("name", ""): one.get("value", "") for one in case.iter("property")}


def seconds(case: ET.Element) -> float:
    """By the clock."""
    return float(case.get("time", 0))


def cpu_seconds(case: ET.Element) -> float:
    """Of the test and its child processes."""
    return float(properties(case).get("cpu_seconds", 0))


def struck(case: ET.Element) -> int:
    """How many faults, or calls that raced one another, a test has made."""
    return int(properties(case).get("tried", 0))


def killed(case: ET.Element) -> int:
    """How many of them were deaths of a process, or of what stands for one."""
    ended = properties(case).get("ended")
    if ended is not None:
        return int(ast.literal_eval(ended).get("killed", 0))
    return struck(case) if "kill" in _name(case) else 0


def _name(case: ET.Element) -> str:
    name = re.sub(r"@\w+$", "", case.get("name", ""))  # the group that went to one process
    return f"{case.get('classname')}::{name}"


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
