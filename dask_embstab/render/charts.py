"""Charts from plain numbers: lines over runs, stacked bars, a histogram, ranked bars.

A series has its own dash and its own dot besides its colour, and its name at its end. A value of
None (or one that is not finite) leaves a gap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dask_embstab.render.axes import (
    Scale,
    apart,
    left_of,
    name_axis,
    thinned,
    tick_text,
    value_axis,
    value_scale,
)
from dask_embstab.render.marks import (
    CHARACTER,
    Drawing,
    Point,
    cells,
    cut,
    dots,
    grid_cells,
    label,
    path,
    rect,
    rule,
    text_width,
)

Values = Sequence[float | None]
WIDTH, HEIGHT = 400.0, 230.0
_TOP, _FOOT = 30.0, 28.0
_MOST_DOTS, _MOST_BARS = 40, 40


@dataclass(frozen=True, slots=True)
class Line:
    """A series of values, one per name of the chart's axis."""

    name: str
    values: Values


def line_chart(
    names: Sequence[str],
    lines: Sequence[Line],
    *,
    unit: str,
    limits: Sequence[tuple[str, Values]] = (),
    ends: tuple[float, ...] = (),
    is_log: bool = False,
    name: str = "",
) -> Drawing:
    """Lines over ``names``; ``limits`` are thresholds over the same names, ``ends`` values that
    the axis holds in any case.
    """
    known = [v for one in lines for v in one.values if _shown(v, is_log)]
    known += [v for _, values in limits for v in values if _shown(v, is_log)]
    floats = [float(v) for v in (*known, *ends) if v is not None]
    if not floats:
        return nothing()
    ends_named = [cut(one.name) for one in lines] + [cut(text) for text, _ in limits]
    right = WIDTH - text_width(ends_named) - 14
    y, ticks = value_scale(floats, HEIGHT - _FOOT, _TOP, is_log=is_log)
    left = left_of(ticks)
    x = Scale(0, max(len(names) - 1, 1), left + 8, right - 8)
    marks = [*value_axis(y, ticks, left, right, unit), *name_axis(names, x, HEIGHT - 8)]
    at_end: list[tuple[float, str, str]] = []
    for text, values in limits:
        pieces = _pieces(values, x, y)
        marks += [path(_stairs(piece), "limit") for piece in pieces]
        if pieces:
            at_end.append((pieces[-1][-1][1], cut(text), "t m"))
    for k, one in enumerate(lines):
        pieces = _pieces(one.values, x, y, is_log=is_log)
        marks += [path(piece, f"l s{k % 6}") for piece in pieces if len(piece) > 1]
        alone = [piece[0] for piece in pieces if len(piece) == 1]
        points = [point for piece in pieces for point in piece]
        dotted = points if len(names) <= _MOST_DOTS else [*alone, *points[-1:]]
        if dotted:
            marks.append(dots(dotted, k, f"f{k % 6}"))
            at_end.append((points[-1][1], cut(one.name), f"t x{k % 6}"))
    heights = apart([at for at, _, _ in at_end], _TOP, HEIGHT - _FOOT)
    marks += [
        label(right + 4, at + 4, text, style=style)
        for at, (_, text, style) in zip(heights, at_end, strict=True)
    ]
    return Drawing(WIDTH, HEIGHT, tuple(marks), name)


def stacked_bars(
    names: Sequence[str], parts: Sequence[Line], *, unit: str, name: str = ""
) -> Drawing:
    """One bar per name, its parts one on the other; each part has a pattern of its own. Lines where
    bars would be too thin for it.
    """
    if len(names) > _MOST_BARS:
        return line_chart(names, parts, unit=unit, ends=(0.0,), name=name)
    totals = [sum(part.values[k] or 0 for part in parts) for k in range(len(names))]
    y, ticks = value_scale([0, *totals], HEIGHT - _FOOT, _TOP)
    left = left_of(ticks)
    right = WIDTH - text_width([part.name for part in parts]) - 26
    x = Scale(-0.5, max(len(names) - 0.5, 0.5), left, right)
    step = (right - left) / max(len(names), 1)
    wide = min(step * (0.75 if step > 4 else 1.0), 48)
    below = [0.0] * len(names)
    marks = [*value_axis(y, ticks, left, right, unit), *name_axis(names, x, HEIGHT - 8)]
    for k, part in enumerate(parts):
        boxes = []
        for n, value in enumerate(part.values):
            if value:
                top = y(below[n] + value)
                boxes.append((x(n) - wide / 2, top, wide, y(below[n]) - top))
                below[n] += value
        marks += [cells(boxes, f"f{k}"), *([_stripes(boxes, k)] if k and boxes else [])]
        at = _TOP + 14.0 * (len(parts) - 1 - k)
        key = [(right + 6, at, 10.0, 10.0)]
        marks += [cells(key, f"f{k} legend"), *([_stripes(key, k)] if k else [])]
        marks.append(label(right + 20, at + 9, part.name, style="t"))
    return Drawing(WIDTH, HEIGHT, tuple(marks), name)


