"""Which rows of a run decide its rotation, and how much each counts? As the settings say, or the
call that adds it.

Numbers (weights, counts) are an array stored with the run's own table, known by its name, or a
file; so every run of a series brings its own. Ids to align on are a file. What was taken is
recorded with a checksum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from dask_embstab.core.types import Rows
from dask_embstab.errors import InputError, TooFewMatchedError
from dask_embstab.options import SELECTION
from dask_embstab.passes.fit.options import Selection, given_by_table
from dask_embstab.passes.join.listed import pair_listed
from dask_embstab.passes.join.options import JoinOptions
from dask_embstab.passes.join.pairing import Pairing, pair
from dask_embstab.repairs import option
from dask_embstab.series.log.settings import Settings
from dask_embstab.tables.column import as_column
from dask_embstab.tables.ids.id_pairs import IdPairs, as_pairs
from dask_embstab.tables.ids.ids import ID_RANGE
from dask_embstab.tables.named import NAMED, is_name, value_of
from dask_embstab.tables.read.source import checksum
from dask_embstab.tables.read.views import Gathered, MappedSource, SideBySide, column_source
from dask_embstab.tables.run import Run
from dask_embstab.tables.table import Table

_COUNTING = ("only", "counts", "min_count")
"""Those that also say which rows have a say in the running reference and in the gates."""


@dataclass(frozen=True, slots=True)
class Selected:
    """By aligned table: the selection, what is recorded of it, and the rows that count
    (None: all).
    """

    selections: Mapping[str, Selection] = field(default_factory=dict)
    recorded: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    def joined(self, key: str) -> bool:
        """Whether rows meet the reference's by equal ids, not by a list of pairs."""
        return key not in self.selections or self.selections[key].pairs is None

    def paired(
        self, ours: Table, theirs: Table, key: str, join: JoinOptions
    ) -> tuple[Table, Pairing]:
        """Rows of the aligned run's table that count and belong to rows of an earlier run's: the
        table (or a view of its listed rows) and the pairing.

        As the list of pairs says where there is one; by equal ids where the earlier run has none of
        the ids that it names, because that run was renamed already. Raises `IdError` where no row
        is shared.
        """
        chosen = self.rows.get(key)
        if not self.joined(key):
            with contextlib.suppress(TooFewMatchedError):
                listed = self.selections[key].pairs
                assert listed is not None
                view, pairing, _ = pair_listed(ours, theirs, listed)
                assert isinstance(view.source, Gathered)
                return view, pairing if chosen is None else pairing.only(chosen[view.source.rows])
        pairing = pair(ours, theirs, join)
        return ours, pairing if chosen is None else pairing.only(chosen)

    def counted(self, run: Run, key: str) -> Table:
        """The stabilized run's table with zeros in place of rows that stay out: they have no say in
        a mean.
        """
        table = run.table(key)
        if key not in self.rows:
            return table
        joined = SideBySide(table.source, column_source(self.rows[key]))
        return replace(table, source=MappedSource(joined, _counted_rows, table.d, table.dtype))


def selected(source: Run, settings: Settings, given: Mapping[str, Any]) -> Selected:
    """What the settings and the call say of a run's rows, read and checked.

    Raises `InputError` where numbers are not there, or ``min_count`` has no counts to go by.
    """
    options = {name: getattr(settings, name) for name in SELECTION}
    options |= {name: value for name, value in given.items() if value is not None}
    if options["min_count"] is not None and options["counts"] is None:
        raise InputError(
            f"min_count is {options['min_count']}, and how often the rows of {source.path} were"
            " seen is not known; set counts to the name of an array stored with every run",
            f"{option('counts')} gives those of this run",
        )
    asked = any(value is not None for name, value in options.items() if name != "seed")
    if not asked:
        return Selected()

    for name, value in options.items():
        if isinstance(value, Mapping):
            options[name] = given_by_table(name, value, settings.aligned)
    selections, recorded, rows = {}, {}, {}
    for key in settings.aligned:
        table = source.table(key)
        own: dict[str, Any] = {
            name: value.get(key) if isinstance(value, Mapping) else value
            for name, value in options.items()
        }
        named = {name: str(own[name]) for name in (*NAMED, "pairs") if is_name(name, own[name])}
        own |= {name: value_of(name, own[name], table, source) for name in NAMED}
        own["pairs"] = None if own["pairs"] is None else as_pairs(own["pairs"])
        counting = {name: own[name] for name in _COUNTING}
        if own["pairs"] is not None and given.get("pairs") is not None:
            own |= _set_aside(own, given)
        selections[key] = Selection(**own)
        own |= counting
        chosen = Selection(**counting).chosen(table)
        numbers = {name: own[name] for name in ("min_count", "sample", "anchors", "seed")}
        recorded[key] = {
            name: n.item() if isinstance(n, np.generic) else n for name, n in numbers.items()
        } | {
            name: {"from": named.get(name), "crc32c": _checksum(name, own[name], table)}
            for name in (*NAMED, "pairs")
            if own[name] is not None
        }
        if chosen is not None:
            rows[key] = chosen
    return Selected(selections, recorded, rows)


def _set_aside(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, None]:
    """What the settings choose rows by and a list of pairs that comes with the run replaces: it
    alone decides the rotation.
    """
    by_settings = [
        name
        for name in (*_COUNTING, "weights", "sample", "anchors")
        if given.get(name) is None and (name, own[name]) != ("weights", "norm")
    ]
    return dict.fromkeys(by_settings)


def _counted_rows(rows: Rows) -> Rows:
    """Rows whose last component, 1 or 0, says whether they count."""
    return rows[:, :-1] * rows[:, -1:]


def _checksum(name: str, value: Any, table: Table) -> int | None:
    """Of the numbers in the order of the rows, or of the ids as texts."""
    if isinstance(value, str):
        return None
    if isinstance(value, IdPairs):
        listed = zip(
            np.asarray(value.ours).tolist(), np.asarray(value.theirs).tolist(), strict=True
        )
        return int(
            crc32c.crc32c("\n".join(f"{ours}\t{theirs}" for ours, theirs in listed).encode())
        )
    if name == "only":
        return int(crc32c.crc32c("\n".join(map(str, np.asarray(value).tolist())).encode()))
    column = as_column(value, table.row_ids, what=f"{name} of {table.where}")
    crc = 0
    for start in range(0, table.n_rows, ID_RANGE):
        crc = checksum(column.take(start, min(start + ID_RANGE, table.n_rows))[:, None], crc)
    return crc
