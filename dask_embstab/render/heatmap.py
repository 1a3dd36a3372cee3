"""How alike the days are: square matrices of cosines side by side, drawn as one SVG by hand.

Colours run over -1..1 from a red to a blue that stay apart for colour-blind readers, near white at
0.  The picture brings its own white ground, so it reads the same on light and dark pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dask_embstab.render.text import markup_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Rgb = tuple[int, int, int]

# ColorBrewer's RdBu in 11 classes, evenly over -1..1 (Harrower & Brewer,
# doi:10.1179/000870403235002042).
_SCALE: tuple[Rgb, ...] = (
    (103, 0, 31),
    (178, 24, 43),
    (214, 96, 77),
    (244, 165, 130),
    (253, 219, 199),
    (247, 247, 247),
    (209, 229, 240),
    (146, 197, 222),
    (67, 147, 195),
    (33, 102, 172),
    (5, 48, 97),
)
_MISSING: Rgb = (189, 189, 189)
_BLACK: Rgb = (0, 0, 0)
_WHITE: Rgb = (255, 255, 255)

_CELL = 46
_GAP = 24
_MARGIN = 16
_CHARACTER = 7  # width of a character of the labels, rounded up
_TITLE_CHARACTER = 10
_HEADER = 64  # the title and the panels' names
_BAR = 12
_N_BAR_STEPS = 40


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in SVG units."""

    n_panels: int
    n_cells: int
    n_label_characters: int
    n_title_characters: int

    @property
    def label(self) -> int:
        """Room for the longest label."""
        return self.n_label_characters * _CHARACTER + 8

    @property
    def side(self) -> int:
        """Side of one square of cells."""
        return self.n_cells * _CELL

    @property
    def bar_left(self) -> int:
        """Left edge of the colour bar."""
        return self.panel_left(self.n_panels)

    @property
    def width(self) -> int:
        """Width of the picture."""
        title_right = _MARGIN + self.n_title_characters * _TITLE_CHARACTER
        return max(self.bar_left + _BAR + 3 * _CHARACTER, title_right) + _MARGIN

    @property
    def height(self) -> int:
        """Height of the picture."""
        return _HEADER + self.side + self.label + _MARGIN

    def panel_left(self, panel: int) -> int:
        """Left edge of one panel's cells; only the first has labels for its rows."""
        return _MARGIN + self.label + panel * (self.side + _GAP)


def heatmaps_svg(
    panels: Sequence[tuple[str, NDArray[np.floating]]], labels: Sequence[str], *, title: str
) -> str:
    """Draw square matrices of cosines side by side as a standalone SVG document.

    Parameters
    ----------
    panels
        Name and matrix of each, shape (n, n), floating; NaN says there is no value and shows as a
        grey dash.
    labels
        n names, such as days, for the rows and the columns of every matrix.
    title
        Heading, which is also the picture's accessible name.

    Returns
    -------
    str
        UTF-8 text of one ``<svg>`` element; it scales to the width that it is given.

    Raises
    ------
    ValueError
        If there are no panels or no labels, or a matrix is not as long and wide as there are
        labels.
    """
    _check(panels, labels)
    layout = _Layout(len(panels), len(labels), max(map(len, labels)), len(title))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {layout.width}'
            f' {layout.height}"'
        ),
        'font-family="system-ui, sans-serif" font-size="12" shape-rendering="crispEdges">',
        f"<title>{markup_text(title)}</title>",
        _rect(0, 0, layout.width, layout.height, _WHITE),
        _text(_MARGIN, 26, title, anchor="start", style='font-size="16" font-weight="bold"'),
        *_row_labels(labels, layout),
        *_colour_bar(layout),
    ]
    for k, (name, matrix) in enumerate(panels):
        parts += _panel(name, np.asarray(matrix, dtype=np.float64), labels, layout.panel_left(k))
    return "\n".join([*parts, "</svg>\n"])