def histogram(
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    unit: str,
    points: Sequence[tuple[str, float | None]] = (),
    name: str = "",
) -> Drawing:
    """Counts of equal bins, as shares of all; ``points`` are named values on the axis."""
    total = sum(counts) or 1.0
    shares = [count / total for count in counts]
    used = [k for k, count in enumerate(counts) if count]
    first, last = (used[0], used[-1]) if used else (0, len(counts) - 1)
    named = sorted((at, text) for text, at in points if at is not None)
    places = [at for at, _ in named]
    y, ticks = value_scale([0.0, max(shares, default=0.0) or 1.0], HEIGHT - _FOOT, _TOP + 28)
    left = left_of(ticks)
    low = min([edges[first], *places, edges[last + 1] - 0.2])
    x, along = value_scale([low, *places, edges[last + 1]], left + 4, WIDTH - 12)
    marks = value_axis(y, ticks, left, WIDTH - 6, unit)
    boxes = [
        (
            x(edges[k]),
            y(shares[k]),
            max(x(edges[k + 1]) - x(edges[k]) - 0.6, 0.6),
            y(0) - y(shares[k]),
        )
        for k in used
    ]
    marks.append(cells(boxes, "f0"))
    marks += [
        label(x(tick), HEIGHT - 8, tick_text(tick, along), style="t m", anchor="middle")
        for tick in along
    ]
    taken = [0.0, 0.0, 0.0]
    names: list[str] = []
    for at, text in named:
        wide = len(text) * CHARACTER + 6
        begin = max(left, min(x(at) - wide / 2, WIDTH - wide))
        row = next((k for k, end in enumerate(taken) if end <= begin), 0)
        taken[row] = begin + wide
        top = 27 + 13.0 * row
        marks.append(rule((x(at), top + 4), (x(at), y(0)), "limit"))
        names.append(label(begin + wide / 2, top, text, style="t h", anchor="middle"))
    return Drawing(WIDTH, HEIGHT, (*marks, *names), name)


def ranked_bars(names: Sequence[str], values: Values, *, unit: str, name: str = "") -> Drawing:
    """One bar per name from the top down, with its value at its end; None is a dash."""
    texts = [cut(text, 22) for text in names]
    left = text_width(texts) + 10
    x, _ = value_scale([0.0, *(value for value in values if value is not None)], left, WIDTH - 62)
    marks = [label(2, 12, unit, style="t m")]
    for k, (text, value) in enumerate(zip(texts, values, strict=True)):
        y = 22 + 18.0 * k
        start, end = sorted((x(0), x(value or 0.0)))
        marks.append(label(left - 6, y + 11, text, anchor="end"))
        marks.append(
            rect(start, y + 2, max(end - start, 1), 11, "f1" if (value or 0) < 0 else "f0")
        )
        shown = "\u2013" if value is None else tick_text(value) if value >= 1e5 else f"{value:z.3g}"
        marks.append(label(end + 5, y + 11, shown, style="t m"))
    return Drawing(WIDTH, 30 + 18.0 * len(names), tuple(marks), name)


def columns(names: Sequence[str], values: Sequence[float], *, unit: str, name: str = "") -> Drawing:
    """One upright bar per name, from 0."""
    y, ticks = value_scale([0.0, *values], HEIGHT - _FOOT, _TOP)
    left = left_of(ticks)
    x = Scale(-0.5, max(len(names) - 0.5, 0.5), left, WIDTH - 8)
    step = (WIDTH - 8 - left) / max(len(names), 1)
    wide = min(step * 0.75, 40)
    marks = [*value_axis(y, ticks, left, WIDTH - 6, unit), *name_axis(names, x, HEIGHT - 8)]
    boxes = [
        (x(k) - wide / 2, min(y(v), y(0)), wide, max(abs(y(v) - y(0)), 0.5))
        for k, v in enumerate(values)
    ]
    return Drawing(WIDTH, HEIGHT, (*marks, cells(boxes, "f0")), name)


