"""A report as one HTML file that needs nothing beside it: headings, text, tables and pictures.

`Html` is text that is markup already. Whatever comes from outside is a plain string and is escaped
on its way in, so the type checker tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType

from dask_embstab.report.table import Cell, cell_text, is_number
from dask_embstab.report.text import markup_text

Html = NewType("Html", str)

# System colours follow the reader's light or dark setting, with no second set of rules to keep in
# step.
_STYLE = """\
:root { color-scheme: light dark; }
body { background: Canvas; color: CanvasText; font: 16px/1.5 system-ui,
    sans-serif; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
p { max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid GrayText; padding: 0.3rem 0.8rem; text-align: left; }
.number { text-align: right; }
figure { margin: 1rem 0; }
figure svg { display: block; height: auto; max-width: 100%; }
figcaption { margin-top: 0.5rem; }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the blocks below it."""

    heading: str
    blocks: tuple[Html, ...]


def page(title: str, sections: Sequence[Section]) -> Html:
    """A whole HTML document, readable on light and dark screens.

    Parameters
    ----------
    title
        Its name and first heading.
    sections
        What it holds, in order; the blocks are made by `paragraph`, `table` and `figure`.
    """
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{markup_text(title)}</title>",
        f"<style>\n{_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{markup_text(title)}</h1>",
        *(_section(section) for section in sections),
        "</body>",
        "</html>",
    ]
    return Html("\n".join(lines) + "\n")


def paragraph(text: str) -> Html:
    """Plain text as a paragraph."""
    return Html(f"<p>{markup_text(text)}</p>")


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, digits: int = 3) -> Html:
    """Rows of figures under a header; the first cell of a row names it.

    Parameters
    ----------
    header, rows, digits
        As in `dask_embstab.report.table.text_table`.
    """
    right = [is_number(cell) for cell in rows[0]] if rows else [False] * len(header)
    names = [
        f'<th scope="col"{_class(to_right)}>{markup_text(n)}</th>'
        for n, to_right in zip(header, right, strict=True)
    ]
    lines = [
        '<div class="wide"><table>',
        f"<thead><tr>{''.join(names)}</tr></thead>",
        "<tbody>",
        *(_row(row, right, digits) for row in rows),
        "</tbody>",
        "</table></div>",
    ]
    return Html("\n".join(lines))


def figure(svg: str, caption: str) -> Html:
    """A picture, given as one ``<svg>`` element (trusted: it is embedded as it is), and a caption
    in plain text.
    """
    return Html(
        f"<figure>\n{svg.strip()}\n<figcaption>{markup_text(caption)}</figcaption>\n</figure>"
    )


def _section(section: Section) -> str:
    return "\n".join(
        ["<section>", f"<h2>{markup_text(section.heading)}</h2>", *section.blocks, "</section>"]
    )


def _row(row: Sequence[Cell], right: Sequence[bool], digits: int) -> str:
    name, *figures = (markup_text(cell_text(cell, digits=digits)) for cell in row)
    cells = [
        f"<td{_class(to_right)}>{shown}</td>"
        for shown, to_right in zip(figures, right[1:], strict=True)
    ]
    return f'<tr><th scope="row"{_class(right[0])}>{name}</th>{"".join(cells)}</tr>'


def _class(to_right: bool) -> str:  # noqa: FBT001 (the one cell property there is)
    return ' class="number"' if to_right else ""
