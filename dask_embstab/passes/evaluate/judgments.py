"""Which items are relevant to which queries? Triples of query id, item id and grade, from whatever
holds them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dask_embstab.arguments import is_a
from dask_embstab.core.metrics.rankings import Counts, places_in
from dask_embstab.core.types import Matrix, RowNumbers, Vector
from dask_embstab.errors import EmbstabError, InputError
from dask_embstab.files.place import local_path
from dask_embstab.tables.ids.id_pairs import IdPairs, frame_in
from dask_embstab.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

_FORM = (
    "judgments are triples of query id, item id and grade: a list of them, three columns, a dict of"
    " dicts by query and item, or a file (CSV or TSV with a header, Parquet, or TREC qrels)"
)


@dataclass(frozen=True, slots=True)
class Judgments:
    """Three columns of equal length; every pair of ids stands there once, and every grade is a
    finite number.
    """

    queries: Any
    items: Any
    grades: Vector
    where: str


@dataclass(frozen=True, slots=True)
class JudgedQueries:
    """Queries that both runs have and that have a relevant item, and the items judged for them.

    ``rows`` of queries in both runs, (2, q) ascending in the first; ``items`` (2, q, m) are row
    numbers in both runs of the judged items, -1 where a run has none, and ``grades`` (q, m) those
    of the items, 0 where there are fewer. A sample was drawn of ``population`` such queries.
    """

    rows: RowNumbers
    items: RowNumbers
    grades: Matrix
    unknown: int
    without_relevant: int
    population: int

    @property
    def n_relevant(self) -> Counts:
        """Relevant items of every query."""
        return np.asarray(np.count_nonzero(self.grades > 0, axis=1))

    def only(self, kept: npt.NDArray[np.bool_]) -> JudgedQueries:
        """Of those queries alone; the others are unknown."""
        unknown = self.unknown + int(np.count_nonzero(~kept))
        return replace(self._of(np.flatnonzero(kept)), unknown=unknown)

    def sampled(self, size: int, seed: int) -> JudgedQueries:
        """At most ``size`` of them, drawn with ``seed``."""
        n = self.rows.shape[1]
        if n <= size:
            return self
        return self._of(np.sort(np.random.default_rng(seed).choice(n, size, replace=False)))

    def _of(self, queries: RowNumbers) -> JudgedQueries:
        return replace(
            self,
            rows=self.rows[:, queries],
            items=self.items[:, queries],
            grades=self.grades[queries],
        )

    def grades_of(self, ranked: RowNumbers, run: int) -> Matrix:
        """Of the items in rankings (q, k) of one run: 0 where an item was not judged."""
        places = places_in(self.items[run], ranked)
        grades = np.zeros(ranked.shape)
        lines, judged = np.nonzero(places >= 0)
        grades[lines, places[lines, judged]] = self.grades[lines, judged]
        return grades

    def ideal(self, k: int) -> Matrix:
        """The ``k`` largest grades of each query, descending; 0 where there are fewer."""
        grades = -np.sort(-np.maximum(self.grades, 0), axis=1)[:, :k]
        return np.pad(grades, ((0, 0), (0, k - grades.shape[1])))


def as_judgments(given: Any) -> Judgments:
    """Judgments from what a user gave, checked."""
    import pandas as pd

    frame, where = _frame(given)
    if frame.shape[1] != 3 or not len(frame):
        raise InputError(f"{_FORM}; {where} have {frame.shape[1]} columns and {len(frame)} rows")
    queries, items = (frame.iloc[:, i] for i in range(2))
    grades = pd.to_numeric(frame.iloc[:, 2], errors="coerce").to_numpy(np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(grades))):
        raise InputError(
            f"grades must be finite numbers; row {bad[0]} of {where} has {frame.iloc[bad[0], 2]!r}"
        )
    again = pd.DataFrame({"q": queries.to_numpy(), "i": items.to_numpy()}).duplicated().to_numpy()
    if again.any():
        row = int(again.argmax())
        raise InputError(
            f"an item must be judged once for a query; {where} repeat query"
            f" {queries.iloc[row]!r} and item {items.iloc[row]!r} in row {row}"
        )
    return Judgments(queries.to_numpy(), items.to_numpy(), grades, where)


def judged_queries(
    judgments: Judgments, queries: tuple[Table, Table], items: tuple[Table, Table]
) -> JudgedQueries:
    """What of the judgments both runs can be measured by: one read of all ids of four tables."""
    import pandas as pd

    pairs = IdPairs(judgments.queries, judgments.items, judgments.where)
    codes, names = pd.factorize(pd.Index(judgments.queries))
    _, first = np.unique(codes, return_index=True)
    once = IdPairs(pairs.ours[first], pairs.ours[first], judgments.where)
    rows = np.stack([once.rows_in(table.row_ids, reference=False) for table in queries])
    pair_rows = np.stack([pairs.rows_in(table.row_ids, reference=True) for table in items])
    is_relevant = np.bincount(codes, judgments.grades > 0, minlength=len(names)) > 0
    known = (rows >= 0).all(axis=0)
    kept = np.flatnonzero(known & is_relevant)
    kept = kept[np.argsort(rows[0, kept], kind="stable")]
    if not len(kept):
        raise InputError(
            f"a judged query must be in both runs and have an item of a grade above 0; of"
            f" {len(names)} queries of {judgments.where} {int(known.sum())} are in both runs and"
            f" {int(is_relevant.sum())} have such an item"
        )
    line = np.full(len(names), -1)
    line[kept] = np.arange(len(kept))
    order = np.argsort(line[codes], kind="stable")
    order = order[np.searchsorted(line[codes][order], 0) :]
    lines = line[codes][order]
    counts = np.bincount(lines, minlength=len(kept))
    place = np.arange(len(lines)) - (np.cumsum(counts) - counts)[lines]
    grades = np.zeros((len(kept), int(counts.max())))
    judged = np.full((2, *grades.shape), -1, np.int64)
    grades[lines, place] = judgments.grades[order]
    judged[:, lines, place] = pair_rows[:, order]
    return JudgedQueries(
        rows[:, kept],
        judged,
        grades,
        unknown=int((~known).sum()),
        without_relevant=int((known & ~is_relevant).sum()),
        population=len(kept),
    )


def _frame(given: Any) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    if isinstance(given, str | os.PathLike):
        if (path := local_path(given)) is None:
            raise InputError(f"{_FORM}; {given} is the URL of another store; give a local file")
        return _read(path), f"the judgments of {path}"
    if is_a(given, "pandas", "DataFrame"):
        return given, "the judgments"
    if isinstance(given, Mapping):
        try:
            given = [
                (query, item, grade)
                for query, graded in given.items()
                for item, grade in graded.items()
            ]
        except AttributeError as error:
            raise InputError(f"{_FORM}; a dict of other values came") from error
    try:
        parts = list(given)
        is_columns = len(parts) == 3 and not all(isinstance(part, tuple) for part in parts)
        columns = map(np.asarray, parts) if is_columns else zip(*parts, strict=True)
        return pd.DataFrame(dict(enumerate(columns))), "the judgments"
    except Exception as error:  # whatever a foreign type raises, it holds no judgments
        raise InputError(f"{_FORM}; a {type(given).__name__} came") from error


def _read(path: Path) -> pd.DataFrame:
    """The first three columns of a file with a header; of TREC qrels without their second one."""
    import pandas as pd

    texts: dict[str, Any] = {"dtype": str, "keep_default_na": False}
    try:
        if path.suffix in (".parquet", ".pq", ".csv"):
            return frame_in(path)
        if path.suffix == ".tsv":
            return pd.read_csv(path, sep="\t", **texts)
        return pd.read_csv(path, sep=r"\s+", header=None, **texts).drop(columns=1)
    except EmbstabError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{_FORM}; {path} cannot be read ({error})") from error