def heatmap(
    names: Sequence[str],
    matrix: Sequence[Values],
    *,
    across: Sequence[str] | None = None,
    name: str = "",
) -> Drawing:
    """Values of -1 to 1 as squares on a scale of lightness, with their numbers where they fit; a
    value below 0 has another colour and a bar across.
    """
    at_rows, below = [cut(text, 11) for text in names], [cut(text, 11) for text in across or names]
    left, half = text_width(at_rows) + 8, text_width(below[-1:]) / 2
    n, m = len(names), len(below)
    side = min((WIDTH - left - half) / (max(n, m, 1) - 0.5), (WIDTH - left - 4) / max(n, m, 1), 46)
    at_x, at_y = (
        Scale(-0.5, m - 0.5, left, left + m * side),
        Scale(-0.5, n - 0.5, 4, 4 + n * side),
    )
    squares: dict[str, list[tuple[int, int]]] = {}
    bars, numbers = [], []
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            if value is None or not math.isfinite(value):
                continue
            squares.setdefault(shade(value), []).append((column, row))
            if side >= 25:
                shown = (
                    f"{value:z.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.0f}"
                )
                style = f"n i{shade(value)}"
                numbers.append(
                    label(at_x(column), at_y(row) + 4, shown, style=style, anchor="middle")
                )
            elif value < -0.025:
                bars.append((at_x(column) - side / 4, at_y(row), side / 2, 0.8))
    box = (at_x.start, at_y.start, side)
    marks = [grid_cells(squares_, box, f"k{key}") for key, squares_ in sorted(squares.items())]
    marks += [*([cells(bars, "bar")] if bars else []), *numbers]
    upright = Scale(0, n - 1, at_y.start + side / 2, at_y.end - side / 2)
    rows = range(n) if side >= 14 else _every(n, 14 / side)
    marks += [label(left - 5, at_y(k) + 4, at_rows[k], style="t m", anchor="end") for k in rows]
    foot = at_y.end + 16
    level = Scale(0, max(m - 1, 1), at_x(0), at_x(m - 1)) if m > 1 else upright
    marks += [
        label(
            at_x(k),
            foot,
            below[k],
            style="t m",
            anchor="middle",
        )
        for k in (thinned(m, level, below) if m > 1 else [0])
    ]
    marks += _key(left, foot + 12)
    return Drawing(WIDTH, foot + 46, tuple(marks), name)


def shade(value: float) -> str:
    """The class of a value: 0 to 19 in steps of 0.05 up from 0, and a to d down from it.

    >>> shade(0.0), shade(0.97), shade(1.0), shade(-0.3)
    ('0', '19', '19', 'b')
    """
    if value < -0.025:
        return "abcd"[min(int(-value * 4), 3)]
    return str(min(max(int(value * 20 + 1e-9), 0), 19))


def nothing(why: str = "There is nothing to show yet.") -> Drawing:
    """A box that says so."""
    return Drawing(WIDTH, 60, (label(WIDTH / 2, 34, why, style="t m", anchor="middle"),))


def _key(left: float, y: float) -> list[str]:
    """The scale of a heat map, with numbers."""
    wide = (WIDTH - left - 4) / 24
    marks = []
    for k, value in enumerate([-0.9, -0.7, -0.4, -0.1, *(0.05 * n + 0.01 for n in range(20))]):
        marks.append(cells([(left + k * wide, y, wide, 9)], f"k{shade(value)} legend"))
    for value, place in ((-1.0, 0), (0.0, 4), (0.5, 14), (1.0, 24)):
        x = left + place * wide
        anchor = "start" if place == 0 else "end" if place == 24 else "middle"
        marks.append(label(x, y + 22, tick_text(value), style="t m", anchor=anchor))
    return marks


def _every(n: int, at_least: float) -> list[int]:
    return list(range(0, n, math.ceil(at_least)))


def _shown(value: float | None, is_log: bool) -> bool:  # noqa: FBT001 (the one property of a scale)
    return value is not None and math.isfinite(value) and (not is_log or value > 0)


def _pieces(values: Values, x: Scale, y: Scale, *, is_log: bool = False) -> list[list[Point]]:
    """Points of values without a gap between them."""
    pieces: list[list[Point]] = [[]]
    for k, value in enumerate(values):
        if _shown(value, is_log) and value is not None:
            pieces[-1].append((x(k), y(value)))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _stairs(points: Sequence[Point]) -> list[Point]:
    """Only where a level begins and ends; a single point becomes a short line."""
    if len(points) == 1:
        return [(points[0][0] - 8, points[0][1]), (points[0][0] + 8, points[0][1])]
    inner = [
        b
        for a, b, c in zip(points, points[1:], points[2:], strict=False)
        if not a[1] == b[1] == c[1]
    ]
    return [points[0], *inner, points[-1]]


def _stripes(boxes: Sequence[tuple[float, float, float, float]], k: int) -> str:
    """Lines across boxes, closer for each further part: told without colour."""
    gap = 7.0 / k
    drawn = []
    for x, y, width, height in boxes:
        n = int(height / gap)
        drawn += [(x, y + (j + 0.5) * gap, width, 0.9) for j in range(min(n, 40))]
    return cells(drawn, "bar")
