"""The page of two runs: do the vectors of the same ids agree, and what do rankings make of it?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dask_embstab.render.charts import Line, line_chart, ranked_bars
from dask_embstab.render.figures import TABLES, Absent, Figure, merged, plain, sections_of
from dask_embstab.render.html import Html, Key, Section, Verdict, content, style_sheet
from dask_embstab.render.likeness import (
    as_text,
    component_figure,
    cosine_histogram,
    moved_figures,
)
from dask_embstab.render.marks import shortened

_DIRECTIONS = (
    ("stale_queries", "the second's items, by the first's queries"),
    ("stale_table", "the first's items, by the second's queries"),
    ("retrained", "each run's own items by its own queries"),
)

_FIRST = 3


def pair_verdict(values: Mapping[str, Any]) -> Verdict:
    """The line and the figures to look at first."""
    keys, others = first_keys(values["keys"])
    line = (
        "Comparable: both runs hold the same ids in one space"
        if values["well"]
        else f"Look at this: {', '.join([*values['unknown'], *troubles(values['keys'])])}"
    )
    lines = tuple(
        f"{key}: {figures['matched']} rows have an id in both runs, {figures['unmatched_a']} in the"
        f" first alone, {figures['unmatched_b']} in the second alone; {figures['zero_rows']} rows"
        " of zeros are left out."
        for key, figures in _known(values)
    )
    apart = values["metrics"].get("unmeasured") or {}
    lines += tuple(f"{key}: not measured: {why}." for key, why in apart.items())
    return Verdict(values["well"], line, keys, (*lines, *others))


def first_keys(keys: Iterable[Mapping[str, Any]]) -> tuple[tuple[Key, ...], tuple[str, ...]]:
    """The three figures to look at first, those that do not pass before all others, and a line that
    tells the rest.
    """
    shown = [key_of(key) for key in sorted(keys, key=lambda key: key["good"] is not False)]
    rest = "; ".join(f"{key.name.lower()} {key.value} ({key.good})" for key in shown[_FIRST:])
    return tuple(shown[:_FIRST]), (f"Also asked: {rest}.",) if rest else ()


def troubles(keys: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong, of the figures that do not pass."""
    return [key["trouble"] for key in keys if key["good"] is False]


def key_of(known: Mapping[str, Any]) -> Key:
    """A figure to look at first, from its plain values."""
    value, good = known["value"], f"good is {known['sense']} {known['threshold']:.3g}"
    if value is None:
        return Key(known["name"], "\u2013", f"not known here; {good}", None, known["meaning"])
    good = f"its gate is off; {good}" if known["is_off"] else good
    return Key(known["name"], f"{value:.3g}", good, known["good"], known["meaning"])


def comparison_markup(metrics: Mapping[str, Any], name: str) -> Html:
    """What `evaluate` measured, for a notebook; ``name`` makes ids of elements its own."""
    values = {"a": "the first run", "b": "the second run", "metrics": plain(metrics)}
    return Html(style_sheet() + content("Comparison of two runs", pair_sections(values, name)))


def pair_sections(values: Mapping[str, Any], prefix: str) -> tuple[Section, ...]:
    """What the page holds below the verdict; ids of its elements begin with ``prefix``."""
    between = " and ".join(shortened(values[side]) for side in ("a", "b"))
    tables = dict(_known(values))
    parts: dict[str, list[Figure | Absent]] = {
        "Cosines of the same ids": merged(
            "Cosines", {key: cosine_histogram(key, one, between) for key, one in tables.items()}
        ),
        "Rankings": list(_rankings(values["metrics"])),
        "Components": merged(
            "Components", {key: component_figure(key, one, between) for key, one in tables.items()}
        ),
        "Lengths and rows": [
            *merged("Lengths", {key: _lengths(key, figures) for key, figures in tables.items()}),
            *merged(
                "Matched rows", {key: _matched(key, figures) for key, figures in tables.items()}
            ),
        ],
        "Ids that moved most": moved_figures(
            {key: _moved(figures) for key, figures in tables.items()}, between
        ),
        "Judgments": _judged(values["metrics"].get("judged")),
        "Groups": [
            _groups(key, figures["groups"])
            for key, figures in tables.items()
            if figures.get("groups")
        ],
    }
    return sections_of(parts, prefix)


def _known(values: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(key, figures) for key in TABLES if (figures := values["metrics"].get(key))]


def _rankings(metrics: Mapping[str, Any]) -> Iterator[Figure | Absent]:
    ranked, retrieval = metrics.get("rank_correlation"), metrics.get("retrieval")
    if ranked is None and retrieval is None:
        yield Absent("Rankings", "both runs need users and items.")
    if ranked is not None:
        named = {
            "users of the second": ranked["rbo"],
            "on new items": ranked["new_catalogue_rbo"],
            "retrained": ranked["retrained_rbo"],
        }
        yield Figure(
            "Overlap of rankings",
            ", ".join(f"{name} {as_text(value)}" for name, value in named.items()),
            f"Rank-biased overlap of top lists of {ranked['k']} items, over {ranked['users']} users"
            " (1: equal lists): of the first run's items, by its own and by the second's users; the"
            " same of the second's items; and of each run's own, which no alignment changes.",
            (ranked_bars(list(named), list(named.values()), unit="overlap"),),
            ("ranking", "rank-biased overlap"),
            tuple(named.items()),
        )
    if retrieval is not None and retrieval["retrained"]["recall"]:
        yield _recall(retrieval)


