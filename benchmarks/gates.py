r"""Which figures do the gates see on real weekly runs? Writes the table of docs/series.md.

    python benchmarks/gates.py FOLDER... [--gaps 1 4] [--policies consensus previous first] \
        [--page docs/series.md]

Every FOLDER holds raw runs, named by their dates (``examples/webshop.py`` trains them). Each
folder, policy and gap is a series of its own, with the default thresholds; a run that a gate holds
is counted and published all the same. Then the last run is delivered wrongly in every way that
`deliveries` knows, to a series of the default policy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import table, write_between
from deliveries import BAD, Week

import dask_embstab as es
from dask_embstab.series.log.thresholds import GATES

BEGIN, END = "<!-- gates: written by benchmarks/gates.py -->", "<!-- gates: end -->"


Figures = dict[str, list[float]]


def figures(runs: Sequence[Path], policy: str) -> tuple[Figures, int]:
    """Every figure of every gate over one series, and how many runs were held."""
    by_gate: Figures = {gate.name: [] for gate in GATES}
    n_held = 0
    with tempfile.TemporaryDirectory() as scratch:
        series = es.Series.init(Path(scratch) / "series", policy=policy)
        for run in runs:
            version = series.add(run, accept="measured").version
            n_held += version.accepted is not None
            for verdict in version.verdicts:
                by_gate[verdict["gate"]] += verdict["figures"].values()
    return by_gate, n_held


def passed_and_held(folders: Sequence[Path], policy: str, gap: int) -> tuple[Figures, str]:
    """Figures of all series together, and how many of their runs were held."""
    by_gate: Figures = {gate.name: [] for gate in GATES}
    n_held = n_runs = 0
    for folder in folders:
        runs = weeks_in(folder)[::gap]
        more, n = figures(runs, policy)
        for name, values in more.items():
            by_gate[name] += values
        n_held, n_runs = n_held + n, n_runs + len(runs)
    return by_gate, f"{n_held} of {n_runs}"


def weeks_in(folder: Path) -> list[Path]:
    """The runs in the order of their dates."""
    return sorted(folder.glob("*.zarr"))


def good_runs(folders: Sequence[Path], policies: Sequence[str], gaps: Sequence[int]) -> str:
    """Lowest and highest figure by gate, policy and gap."""
    cases = {
        f"{policy}, every {gap}": passed_and_held(folders, policy, gap)
        for policy in policies
        for gap in gaps
    }
    rows = [
        [
            f"`{gate.name}`",
            f"{gate.sense} {gate.threshold:g}",
            *(_range(figures[gate.name]) for figures, _ in cases.values()),
        ]
        for gate in GATES
    ]
    held = ["runs held", "", *(count for _, count in cases.values())]
    return "\n".join(table(["gate", "threshold", *cases], [*rows, held])) + "\n"


def bad_runs(folder: Path) -> str:
    """What holds each wrong delivery of the last run."""
    *before, last = weeks_in(folder)
    week, other = Week.read(last), Week.read(before[-1])
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        series = es.Series.init(Path(scratch) / "series")
        for run in before[-4:]:
            series.add(run, accept="measured")
        for number, (what, (make, _)) in enumerate(BAD.items()):
            rows.append(
                [what, _held_by(series, make(week, other).write(Path(scratch) / f"{number}.zarr"))]
            )
        rows.append(
            [
                "last week's file under a new name",
                _held_by(series, es.open_run(before[-1]), name="new"),
            ]
        )
        rows.append(["the run as it is", _held_by(series, es.open_run(last))])
    return "\n".join(table(["delivered", "held by"], rows)) + "\n"


def _held_by(series: es.Series, run: es.Run, name: str | None = None) -> str:
    try:
        series.add(run, name=name)
    except es.HoldError as error:
        return ", ".join(
            f"`{verdict['gate']}`" for verdict in error.verdicts if verdict["verdict"] == "hold"
        )
    return "nothing: published"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}" if values else "-"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Figures of the gates on real runs.")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, help="page to write the tables into")
    parser.add_argument("--gaps", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--policies", nargs="+", default=["consensus", "previous", "first"])
    options = parser.parse_args(argv)
    good = good_runs(options.folders, options.policies, options.gaps)
    made = f"{good}\n{bad_runs(options.folders[0])}"
    print(made)
    if options.page:
        write_between(options.page, BEGIN, END, made)


if __name__ == "__main__":
    main()
