"""What the experiments of two papers share: the data's place, ranking quality, spread, and the
tables of `docs/experiments.md`; the series of `webshop_series.py` and `movielens_series.py` write
their pages with it, and `frontier.py` its part of one.

The papers are "Orthogonal low rank embedding stabilization" (Zielnicki & Hsiao, RecSys 2025, arXiv
2508.07574) and "When embedding models meet: Procrustes bounds and applications" (Maystre et al.,
arXiv 2510.13406). Each experiment is one program of this folder; with ``--markdown FILE`` it writes
its tables between its own two marks of that page and leaves the rest as it is.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gmf import default_folder
from numpy.typing import NDArray

from dask_embstab.render.table import text_table

Rows = NDArray[np.float64]
Titled = tuple[str, Sequence[str], Sequence[Sequence[Any]]]
"""A table: its title, its header and its lines."""


def parser_of(description: str, *, seeds: Sequence[int] = (0, 1, 2)) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data", type=Path, help="the folder of the data (default: $EMBSTAB_DATA, else shared/data"
        " beside the repository)"
    )  # fmt: skip
    add_seeds(parser, seeds, "one repetition each")
    parser.add_argument("--markdown", type=Path, help="a page with this experiment's marks")
    return parser


def add_seeds(parser: argparse.ArgumentParser, seeds: Sequence[int], about: str) -> None:
    """The option ``--seeds``."""
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds), help=about)


def require_data(folder: Path | None, name: str) -> Path:
    """A file of the data; the program ends where there is none."""
    folder = folder or default_folder()
    if not (folder / name).exists():
        sys.exit(
            f"error: there is no {name} in {folder}; give the folder of the data with --data, or"
            " set EMBSTAB_DATA"
        )
    return folder / name


def package_folder(name: str) -> Path | None:
    """Where the files of a package are; None where it is not installed."""
    spec = find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def spread(values: Sequence[float | None], *, digits: int = 3) -> str:
    """Mean and standard deviation over the repetitions; a dash where there are none."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.{digits}f}{deviation}"


def unit(rows: Rows) -> Rows:
    """Rows of length one; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    directions: Rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return directions


def mean_cosine(a: Rows, b: Rows) -> float:
    """Mean over the rows of the cosine of a's row with b's; pairs with a row of zeros left out."""
    cosines = np.sum(unit(a) * unit(b), axis=1)
    return float(cosines[a.any(axis=1) & b.any(axis=1)].mean())


def ndcg(scores: Rows, gains: Rows, k: int | None = 10) -> Rows:
    """NDCG at ``k`` (None: of the whole list) of each query, (q,): linear gains, log2 discounts
    (Jarvelin & Kekalainen 2002, doi:10.1145/582415.582418).

    ``scores`` and ``gains`` are (q, n); equal scores keep the order of the columns; a query without
    a gain is NaN.
    """
    k = scores.shape[1] if k is None else min(k, scores.shape[1])
    discounts = 1 / np.log2(np.arange(2, k + 2))
    best_first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    gained = np.take_along_axis(gains, best_first, 1) @ discounts
    best = -np.sort(-gains, axis=1)[:, :k] @ discounts
    quality: Rows = np.divide(gained, best, out=np.full(len(scores), np.nan), where=best > 0)
    return quality


def ranks_of(scores: Rows, columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many columns of each line score more than the one given, (q,): 0 is the first place."""
    own = np.take_along_axis(scores, columns[:, None], 1)
    ranks: NDArray[np.int64] = np.sum(scores > own, axis=1)
    return ranks


def command_line(program: str, argv: Sequence[str] | None) -> str:
    """The command as one would type it in the repository."""
    given = list(sys.argv[1:] if argv is None else argv)
    return shlex.join(["python", f"examples/{program}", *given])


def report(
    number: int, command: str, about: str, tables: Sequence[Titled], markdown: Path | None
) -> None:
    """Print the tables, and write them to a page if one is given."""
    show(tables)
    print("", about, sep="\n", flush=True)
    if markdown is not None:
        text = section(command, about, tables)
        page = markdown.read_text(encoding="utf-8")
        markdown.write_text(replace_section(page, number, text), encoding="utf-8")


def show(tables: Sequence[Titled]) -> None:
    """Print them."""
    for title, header, rows in tables:
        print("", f"{title}:", text_table(header, rows), sep="\n")


def as_markdown(tables: Sequence[Titled]) -> str:
    """Titles and tables of a page."""
    parts = []
    for title, header, rows in tables:
        lines = [header, ["---"] * len(header), *rows]
        parts += [f"{title}:", "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)]
    return "\n\n".join(parts)


def page_of(title: str, made: str, program: str | None, tables: Sequence[Titled]) -> str:
    """A whole page: how it was made, what the docstring of the program says but for its first
    paragraph and its commands, and the tables.
    """
    about = (program or "").split("\n\n")[1:5]
    return "\n\n".join([f"# {title}", made, *about, as_markdown(tables)]) + "\n"


def section(command: str, about: str, tables: Sequence[Titled]) -> str:
    """What stands between the marks of an experiment."""
    return f"Made by `{command}`. {about}\n\n{as_markdown(tables)}"


def replace_section(page: str, number: int, text: str) -> str:
    """The page with other text between the two marks of an experiment."""
    marks = f"<!-- experiment {number} -->", f"<!-- end of experiment {number} -->"
    return replace_between(page, *marks, text)


def replace_between(page: str, begin: str, end: str, text: str) -> str:
    """The page with other text between two marks; the program ends where the page has them not."""
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        sys.exit(f"error: the page must have the lines {begin} and {end}; add them where the"
                 " tables belong")  # fmt: skip
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def columns_of(seeds: Sequence[Mapping[str, float]], names: Sequence[str]) -> list[str]:
    """A cell per name: mean and deviation over the repetitions."""
    return [spread([one.get(name) for one in seeds]) for name in names]
