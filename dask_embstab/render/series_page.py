"""The page of a series: is it well, and then everything that its versions and a sample of its runs
tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dask_embstab.render.charts import Line, line_chart, stacked_bars
from dask_embstab.render.figures import TABLES, Absent, Figure, merged, sections_of
from dask_embstab.render.html import Html, Section, Verdict, paragraph
from dask_embstab.render.likeness import (
    component_figure,
    cosine_by_gap,
    cosine_histogram,
    day_heatmaps,
    moved_figures,
    share_columns,
    skew_heatmap,
)
from dask_embstab.render.marks import shortened
from dask_embstab.render.pair_page import key_of, troubles

_NO_SKEW = (
    "it needs two live runs that share queries, and tables of which a report reads two (series skew"
    " measures any)."
)
_NEEDS_TWO = "it needs two live runs."
_STEPS, _MOST_STEPS = ("add", "fit", "apply", "verify", "codes", "gates", "consensus"), 4
"""Of the publish of a run; the first ones are drawn."""


def series_verdict(values: Mapping[str, Any]) -> Verdict:
    """The line and the figures to look at first."""
    status, head = values["status"], values["status"]["head"]
    if head is None:
        line = "Nothing is published yet"
    elif values["well"]:
        line = f"All is well: {shortened(head['run'])} is live"
    else:
        off = troubles(key for key in values["keys"] if key["is_off"])
        line = f"Look at this: {'; '.join([*_trouble(status), *off])}"
    keys = tuple(map(key_of, values["keys"]))
    return Verdict(values["well"], line, keys, tuple(values["lines"]))


def series_sections(values: Mapping[str, Any], prefix: str) -> tuple[Section, ...]:
    """What the page holds below the verdict; ids of its elements begin with ``prefix``."""
    names = [shortened(str(run["run"])) for run in values["runs"]]
    days = values["days"]
    tables = {} if days is None else days["tables"]
    known = [key for key in TABLES if key in tables]
    day_names = [] if days is None else [shortened(str(run)) for run in days["runs"]]
    between = " and ".join(reversed(day_names[-2:]))
    parts: dict[str, list[Figure | Absent]] = {
        "Day by day, before and after": [
            day_heatmaps(key, day_names, tables[key]["before"], tables[key]["after"], of=days["of"])
            for key in known
        ]
        or [Absent("The same ids on two days", _NEEDS_TWO)],
        "How far apart, and how far it could be": [
            *merged(
                "Cosine of the same ids by distance",
                {key: cosine_by_gap(key, tables[key]["by_gap"]) for key in known},
            ),
            *merged(
                "Cosines of the last two runs",
                {key: cosine_histogram(key, tables[key]["last"], between) for key in known},
            ),
            (
                skew_heatmap(days["skew"])
                if days and days.get("skew")
                else Absent("Version skew", _NO_SKEW)
            ),
        ],
        "Ids that moved most": moved_figures(
            {key: tables[key]["last"].get("moved") or {} for key in known}, between
        )
        or [Absent("Most moved ids", _NEEDS_TWO)],
        "The space": [
            *merged(
                "Spectrum over time",
                {key: _spectrum(key, values["spectra"]) for key in values["spectra"]},
            ),
            *merged(
                "What each component explains",
                {
                    key: share_columns(
                        key,
                        spectrum["head_share"],
                        "Share of the sum of squares of the live run's rows by direction, largest"
                        " first: a long flat tail is components that carry little.",
                        unit="share of squares, by direction",
                    )
                    for key, spectrum in values["spectra"].items()
                },
            ),
            *merged(
                "Components of the last two runs",
                {key: component_figure(key, tables[key]["last"], between) for key in known},
            ),
        ],
        **({"Codes": _codes(values["codes"], names)} if values["codes"] else {}),
        "Gates against their thresholds": [_gate(gate, names) for gate in values["gates"]],
        "Rows, sizes and times": [
            *merged(
                "Rows matched, new and gone",
                {key: _rows(key, values["tables"][key], names) for key in values["tables"]},
            ),
            *_sizes_and_times(values, names),
        ],
    }
    sections = sections_of(parts, prefix)
    return (*sections, Section("What this page is made of", _made_of(values)))


def _trouble(status: Mapping[str, Any]) -> list[str]:
    counts = [
        (len(status[name]), f"{name} delivery", f"{name} deliveries")
        for name in ("held", "failed", "unfinished")
    ]
    parts = [f"{n} {one if n == 1 else many}" for n, one, many in counts if n]
    if status["ignored"]:
        parts.append(f"the live run was published in spite of {', '.join(status['ignored'])}")
    return parts


def _gate(gate: Mapping[str, Any], names: Sequence[str]) -> Figure | Absent:
    title = gate["gate"].replace("_", " ").capitalize()
    if not gate["figures"]:
        return Absent(title, f"no run has this figure yet ({gate['meaning']}).")
    lines = [Line(table, values) for table, values in gate["figures"].items()]
    limits = [("threshold", gate["threshold"])]
    if gate["sense"] == "within a factor of":
        limits.append(("1/threshold", [t and 1 / t for t in gate["threshold"]]))
    n_held = gate["verdict"].count("hold")
    last = {table: values[-1] for table, values in gate["figures"].items()}
    latest = ", ".join(f"{t} {v:.3g}" for t, v in last.items() if v is not None) or "not known"
    return Figure(
        title,
        f"{gate['meaning']}. Of the last run: {latest}; held {n_held} times.",
        f"{gate['meaning'].capitalize()}; good is {gate['sense']} the dashed threshold.",
        (line_chart(names, lines, unit=gate["sense"], limits=limits),),
        ("run", *gate["figures"], "threshold", "verdict"),
        tuple(
            (name, *(values[k] for values in gate["figures"].values()), threshold, verdict or "-")
            for k, (name, threshold, verdict) in enumerate(
                zip(names, gate["threshold"], gate["verdict"], strict=True)
            )
        ),
    )


def _codes(tables: Mapping[str, Any], names: Sequence[str]) -> list[Figure | Absent]:
    """Codes of each run, frozen beside refitted."""
    shown: list[Figure | Absent] = []
    for key, known in tables.items():
        for what, reading in _CODES.items():
            lines = [Line("frozen", known[what]), Line("refitted", known[f"refit_{what}"])]
            lines = [line for line in lines if any(value is not None for value in line.values)]
            title = f"{what.capitalize()} of the codes of {key}"
            if not lines:
                shown.append(Absent(title, "no run has this figure yet."))
                continue
            last = known[what][-1]
            last_figure = "not known" if last is None else f"{last:.3g}"
            shown.append(
                Figure(
                    title,
                    f"Lines over {len(names)} runs; the last has {last_figure}.",
                    reading,
                    (line_chart(names, lines, unit=what, ends=(0.0,)),),
                    ("run", "made by version", "frozen", "refitted"),
                    tuple(
                        zip(
                            names,
                            known["made"],
                            known[what],
                            known[f"refit_{what}"],
                            strict=True,
                        )
                    ),
                )
            )
    return shown


_CODES = {
    "agreement": (
        "The share of code bytes that are those of the run before, for the same ids: what freezing"
        " the code keeps, beside what a code fitted to each run would keep."
    ),
    "error": (
        "Relative error of the rows that codes give back, beside that of a code fitted to each run"
        " (of rows that it has not seen): a frozen line that climbs away asks for a refit."
    ),
}


def _spectrum(key: str, spectra: Mapping[str, Any]) -> Figure:
    spectrum = spectra[key]
    names = [shortened(str(run)) for run in spectrum["runs"]]
    values = spectrum["per_row"]
    deep = max(map(len, values))
    ranks = sorted({0, 1, 2, deep // 3, deep // 2, deep - 1} & set(range(deep)))
    lines = [Line(_ordinal(k), [row[k] if k < len(row) else None for row in values]) for k in ranks]
    return Figure(
        f"Spectrum of the {key} over time",
        f"Lines of singular values of {len(names)} runs over the root of their rows; the largest"
        f" is {values[-1][0]:.3g} in the last run.",
        "Singular values per row, largest first, on a logarithmic scale: level lines are a space"
        " that keeps its shape; a jump is a model that changed. The table has the"
        f" {deep} largest of {spectrum['components']}.",
        (line_chart(names, lines, unit="singular value per row", is_log=True),),
        ("run", *(_ordinal(k) for k in range(deep))),
        tuple(
            (name, *row, *[None] * (deep - len(row)))
            for name, row in zip(names, values, strict=True)
        ),
    )


def _ordinal(k: int) -> str:
    n = k + 1
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _rows(key: str, rows_of: Mapping[str, Any], names: Sequence[str]) -> Figure:
    counts = ("matched", "new", "gone")
    asked = any(value is not None for value in rows_of["matched"])
    parts = (
        [Line(name, rows_of[name]) for name in counts] if asked else [Line("rows", rows_of["rows"])]
    )
    last = ", ".join(
        f"{rows_of[name][-1]} {'' if name == 'rows' else name}".rstrip()
        for name in ("rows", *counts)
        if rows_of[name][-1] is not None
    )
    reading = (
        "The rows of each run whose ids its reference has (matched) or does not have (new,"
        " striped), and those of the reference alone (gone, closely striped): a wide striped part"
        " is a catalogue that turned over, or ids that were renamed. A table that does not decide"
        " the rotation is not compared, and shows its rows."
    )
    return Figure(
        f"{key.capitalize()} matched, new and gone" if asked else f"Rows of {key}",
        f"Stacked bars over {len(names)} runs; {key} of the last: {last}.",
        reading,
        (stacked_bars(names, parts, unit=key),),
        ("run", *rows_of),
        tuple((name, *(values[k] for values in rows_of.values())) for k, name in enumerate(names)),
    )


def _seconds(value: float | None) -> str:
    return "an unknown time" if value is None else f"{value:.3g} seconds"


def _sizes_and_times(values: Mapping[str, Any], names: Sequence[str]) -> list[Figure | Absent]:
    runs = values["runs"]
    sizes = [run["bytes"] for run in runs]
    hours = [run["hours_since_previous"] for run in runs]
    drift = [run["chain_minus_first"] for run in runs]
    shown: list[Figure | Absent] = [Absent("Sizes", "no version records the bytes of its run.")]
    if any(size is not None for size in sizes):
        shown[0] = Figure(
            "Size of each run",
            f"A line over {len(runs)} runs; the last has {sizes[-1]} bytes.",
            "Bytes of the rows of each run as it was published: steps are new rows or components.",
            (line_chart(names, [Line("bytes", sizes)], unit="bytes", ends=(0.0,)),),
            ("run", "bytes"),
            tuple(zip(names, sizes, strict=True)),
        )
    seconds = [run["seconds"] or {} for run in runs]
    if steps := [step for step in _STEPS if any(step in known for known in seconds)]:
        by_step = {step: [known.get(step) for known in seconds] for step in steps}
        lines = [Line(step, by_step[step]) for step in steps if step in _STEPS[:_MOST_STEPS]]
        shown.append(
            Figure(
                "Time to add each run",
                f"Lines of {len(lines)} steps over {len(runs)} runs; the last took"
                f" {_seconds(seconds[-1].get('add'))}.",
                "Seconds of the call that published each run, in all (add) and of its longest"
                " steps: all grow with the rows; one step that grows alone is a slower store or a"
                " slower join.",
                (line_chart(names, lines, unit="seconds", ends=(0.0,)),),
                ("run", *steps),
                tuple(
                    (name, *(values[k] for values in by_step.values()))
                    for k, name in enumerate(names)
                ),
            )
        )
    if any(gap is not None for gap in hours):
        shown.append(
            Figure(
                "Time between runs",
                f"A line over {len(runs)} runs; the last came after {hours[-1]:.3g} hours.",
                "Hours from one published run to the next: a peak is a day that was missed.",
                (line_chart(names, [Line("hours", hours)], unit="hours", ends=(0.0,)),),
                ("run", "published", "hours since the one before"),
                tuple(
                    (name, run["created"], run["hours_since_previous"])
                    for name, run in zip(names, runs, strict=True)
                ),
            )
        )
    if any(value is not None for value in drift):
        known = next(value for value in reversed(drift) if value is not None)
        shown.append(
            Figure(
                "Drift of the chain",
                f"A line over {len(runs)} runs; the last known value is {known:.3g}.",
                "Relative distance of each run from where the first run alone would have put it:"
                " what following one's own mean costs, in exchange for nearness to recent runs.",
                (line_chart(names, [Line("drift", drift)], unit="relative", ends=(0.0,)),),
                ("run", "chain minus first"),
                tuple(zip(names, drift, strict=True)),
            )
        )
    return shown


def _made_of(values: Mapping[str, Any]) -> tuple[Html, ...]:
    known, days = values["versions"], values["days"]
    kinds = ", ".join(f"{n} {kind}" for kind, n in known["kinds"].items()) or "none"
    shown = f"Figures over time show {known['shown']} of {known['runs']} runs"
    thin = "" if known["shown"] == known["runs"] else ", evenly spread, and those that a gate held"
    lines = [
        f"Versions of {values['name']}: {kinds}.",
        f"{shown}{thin}.",
    ]
    if days:
        lines.append(
            f"Cosines are of a sample of at most {days['sample']} rows of each table of"
            f" {len(days['runs'])} of {days['of']} live runs, chosen by a hash of their ids; rows"
            " as trained are told by the inverse of each run's transform, as far as its rank lets"
            " them."
        )
    return tuple(paragraph(line) for line in lines)
