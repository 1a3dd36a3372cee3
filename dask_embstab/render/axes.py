"""From values to places: scales, round ticks, and labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dask_embstab.render.marks import CHARACTER, cut, label, rule, text_width

_LINE = 14.0
"""Height of a line of labels."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from ``low`` to ``high`` on places from ``start`` to ``end``, by their logarithm where
    it ``is_log``.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; beyond either end, that end's."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def value_scale(
    values: Sequence[float], start: float, end: float, *, is_log: bool = False
) -> tuple[Scale, list[float]]:
    """A scale that holds the values and ends on round numbers, and its ticks."""
    if is_log:
        least = math.floor(math.log10(min(values)))
        most = max(math.ceil(math.log10(max(values))), least + 1)
        steps = (1, 2, 5) if most - least <= 2 else (1,)
        ticks = [step * 10.0**power for power in range(least, most + 1) for step in steps]
        first = max(k for k, tick in enumerate(ticks) if tick <= min(values) * (1 + 1e-9))
        last = min(k for k, tick in enumerate(ticks) if tick >= max(values) * (1 - 1e-9))
        ticks = ticks[first : max(last, first + 1) + 1]
        shown = ticks[:: max(1, len(ticks) // 5)]
        return Scale(ticks[0], ticks[-1], start, end, is_log=True), shown
    ticks = round_ticks(min(values), max(values))
    return Scale(ticks[0], ticks[-1], start, end), ticks


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most about ``most`` multiples of 1, 2 or 5 times a power of ten that enclose both ends.

    >>> round_ticks(0.03, 0.97)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        pad = abs(high) / 2 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= 0.9 * rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(n * step, digits) + 0.0 for n in range(first, last + 1)]


def tick_text(value: float, ticks: Sequence[float] = ()) -> str:
    """A tick in as few characters as tell it from the others: 0.25, 12k, 3M.

    >>> tick_text(12_000.0), tick_text(0.25), tick_text(2.5e-5), tick_text(0.0)
    ('12k', '0.25', '2.5e-05', '0')
    """
    size = max(map(abs, ticks), default=abs(value))
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{value / unit:.4g}{suffix}" if value else "0"
    return f"{value:.4g}" if value else "0"


def thinned(n: int, place: Scale, texts: Sequence[str]) -> list[int]:
    """Numbers of the labels, of ``n`` on a scale, that fit without touching: the first, the last,
    and evenly between.
    """
    widest = max(map(len, texts), default=0) * CHARACTER + 8
    most = max(1, int(abs(place.end - place.start) / widest))
    if n <= most:
        return list(range(n))
    every = math.ceil((n - 1) / max(most - 1, 1))
    marked = list(range(0, n, every))
    if marked[-1] != n - 1:
        marked = [*(k for k in marked if abs(place(n - 1) - place(k)) >= widest), n - 1]
    return marked


def apart(places: Sequence[float], low: float, high: float, gap: float = _LINE) -> list[float]:
    """Places moved as little as it takes that they are ``gap`` apart and within ``low`` to
    ``high`` (as far as there is room).

    >>> apart([10.0, 12.0, 50.0], 0.0, 60.0)
    [10.0, 24.0, 50.0]
    """
    order = sorted(range(len(places)), key=lambda k: places[k])
    moved = list(places)
    floor = low
    for k in order:
        moved[k] = floor = max(moved[k], floor)
        floor += gap
    ceiling = high
    for k in reversed(order):
        moved[k] = ceiling = min(moved[k], ceiling)
        ceiling -= gap
    return moved


def left_of(ticks: Sequence[float]) -> float:
    """Where a chart begins beside these numbers."""
    return max(46.0, text_width([tick_text(tick, ticks) for tick in ticks]) + 10)


def value_axis(
    scale: Scale, ticks: Sequence[float], left: float, right: float, unit: str
) -> list[str]:
    """Grid lines, their numbers to the left, and above them what is measured."""
    marks = [label(2, 12, unit, style="t m")]
    for tick in ticks:
        y = scale(tick)
        marks += [
            rule((left, y), (right, y), "g"),
            label(left - 5, y + 4, tick_text(tick, ticks), style="t m", anchor="end"),
        ]
    return marks


def name_axis(names: Sequence[str], place: Scale, y: float, *, most: int = 12) -> list[str]:
    """Names below a chart, as many as fit; the outer ones stay within it."""
    texts = [cut(name, most) for name in names]
    marks = []
    for k in thinned(len(names), place, texts):
        half = len(texts[k]) * CHARACTER / 2
        x = place(k)
        anchor = "middle"
        if len(names) > 1 and k == len(names) - 1 and x + half > place.end + 12:
            x, anchor = place.end + 12, "end"
        elif x - half < 0:
            x, anchor = 0, "start"
        marks.append(label(x, y, texts[k], style="t m", anchor=anchor))
    return marks