def _recall(retrieval: Mapping[str, Any]) -> Figure:
    depths = sorted(map(int, retrieval["retrained"]["recall"]))
    directions = [(name, text) for name, text in _DIRECTIONS if retrieval[name]]
    recall = {
        name: [retrieval[name]["recall"][str(k)]["mean"] for k in depths] for name, _ in directions
    }
    explained = "; ".join(f"{name.replace('_', ' ')}: {text}" for name, text in directions)
    lines = [Line(name.replace("_", " "), values) for name, values in recall.items()]
    quoted = retrieval["depth"]
    return Figure(
        "Recall of stale queries",
        f"At depth {quoted} of {retrieval['n_ranked']}: "
        + ", ".join(f"{n} {as_text(values[depths.index(quoted)])}" for n, values in recall.items())
        if quoted
        else f"Of {retrieval['n_ranked']} items any list holds a large share: not informative",
        "Share of the best items of fresh queries that stale ones find too, by how many are asked"
        f" for: near 1, old and new vectors can be mixed ({explained}).",
        (line_chart(list(map(str, depths)), lines, unit="recall, by depth", ends=(0.0, 1.0)),),
        ("depth", *recall),
        tuple((k, *(values[n] for values in recall.values())) for n, k in enumerate(depths)),
    )


def _judged(judged: Mapping[str, Any] | None) -> list[Figure | Absent]:
    """Quality by judgments, where they were given."""
    if judged is None or not judged["b"]["ndcg"]:
        return []
    rankings = [name for name, figures in judged.items() if isinstance(figures, Mapping)]
    depths = sorted(map(int, judged["b"]["ndcg"]))
    means = {
        name: {m: [judged[name][m][str(k)]["mean"] for k in depths] for m in judged[name]}
        for name in rankings
    }
    lines = [Line(name.replace("_", " "), means[name]["ndcg"]) for name in rankings]
    figure = Figure(
        "Quality by judgments",
        f"nDCG at depth {depths[-1]}: "
        + ", ".join(f"{name} {as_text(means[name]['ndcg'][-1])}" for name in rankings),
        "nDCG by how many are asked for: each run's own rankings (a, b), the second's items by the"
        " first's queries (stale queries), the first's items by the second's (stale table). Over"
        f" {judged['queries']} judged queries; the table has recall, precision and MRR too.",
        (line_chart(list(map(str, depths)), lines, unit="nDCG, by depth", ends=(0.0,)),),
        ("ranking", "metric", *(f"at {k}" for k in depths)),
        tuple((name, m, *values) for name in rankings for m, values in means[name].items()),
    )
    return [figure]


def _lengths(key: str, figures: Mapping[str, Any]) -> Figure:
    norms = figures.get("norms") or {"ratio_of_sums": figures["norm_ratio"]}
    named = {name.replace("_", " "): value for name, value in norms.items()}
    shown = {name: value for name, value in named.items() if value is not None}
    return Figure(
        f"Lengths of the {key}",
        ", ".join(f"{name} {as_text(value)}" for name, value in shown.items()),
        "Lengths of the second run's vectors over those of the first with the same ids: near 1,"
        " scores keep their size.",
        (ranked_bars(list(shown), list(shown.values()), unit="ratio, or length"),),
        ("length", "value"),
        tuple(named.items()),
    )


def _matched(key: str, figures: Mapping[str, Any]) -> Figure:
    named = {
        "in both": figures["matched"],
        "first alone": figures["unmatched_a"],
        "second alone": figures["unmatched_b"],
        "of zeros": figures["zero_rows"],
    }
    return Figure(
        f"Matched rows of {key}",
        ", ".join(f"{name} {value}" for name, value in named.items()),
        "How many ids both runs have, and how many only one: figures above are over ids in both.",
        (ranked_bars(list(named), list(named.values()), unit="rows"),),
        ("rows", "number"),
        tuple(named.items()),
    )


def _moved(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """The lists of a sample, and in place of the lowest cosines those of all rows, where known."""
    listed = figures.get("moved") or {}
    return listed | {
        "lowest_cosine": figures.get("most_moved") or listed.get("lowest_cosine") or []
    }


def _groups(key: str, groups: Mapping[str, Mapping[str, Any]]) -> Figure:
    names = list(groups)
    columns = list(next(iter(groups.values())))
    return Figure(
        f"Groups of {key}",
        f"Bars of {len(names)} groups: their mean cosine.",
        "Mean cosine of the same ids by group: a group far below the others is where the models"
        " disagree.",
        (ranked_bars(names, [groups[n]["mean_cosine"] for n in names], unit="mean cosine"),),
        ("group", *(column.replace("_", " ") for column in columns)),
        tuple((shortened(name), *(groups[name][c] for c in columns)) for name in names),
    )
