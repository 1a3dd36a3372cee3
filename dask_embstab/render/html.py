"""A report as one HTML file that needs nothing beside it: a verdict, headings, text, tables and
figures.

`Html` is text that is markup already. Whatever comes from outside is a plain string and is escaped
on its way in, so the type checker tells the two apart. Every rule of the style sheet holds within
the element of class ``embstab`` alone, so that a page stands in a notebook as it does in a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType

from dask_embstab.render.colours import DARK, LIGHT, rules, variables
from dask_embstab.render.table import Cell, cell_text
from dask_embstab.render.text import markup_text

Html = NewType("Html", str)
_MOST_LEFT = 8
"""Of the columns of a table so many may hold text."""

_STYLE = """\
.embstab { color-scheme: light dark; @LIGHT@ }
@media screen and (prefers-color-scheme: dark) { .embstab { @DARK@ } }
.embstab { background: var(--page); color: var(--ink); margin: 0; padding: 1.5rem 1rem 3rem;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }
.embstab * { box-sizing: border-box; }
.embstab > * { max-width: 80rem; margin-left: auto; margin-right: auto; }
.embstab h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem auto; letter-spacing: -.01em; }
.embstab h2 { font-size: 1.25rem; line-height: 1.2; margin: 2.5rem auto .75rem; }
.embstab h3 { font-size: 1rem; line-height: 1.3; margin: 0 0 .5rem; }
.embstab h4 { font-size: .875rem; line-height: 1.3; margin: 0 0 .35rem; }
.embstab p { max-width: 46rem; margin: .5rem 0; }
.embstab .mute, .embstab figcaption, .embstab summary { color: var(--mute); }
.embstab .verdict { background: var(--card); border: 1px solid var(--edge);
  border-left: 6px solid var(--good); border-radius: 8px; padding: 1rem 1.25rem; margin-top: 1rem; }
