"""The page of codes: what each keeps of a run by the bytes of a row, head and long tail apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dask_embstab.render.axes import Scale, left_of, value_axis, value_scale
from dask_embstab.render.charts import HEIGHT, WIDTH, Line, line_chart
from dask_embstab.render.figures import Absent, Figure, plain, sections_of
from dask_embstab.render.html import Html, Section, content, page, style_sheet
from dask_embstab.render.marks import CHARACTER, Drawing, Point, dots, label, path, text_width
from dask_embstab.render.table import Cell

_TITLE = "What codes keep"
_KINDS = ("plain", "rotated", "truncated", "rescored")
_TOP, _FOOT = 30.0, 28.0
Entry = Mapping[str, Any]


def frontier_page(values: Mapping[str, Any]) -> Html:
    """One HTML document of `Frontier.to_dict`."""
    return page(_TITLE, _sections(plain(values), "f"))


def frontier_markup(values: Mapping[str, Any], prefix: str) -> Html:
    """The same for a notebook; ids of elements begin with ``prefix``."""
    return Html(style_sheet() + content(_TITLE, _sections(plain(values), prefix)))


def code_label(entry: Entry) -> str:
    """A code in words: ``int4 of 16, rotated, rescored``."""
    name: str = entry["code"]
    if entry.get("rank"):
        name += f" of {entry['rank']}"
    name += ", rotated" if entry["rotate"] else ""
    return f"{name}, rescored" if entry.get("rescored") else name


def frontier_header(k: int, parts: Sequence[str] = ()) -> tuple[str, ...]:
    """Of `frontier_cells`."""
    figures = (f"recall@{k}", f"nDCG@{k}", "overlap", "score error", "slope")
    return ("code", "bytes", *figures, *(f"recall of {name}" for name in parts))


def frontier_cells(entry: Entry, parts: Sequence[str] = ()) -> tuple[Cell, ...]:
    """The figures of a code: of a rescored one those after it; the bytes are what is searched."""
    return (
        code_label(entry),
        entry["n_bytes"],
        *(entry[name]["mean"] for name in ("recall", "ndcg", "overlap")),
        entry["score_error"],
        entry["slope"],
        *(_recall_of(entry, name) for name in parts),
    )


def part_names(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Parts of items and queries that were measured apart, in order."""
    return tuple(dict.fromkeys(name for one in entries for name in one.get("parts") or {}))


def _sections(values: Mapping[str, Any], prefix: str) -> tuple[Section, ...]:
    return sections_of({"Codes by the bytes of a row": list(_figures(values))}, prefix)


def _figures(values: Mapping[str, Any]) -> Iterator[Figure | Absent]:
    entries, k = values["entries"], values["k"]
    if not entries:
        yield Absent(_TITLE, "no code was measured")
        return
    parts = part_names(entries)
    best = max(entries, key=lambda one: one["recall"]["mean"])
    yield Figure(
        f"Recall@{k} by bytes of a row",
        f"{len(entries)} codes, from {entries[0]['n_bytes']} to {entries[-1]['n_bytes']} bytes a"
        f" row; {code_label(best)} keeps most, {best['recall']['mean']:.4f}.",
        f"Of {values['n_queries']} queries over {values['n_items']} items: the share of the {k}"
        " best rows that a search in codes finds. The line joins codes that no smaller one beats;"
        " a rescored one also needs rows of 16 bits a component for the best of each query.",
        (_scatter(entries, k),),
        frontier_header(k, parts),
        tuple(frontier_cells(one, parts) for one in entries),
    )
    shown = [one for one in entries if not one["rotate"] and _kind(one) == "plain"] or entries
    names = [code_label(one) for one in shown]
    lines = [Line(name, [_recall_of(one, name) for one in shown]) for name in parts]
    yield Figure(
        "Head, long tail and groups",
        "; ".join(f"{one.name}: {_ends(one.values)}" for one in lines) + ".",
        "Recall of the places that a part of the items, or queries, has in exact lists, by code"
        " in the order of bytes. The head are the items that fill half of the places.",
        (line_chart(names, lines, unit=f"recall@{k}"),),
        ("code", *parts),
        tuple((name, *(one.values[at] for one in lines)) for at, name in enumerate(names)),
    )
    errors = Line("error", [one["score_error"] for one in shown])
    yield Figure(
        "Error and slope of scores",
        f"Relative error of scores: {_ends(errors.values)}.",
        "The root mean square error of scores over that of the scores, by code in the order of"
        " bytes. The slope of exact scores on coded ones is 1 where codes neither stretch nor"
        " shrink them.",
        (line_chart(names, [errors], unit="relative error", is_log=True),),
        ("code", "score error", "slope"),
        tuple((code_label(one), one["score_error"], one["slope"]) for one in shown),
    )


def _scatter(entries: Sequence[Entry], k: int) -> Drawing:
    """Recall over bytes (by their logarithm), a mark for every code."""
    y, ticks = value_scale([_recall(one) for one in entries], HEIGHT - _FOOT, _TOP)
    sizes = sorted({one["n_bytes"] for one in entries})
    left, right = left_of(ticks), WIDTH - text_width(_KINDS) - 18
    x = Scale(sizes[0], max(sizes[-1], sizes[0] + 1), left + 8, right - 8, is_log=True)
    marks = [*value_axis(y, ticks, left, right, f"recall@{k}"), *_size_axis(sizes, x)]

    def place(one: Entry) -> Point:
        return x(one["n_bytes"]), y(_recall(one))

    joined: list[Entry] = []
    for one in entries:
        if not one["rescored"] and (not joined or _recall(one) > _recall(joined[-1])):
            joined.append(one)
    if len(joined) > 1:
        marks.append(path([place(one) for one in joined], "l s0"))
    for number, kind in enumerate(_KINDS):
        if points := [place(one) for one in entries if _kind(one) == kind]:
            at = _TOP + 16 * number
            marks += [
                dots([*points, (right + 10, at)], number, f"f{number}"),
                label(right + 18, at + 4, kind, style=f"t x{number}"),
            ]
    return Drawing(WIDTH, HEIGHT, tuple(marks))


def _size_axis(sizes: Sequence[int], x: Scale) -> Iterator[str]:
    """As many of the sizes as fit, below the chart."""
    end = -CHARACTER
    for size in sizes:
        half = len(str(size)) * CHARACTER / 2
        if x(size) - half >= end + CHARACTER:
            yield label(x(size), HEIGHT - 8, str(size), style="t m", anchor="middle")
            end = x(size) + half


def _kind(entry: Entry) -> str:
    if entry["rescored"]:
        return "rescored"
    if entry["rank"]:
        return "truncated"
    return "rotated" if entry["rotate"] else "plain"


def _recall(entry: Entry) -> float:
    return float(entry["recall"]["mean"])


def _recall_of(entry: Entry, part: str) -> float | None:
    recall = (entry.get("parts") or {}).get(part)
    return None if recall is None else recall["recall"]["mean"]


def _ends(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"from {min(known):.4f} to {max(known):.4f}" if known else "not measured"
