"""A figure of a page: its drawings, what they say in words, how to read them, and all their numbers
in a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dask_embstab.render.html import Html, Section, heading, paragraph, table
from dask_embstab.render.marks import Drawing, svg
from dask_embstab.render.table import Cell
from dask_embstab.render.text import markup_text

TABLES = ("items", "users")
"""In this order pages show what they have of each."""


@dataclass(frozen=True, slots=True)
class Figure:
    """``title`` names it, ``description`` says what is seen to whoever does not see it, ``reading``
    says in a sentence how to read it. ``rows`` below ``header`` are its numbers.
    """

    title: str
    description: str
    reading: str
    drawings: tuple[Drawing, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markup(self, name: str) -> Html:
        """As HTML; ``name`` is the figure's own in the page."""
        drawn = [
            '<div class="drawing">'
            + (heading(4, one.name) if one.name else "")
            + svg(
                one,
                title=self.title + (f": {one.name}" if one.name else ""),
                description=self.description,
                name=f"{name}-{k}",
            )
            + "</div>"
            for k, one in enumerate(self.drawings)
        ]
        wide = ' class="two"' if len(drawn) > 1 else ""
        return Html(
            "\n".join(
                [
                    f"<figure{wide}>",
                    heading(3, self.title),
                    '<div class="drawings">',
                    *drawn,
                    "</div>",
                    f"<figcaption>{markup_text(self.reading)}</figcaption>",
                    "<details>",
                    f"<summary>Numbers of this figure ({len(self.rows)} rows)</summary>",
                    table(self.header, self.rows, digits=None),
                    "</details>",
                    "</figure>",
                ]
            )
        )


@dataclass(frozen=True, slots=True)
class Absent:
    """A figure that could not be made, and why."""

    title: str
    why: str

    def markup(self, name: str) -> Html:
        """As HTML: a line."""
        del name
        text = paragraph(f"Not shown: {self.why}")
        return Html(f'<div class="absent">{heading(3, self.title)}{text}</div>')


def plain(value: Any) -> Any:
    """Nested values as JSON has them: texts as keys, lists, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def merged(title: str, by_table: Mapping[str, Figure | Absent]) -> list[Figure | Absent]:
    """One figure of the same figures of several tables, which have one header and one reading; what
    is absent stays apart.
    """
    known = {key: one for key, one in by_table.items() if isinstance(one, Figure)}
    absent: list[Figure | Absent] = [
        one for one in by_table.values() if not isinstance(one, Figure)
    ]
    if not known:
        return absent
    first = next(iter(known.values()))
    figure = Figure(
        title,
        " ".join(f"{key.capitalize()}: {one.description}" for key, one in known.items()),
        first.reading,
        tuple(
            replace(drawing, name=f"{key.capitalize()}{drawing.name and ': '}{drawing.name}")
            for key, one in known.items()
            for drawing in one.drawings
        ),
        ("table", *first.header),
        tuple((key, *row) for key, one in known.items() for row in one.rows),
    )
    return [figure, *absent]


def sections_of(parts: Mapping[str, Sequence[Figure | Absent]], prefix: str) -> tuple[Section, ...]:
    """Sections by their headings, their figures side by side as the page's width allows; ids of
    elements begin with ``prefix``.
    """
    return tuple(
        Section(heading_, (_side_by_side(figures, f"{prefix}{number}-"),))
        for number, (heading_, figures) in enumerate(parts.items())
        if figures
    )


def _side_by_side(figures: Sequence[Figure | Absent], prefix: str) -> Html:
    inner = "\n".join(figure.markup(f"{prefix}{k}") for k, figure in enumerate(figures))
    return Html(f'<div class="figures">\n{inner}\n</div>')