def _check(panels: Sequence[tuple[str, NDArray[np.floating]]], labels: Sequence[str]) -> None:
    """Refuse matrices that the labels do not fit."""
    if not panels or not labels:
        raise ValueError(f"heatmaps need panels and labels, got {len(panels)} and {len(labels)}")
    for name, matrix in panels:
        if np.shape(matrix) != (len(labels), len(labels)):
            raise ValueError(
                f"panel {name!r} must have shape ({len(labels)}, {len(labels)}) to fit the labels, "
                f"got {np.shape(matrix)}"
            )


def _panel(name: str, matrix: NDArray[np.float64], labels: Sequence[str], left: int) -> list[str]:
    """Draw one matrix, its name above and its column labels below."""
    side = len(labels) * _CELL
    name_above = _text(left + side / 2, _HEADER - 10, name, style='font-weight="bold"')
    cells = [
        _cell(float(value), left + column * _CELL, _HEADER + row * _CELL)
        for (row, column), value in np.ndenumerate(matrix)
    ]
    return [name_above, *cells, *_column_labels(labels, left, _HEADER + side + 8)]


def _cell(value: float, x: float, y: float) -> str:
    """Draw one value on its colour."""
    fill = colour(value)
    shown = "\u2013" if np.isnan(value) else f"{value:z.2f}"
    return _rect(x, y, _CELL, _CELL, fill) + _text(
        x + _CELL / 2, y + _CELL / 2 + 4, shown, fill=ink_on(fill)
    )


def _row_labels(labels: Sequence[str], layout: _Layout) -> Iterable[str]:
    """Name the rows, once for all panels."""
    right = layout.panel_left(0) - 8
    for row, label in enumerate(labels):
        yield _text(right, _HEADER + (row + 0.5) * _CELL + 4, label, anchor="end")


def _column_labels(labels: Sequence[str], left: float, top: float) -> Iterable[str]:
    """Name the columns of one panel, upright so that long names do not collide."""
    for column, label in enumerate(labels):
        x = left + (column + 0.5) * _CELL + 4
        yield _text(x, top, label, anchor="end", style=f'transform="rotate(-90 {x:g} {top:g})"')


def _colour_bar(layout: _Layout) -> Iterable[str]:
    """Draw the scale from -1 at the foot to 1 at the head."""
    step = layout.side / _N_BAR_STEPS
    for k in range(_N_BAR_STEPS):
        value = 1 - 2 * (k + 0.5) / _N_BAR_STEPS
        yield _rect(layout.bar_left, _HEADER + k * step, _BAR, step, colour(value))
    for value, shown in ((1, "1"), (0, "0"), (-1, "-1")):
        y = _HEADER + (1 - value) / 2 * layout.side
        yield _text(layout.bar_left + _BAR + 5, y + 4, shown, anchor="start")


def colour(value: float) -> Rgb:
    """Return the colour of a value; beyond -1..1 the scale's end, for NaN grey."""
    if np.isnan(value):
        return _MISSING
    position = (np.clip(value, -1, 1) + 1) / 2 * (len(_SCALE) - 1)
    red, green, blue = (
        round(np.interp(position, range(len(_SCALE)), c)) for c in zip(*_SCALE, strict=True)
    )
    return red, green, blue


def contrast(one: Rgb, other: Rgb) -> float:
    """Return the contrast ratio of two colours, 1..21, as WCAG 2 defines it."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(rgb: Rgb) -> float:
    """Relative luminance of an sRGB colour, 0..1."""
    encoded = np.array(rgb) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def ink_on(fill: Rgb) -> Rgb:
    """Black or white, whichever reads better."""
    return max(_BLACK, _WHITE, key=lambda ink: contrast(ink, fill))


def to_hex(rgb: Rgb) -> str:
    """A colour as ``#rrggbb``."""
    return "#" + bytes(rgb).hex()


def _rect(x: float, y: float, width: float, height: float, fill: Rgb) -> str:
    """One filled rectangle."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{to_hex(fill)}"/>'
    )


def _text(
    x: float, y: float, text: str, *, fill: Rgb = _BLACK, anchor: str = "middle", style: str = ""
) -> str:
    """One line of text."""
    attributes = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{to_hex(fill)}" {style}'
    return f"<text {attributes.rstrip()}>{markup_text(text)}</text>"
