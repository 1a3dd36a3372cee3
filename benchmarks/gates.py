"""Which figures do the gates see on real weekly runs? Writes the table of docs/series.md.

    python benchmarks/gates.py FOLDER [--gaps 1 4] [--policies previous first] [docs/series.md]

FOLDER holds raw runs, named by their dates (``examples/webshop.py`` trains them). Each policy and gap is a series of its
own, with the default thresholds; a run that a gate holds is counted and published all the same.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import dask_embstab as es
from dask_embstab.series.gates import GATES

BEGIN, END = "<!-- gates: written by benchmarks/gates.py -->\n", "<!-- gates: end -->\n"


def figures(runs: Sequence[Path], policy: str) -> tuple[dict[str, list[float]], int]:
    """Every figure of every gate over one series, and how many runs were held."""
    found: dict[str, list[float]] = {gate.name: [] for gate in GATES}
    n_held = 0
    with tempfile.TemporaryDirectory() as scratch:
        series = es.Series.init(Path(scratch) / "series", policy=policy)
        for run in runs:
            version = series.add(run, accept="measured").version
            n_held += version.accepted is not None
            for verdict in version.verdicts:
                found[verdict["gate"]] += verdict["figures"].values()
    return found, n_held


def table(folder: Path, policies: Sequence[str], gaps: Sequence[int]) -> str:
    """Lowest and highest figure by gate, policy and gap."""
    runs = sorted(folder.glob("*.zarr"))
    cases = {f"{policy}, every {gap}": figures(runs[::gap], policy) for policy in policies for gap in gaps}
    lines = [f"| gate | threshold | {' | '.join(cases)} |", "|---|---|" + "---|" * len(cases)]
    for gate in GATES:
        cells = [
            f"{min(f[gate.name]):.3g} to {max(f[gate.name]):.3g}" if f[gate.name] else "-" for f, _ in cases.values()
        ]
        lines.append(f"| `{gate.name}` | {gate.sense} {gate.threshold:g} | {' | '.join(cells)} |")
    counts = [f"{n} of {len(runs[:: gaps[i % len(gaps)]])}" for i, (_, n) in enumerate(cases.values())]
    return "\n".join([*lines, f"| runs held | | {' | '.join(counts)} |"]) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Figures of the gates on real runs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("page", nargs="?", type=Path, help="page to write the table into")
    parser.add_argument("--gaps", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--policies", nargs="+", default=["previous", "first"])
    options = parser.parse_args(argv)
    made = table(options.folder, options.policies, options.gaps)
    print(made)
    if options.page:
        text = options.page.read_text()
        pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
        options.page.write_text(re.sub(pattern, lambda _: f"{BEGIN}\n{made}\n{END}", text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
