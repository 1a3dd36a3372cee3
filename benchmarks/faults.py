"""How many faults were tried? Run the tests that make them and write their counts into the docs.

    # on a series; the long campaigns, half an hour on two cores
    python benchmarks/faults.py docs/series.md
    # on writes of runs, by other processes; a quarter of an hour
    python benchmarks/faults.py docs/damage.md
    # from results of ``pytest --junitxml`` that are there
    python benchmarks/faults.py docs/series.md a.xml ...

Every test that strikes records how often it did; a failed test ends the command and leaves the docs
as they are.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from common import table, write_between

HERE = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- faults: written by benchmarks/faults.py -->", "<!-- end of faults -->"
_PROPERTIES = ("-o", "junit_family=xunit1")
KINDS = {
    "nth_operation": "`{1}`: a file operation {2}",
    "operation_of_the_store": "operation of the store wrapper, `{1}`, {2}",
    "kill_9": "SIGKILL of the whole process at a random time",
    "several_publishers": "publishes by several processes at once",
    "full_disk": "write beyond a file-size limit (a full disk)",
    "a_year": "fault, kill or power cut in {0} scripted days, with rollbacks and gc",
    "resumed_writes": (
        "`--resume`: SIGKILL at a random time, a damaged chunk of what it left, an input written in"
        " between"
    ),
    "overwriting_writers": (
        "three `--overwrite` at one place, one killed at a random time, a reader beside them ({0})"
    ),
    "writers_and_readers": (
        "`--overwrite` calls of several processes at one place, two readers beside them"
    ),
    "written_all_the_time": (
        "`stabilize` of an input that another process writes all the time ({0})"
    ),
}
CAMPAIGNS = {
    "series.md": (
        "test_series_faults.py",
        "test_rebase_faults.py",
        "test_forget_faults.py",
        "test_series_processes.py",
        "test_series_codes_faults.py",
    ),
    "compression.md": ("test_compress_faults.py",),
    "damage.md": ("test_kills.py", "test_input_races.py", "test_overwrite_races.py"),
}
"""The tests whose counts a page of the docs has."""
WORDS = {
    "fail": "fails",
    "kill": "is the last of a killed process",
    "power": "is the last before a power cut",
}


def main(docs: Path, results: Sequence[Path]) -> None:
    """Write the table."""
    counts: Counter[str] = Counter()
    for result in results or [run(CAMPAIGNS[docs.name])]:
        counts += tried(result, CAMPAIGNS[docs.name])
    faults = counts.total() - counts[KINDS["several_publishers"]]  # these are no faults
    made = "\n".join(
        table(("fault", "tried"), [*counts.items(), ("**faults in all**", f"**{faults}**")])
    )
    write_between(docs, BEGIN, END, f"{made}\n")
    print(made)


def run(names: Sequence[str]) -> Path:
    """Run the long tests that strike."""
    result = Path(tempfile.mkdtemp()) / "faults.xml"
    files = [str(HERE / "tests" / name) for name in names]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *files, "--junitxml", str(result), *_PROPERTIES],
        cwd=HERE,
        check=True,
    )
    return result


def tried(result: Path, files: Sequence[str]) -> Counter[str]:
    """Strikes by kind, in the order of the tests of these files."""
    counts: Counter[str] = Counter()
    for case in ET.parse(result).iter("testcase"):
        if f"{case.get('classname', '').rpartition('.')[2]}.py" not in files:
            continue
        name = re.sub(r"@\w+$", "", case.get("name", ""))  # the group that went to one process
        if case.find("failure") is not None or case.find("error") is not None:
            raise SystemExit(f"error: {name} failed; the docs are left as they are")
        for known in case.iter("property"):
            if known.get("name") == "tried":
                counts[_kind(name)] += int(known.get("value", 0))
    return counts


def _kind(name: str) -> str:
    arguments = re.sub(r"^[^\[]*\[|\]$", "", name).split("-")
    words = [
        WORDS.get(word, {"True": "done and its reply lost", "False": "not done"}.get(word, word))
        for word in arguments
    ]
    template = next(text for part, text in KINDS.items() if part in name)
    return template.format(*words)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
