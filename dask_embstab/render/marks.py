"""SVG marks as text: what a chart is made of.

Colours are CSS classes, so one drawing serves a light and a dark page; text from outside is escaped
on its way in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dask_embstab.render.text import markup_text

CHARACTER = 7.3
"""Width of a character of a label, rounded up; its font has 12 units."""
_LONGEST = 16

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Marks in a box of ``width`` by ``height`` units, and what they are called where a figure has
    several.
    """

    width: float
    height: float
    marks: tuple[str, ...]
    name: str = ""


def svg(drawing: Drawing, *, title: str, description: str, name: str) -> str:
    """The drawing as one ``<svg>`` element; ``name`` makes its ids unique in a page."""
    box = f"0 0 {short(drawing.width)} {short(drawing.height)}"
    return "\n".join(
        [
            f'<svg role="img" aria-labelledby="{name}t {name}d" viewBox="{box}">',
            f'<title id="{name}t">{markup_text(title)}</title>',
            f'<desc id="{name}d">{markup_text(description)}</desc>',
            *drawing.marks,
            "</svg>",
        ]
    )


def short(value: float) -> str:
    """A coordinate to a tenth of a unit, in as few characters as it takes."""
    return f"{value:.1f}".removesuffix(".0")


def rect(x: float, y: float, width: float, height: float, style: str) -> str:
    """A filled rectangle."""
    size = f'width="{short(width)}" height="{short(height)}"'
    return f'<rect class="{style}" x="{short(x)}" y="{short(y)}" {size}/>'


def rule(a: Point, b: Point, style: str) -> str:
    """A straight line."""
    return path([a, b], style)


def path(points: Iterable[Point], style: str) -> str:
    """A line through points."""
    steps = " ".join(f"{short(x)} {short(y)}" for x, y in points)
    return f'<path class="{style}" d="M{steps}"/>'


def cells(corners: Iterable[tuple[float, float, float, float]], style: str) -> str:
    """Many rectangles (x, y, width, height) of one style as one mark."""
    drawn = "".join(
        f"M{short(x)} {short(y)}h{short(w)}v{short(h)}h{short(-w)}z" for x, y, w, h in corners
    )
    return f'<path class="{style}" d="{drawn}"/>'


def grid_cells(
    corners: Iterable[tuple[int, int]], box: tuple[float, float, float], style: str
) -> str:
    """Squares (column, row) of a grid that begins at x, y and has this side, as one mark in few
    characters; squares of a row that touch become one.
    """
    runs: list[list[int]] = []
    for column, row in corners:
        if runs and runs[-1][1] == row and runs[-1][0] + runs[-1][2] == column:
            runs[-1][2] += 1
        else:
            runs.append([column, row, 1])
    drawn = "".join(f"M{column} {row}h{n}v1h-{n}z" for column, row, n in runs)
    x, y, side = box
    at = f"translate({short(x)} {short(y)}) scale({side:.4g})"
    return f'<path class="{style}" transform="{at}" d="{drawn}"/>'


_SHAPES = (
    "M{x} {y}m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "M{x} {y}m-2.7-2.7h5.4v5.4h-5.4z",
    "M{x} {y}m0-3.8l3.6 3.8l-3.6 3.8l-3.6-3.8z",
    "M{x} {y}m0-3.5l3.6 6.3h-7.2z",
)


def dots(points: Iterable[Point], shape: int, style: str) -> str:
    """A circle, square, diamond or triangle at every point."""
    drawn = "".join(_SHAPES[shape % len(_SHAPES)].format(x=short(x), y=short(y)) for x, y in points)
    return f'<path class="{style}" d="{drawn}"/>'


def label(x: float, y: float, text: str, *, style: str = "t", anchor: str = "start") -> str:
    """One line of text; ``anchor`` is start, middle or end."""
    at = f'x="{short(x)}" y="{short(y)}"'
    turned = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{style}" {at}{turned}>{markup_text(text)}</text>'


def cut(text: str, most: int = _LONGEST) -> str:
    """A text that fits beside a mark; the table of the figure has it whole."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def shortened(text: str, most: int = 20) -> str:
    """A name that fits in a cell of a table: its beginning and its end.

    >>> shortened("short"), shortened("x" * 30 + "and-20-more-characters", 16)
    ('short', 'xxxxxxxx\u2026racters')
    """
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\u2026{text[len(text) - (most - 1) // 2 :]}"


def text_width(texts: Sequence[str]) -> float:
    """Units that the longest of these labels takes."""
    return max(map(len, texts), default=0) * CHARACTER