.embstab .verdict.bad { border-left: 6px double var(--bad); }
.embstab .verdict > strong { font-size: 1.3rem; line-height: 1.3; color: var(--good); }
.embstab .verdict.bad > strong { color: var(--bad); }
.embstab .keys, .embstab .figures { display: grid; gap: 1rem; margin-top: 1rem; min-width: 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.embstab .key, .embstab figure, .embstab .absent { background: var(--card); min-width: 0;
  border: 1px solid var(--edge); border-radius: 8px; padding: 1rem; margin: 0; }
.embstab .key .value { font-size: 2rem; line-height: 1.2; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.embstab .key .state { font-weight: 650; color: var(--good); }
.embstab .key .state.bad { color: var(--bad); }
.embstab .key p { margin: .15rem 0; font-size: .9rem; }
.embstab figure.two { grid-column: 1 / -1; }
.embstab .two .drawings { display: grid; gap: 1rem 2.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.embstab figure:has(details[open]) { grid-column: 1 / -1; }
.embstab figure:not(.two) .drawings { max-width: 30rem; }
.embstab svg { display: block; width: 100%; height: auto; }
.embstab figcaption { font-size: .875rem; margin: .5rem 0; max-width: 46rem; }
.embstab summary { cursor: pointer; font-size: .875rem; }
.embstab summary:focus-visible { outline: 2px solid var(--s0); outline-offset: 2px; }
.embstab .wide { overflow-x: auto; max-height: 26rem; max-width: 100%; }
.embstab table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem;
  margin: .5rem 0; background: none; color: inherit; }
.embstab th, .embstab td { border-bottom: 1px solid var(--edge); padding: .3rem .7rem;
  text-align: right; overflow-wrap: normal; }
@LEFT@
.embstab thead th { vertical-align: bottom; }
.embstab .t { font-size: 12px; fill: var(--ink); } .embstab .m { fill: var(--mute); }
.embstab .h { paint-order: stroke; stroke: var(--card); stroke-width: 4px; }
.embstab .n { font-size: 10.5px; } .embstab .b { font-weight: 650; }
.embstab .g { stroke: var(--grid); stroke-width: 1; }
.embstab .l { fill: none; stroke-width: 2; stroke-linejoin: round; }
.embstab .s1 { stroke-dasharray: 7 3; } .embstab .s2 { stroke-dasharray: 2 3; }
.embstab .s3 { stroke-dasharray: 9 3 2 3; } .embstab .s4 { stroke-dasharray: 4 2; }
.embstab .limit { fill: none; stroke: var(--mute); stroke-width: 1.3; stroke-dasharray: 4 3; }
.embstab .bar { fill: var(--card); }
@RULES@
@media screen and (min-width: 75rem) {
  .embstab figure.two { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 1fr);
    grid-template-rows: auto auto 1fr; column-gap: 2.5rem; }
  .embstab .two > h3, .embstab .two > details[open] { grid-column: 1 / -1; }
  .embstab .two > .drawings { grid-row: 2 / span 2; }
  .embstab .two > details[open] { grid-row: 4; } }
@media print { .embstab { padding: 0; font-size: 11pt; --page: #fff; }
  .embstab figure, .embstab .key, .embstab .verdict, .embstab .absent { break-inside: avoid; }
  .embstab h2, .embstab h3 { break-after: avoid; }
  .embstab .keys { grid-template-columns: repeat(3, 1fr); }
  .embstab .figures { grid-template-columns: repeat(2, 1fr); }
  .embstab * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the blocks below it."""

    heading: str
    blocks: tuple[Html, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """A figure to look at first: what it is, its value, what is good, whether it is (None: nobody
    can say), and what it means.
    """

    name: str
    value: str
    good: str
    is_good: bool | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Is it well, in one line; the figures that say so; and what else is known, a line each."""

    is_well: bool
    line: str
    keys: tuple[Key, ...] = ()
    lines: tuple[str, ...] = ()


def page(title: str, sections: Sequence[Section], verdict: Verdict | None = None) -> Html:
    """A whole HTML document, readable on light and dark screens, on a phone and on paper.

    Parameters
    ----------
    title
        Its name and first heading.
    sections
        What it holds, in order; the blocks are made by `paragraph`, `table` and `figure`.
    verdict
        What stands before them.
    """
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en" style="height:100%">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{markup_text(title)}</title>",
        style_sheet(),
        "</head>",
        '<body style="margin:0;min-height:100%">',
        content(title, sections, verdict),
        "</body>",
        "</html>",
    ]
    return Html("\n".join(lines) + "\n")


def style_sheet() -> Html:
    """The style sheet of a page; it changes nothing outside of `content`."""
    sheet = _STYLE.replace("@LIGHT@", variables(LIGHT, "light"))
    sheet = sheet.replace("@DARK@", variables(DARK, "dark")).replace("@RULES@", rules())
    sheet = sheet.replace("@LEFT@", _left_rules())
    return Html(f"<style>\n{sheet}</style>")


def _left_rules() -> str:
    """Columns of texts begin at the left."""
    cells = ", ".join(f".embstab .l{k} :nth-child({k + 1}):is(th, td)" for k in range(_MOST_LEFT))
    return f"{cells} {{ text-align: left; }}"


def content(title: str, sections: Sequence[Section], verdict: Verdict | None = None) -> Html:
    """The page without its style sheet, as one element."""
    return Html(
        "\n".join(
            [
                '<main class="embstab">',
                f"<h1>{markup_text(title)}</h1>",
                *([] if verdict is None else [_verdict(verdict)]),
                *(_section(section) for section in sections),
                "</main>",
            ]
        )
    )


def heading(level: int, text: str) -> Html:
    """A heading."""
    return Html(f"<h{level}>{markup_text(text)}</h{level}>")


def paragraph(text: str, *, style: str = "") -> Html:
    """Plain text as a paragraph."""
    return Html(f"<p{_class(style)}>{markup_text(text)}</p>")


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, digits: int | None = 3) -> Html:
    """Rows of figures under a header; the first cell of a row names it.

    Parameters
    ----------
    header, rows, digits
        As in `dask_embstab.render.table.text_table`.
    """
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    left = [k for k, column in enumerate(columns) if any(isinstance(c, str) for c in column)]
    style = _class(" ".join(f"l{k}" for k in left if k < _MOST_LEFT))
    names = [f'<th scope="col">{markup_text(name)}</th>' for name in header]
    lines = [
        f'<div class="wide" tabindex="0"><table{style}>',
        f"<thead><tr>{''.join(names)}</tr></thead>",
        "<tbody>",
        *(_row(row, digits) for row in rows),
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


def _verdict(verdict: Verdict) -> str:
    mark, style = ("\u2713", "verdict") if verdict.is_well else ("!", "verdict bad")
    return "\n".join(
        [
            f'<section class="{style}"><strong>{mark} {markup_text(verdict.line)}</strong>',
            *(paragraph(line, style="mute") for line in verdict.lines),
            "</section>",
            *(['<div class="keys">', *map(_key, verdict.keys), "</div>"] if verdict.keys else []),
        ]
    )


def _key(key: Key) -> str:
    state = {True: "\u2713 Good", False: "! Look at this", None: ""}[key.is_good]
    style = "state bad" if key.is_good is False else "state"
    return "\n".join(
        [
            f'<div class="key">{heading(3, key.name)}',
            f'<div class="value">{markup_text(key.value)}</div>',
            f'<p><span class="{style}">{state}</span> ({markup_text(key.good)})</p>',
            f"{paragraph(key.meaning, style='mute')}</div>",
        ]
    )


def _section(section: Section) -> str:
    return "\n".join(["<section>", heading(2, section.heading), *section.blocks, "</section>"])


def _row(row: Sequence[Cell], digits: int | None) -> str:
    name, *figures = (markup_text(cell_text(cell, digits=digits)) for cell in row)
    cells = "".join(f"<td>{shown}</td>" for shown in figures)
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""
