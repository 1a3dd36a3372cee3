"""An index moved to a new model part by part, and searched meanwhile: the vectors that were moved
are asked in the new space, the others in the old one through a bridge, and the answers are merged.

The place of a backfill is a folder: ``backfill.json`` (which index, which run, how far), the
bridge, and one small index for every part that is done. The old index is never written to, so that
rolling back is forgetting the parts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dask_embstab.arguments import shown
from dask_embstab.core.types import Matrix
from dask_embstab.display import Displayed
from dask_embstab.errors import (
    DamageError,
    InputChangedError,
    InputError,
    NotFiniteError,
    SpaceError,
    verb,
)
from dask_embstab.exchange.migrate.part import write_rows
from dask_embstab.exchange.opened_index import SEARCHED, Index, open_index
from dask_embstab.exchange.place import RECORD
from dask_embstab.files.atomic import PARTIAL, hidden_name, new_token, write_whole
from dask_embstab.files.place import local_path
from dask_embstab.files.regular import read_regular
from dask_embstab.options import require_each
from dask_embstab.passes.join.rows import read_rows
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.repairs import option
from dask_embstab.tables.coerce import TableLike, as_run, as_table
from dask_embstab.tables.ids.kinds import IdArray
from dask_embstab.tables.ids.lookup import known_rows
from dask_embstab.tables.read.limits import physical_memory
from dask_embstab.tables.run import Run, RunLike, open_run
from dask_embstab.tables.space import Space, digest_of
from dask_embstab.tables.transform import Transform

STATE, BRIDGE = "backfill.json", "bridge.npz"
_KEPT = 256
"""Indexes that stay open between two searches; all of them are searched each time, so that those
which were opened first stay, and not those that were used last.
"""


@dataclass(frozen=True, slots=True)
class State:
    """What is moved where, and how far: the first ``done`` rows of the new run's ``table`` are.
    ``space`` and ``old_space`` are the origins of the new run's and the index's, ``bridge`` is the
    digest of the matrices between them.
    """

    index: str
    run: str
    table: str
    space: str
    part_rows: int
    rows: int
    done: int = 0
    old_space: str | None = None
    bridge: str | None = None


class Backfill(Displayed):
    """A backfill at its place; `begin` makes one.

    Every verb reads the state anew: one process may move parts while others search.

    Examples
    --------
    >>> done = es.export(monday, folder / "index", format="usearch", table="items")
    >>> made = es.begin_backfill(folder / "moving", folder / "index", monday, tuesday)
    >>> es.Backfill(folder / "moving").state.rows
    200
    """

    @verb()
    def __init__(self, place: str | os.PathLike[str]) -> None:
        folder = local_path(place)
        if folder is None:
            raise InputError(f"a backfill lies in a local folder; {shown(place)} came")
        self.place: Path = folder
        self._kept: dict[Path, tuple[Any, Index]] = {}
        self.state = self._state()

    def _facts(self) -> dict[str, object]:
        state = self.state
        return {"place": self.place, "moved": f"{state.done} of {state.rows}", "run": state.run}

    def step(self) -> State:
        """Move the next part; what an interrupted call left of it is written anew.

        Examples
        --------
        >>> done = es.export(monday, folder / "index", format="usearch", table="items")
        >>> moving = es.begin_backfill(folder / "moving", folder / "index", monday, tuesday)
        >>> moving.step().done
        200
        """
        state = self.state = self._state()
        if state.done == state.rows:
            return state
        run = self._run(state)
        stop = min(state.done + state.part_rows, state.rows)
        place = self._part(state.done)
        if not (place / RECORD).is_file():
            write_rows(run, state.space, self._old(state), place, state.done, stop)
        self._save(replace(state, done=stop))
        return self.state

    def roll_back(self) -> State:
        """Search the old index alone again; the parts are removed.

        Examples
        --------
        >>> done = es.export(monday, folder / "index", format="usearch", table="items")
        >>> moving = es.begin_backfill(folder / "moving", folder / "index", monday, tuesday)
        >>> moving.roll_back().done
        0
        """
        state = replace(self._state(), done=0)
        self._save(state)
        # Gone at once: of a part that is half removed the next step would find the record.
        removed = self.place / hidden_name("parts", new_token())
        with contextlib.suppress(FileNotFoundError):
            (self.place / "parts").rename(removed)
        for left in self.place.glob(f".parts.*{PARTIAL}"):
            shutil.rmtree(left, ignore_errors=True)
        return state

    @verb()
    def search(
        self, queries: RunLike | TableLike, k: int, *, space: Space | None = None
    ) -> tuple[Matrix, IdArray]:
        """Scores (q, k) and ids (q, k) for queries (q, d) of the new model, in both spaces.

        An id that was moved counts in the new space alone; one that only the old index has, until
        all parts are done. A run asks with its users (without users its items); of vectors alone
        ``space`` says whose they are, and another space is a `SpaceError`.

        Examples
        --------
        >>> done = es.export(monday, folder / "index", format="usearch", table="items")
        >>> moving = es.begin_backfill(folder / "moving", folder / "index", monday, tuesday)
        >>> scores, ids = moving.search(tuesday, 5)
        >>> ids.shape
        (300, 5)
        """
        require_each("query_index", {"k": k})
        state = self.state = self._state()
        run = as_run(queries)
        if run is not None:
            asked, space = run.users or run.table("items"), space_of_run(run)
        else:
            asked = as_table(queries, where="the queries")
        if space is not None and not isinstance(space, Space):
            raise InputError(f"space must be a Space; it is {shown(space)}; space_of makes one")
        if space is None or space.origin != state.space:
            raise SpaceError(
                f"queries must be of the space of the new run, whose origin is {state.space};"
                f" {'vectors alone do not say theirs' if space is None else space.origin}; give"
                f" {option('space')}, such as space_of({state.run!r})"
            )
        new = self._run(state)
        if asked.d != (d := new.table(state.table).d):
            raise InputError(f"queries of the new model have {d} components; these have {asked.d}")
        rows = read_rows(asked, np.arange(asked.n_rows), label="backfill: queries")
        if not np.isfinite(rows).all():
            raise NotFiniteError(f"rows of {asked.where} are not finite; mend them")
        answers = [
            self._opened(self._part(start), state.table, state.space).search(
                rows, min(k, self._size(start))
            )
            for start in range(0, state.done, state.part_rows)
        ]
        if state.done < state.rows:
            answers.append(self._unmoved(state, new, rows, k))
        scores = np.concatenate([some for some, _ in answers], axis=1)
        ids = np.concatenate([names for _, names in answers], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = (np.take_along_axis(one, best, axis=1) for one in (scores, ids))
        if scores.shape[1] < k or np.isneginf(scores).any():
            raise InputError(
                f"{k} neighbours were asked for, and both indexes hold fewer; ask for fewer"
            )
        return scores, ids

    def _unmoved(self, state: State, run: Run, queries: Matrix, k: int) -> tuple[Matrix, IdArray]:
        """The best of the old index whose ids were not moved yet, (q, at most k); scores of -inf
        where there are no more.
        """
        index = self._old(state)
        bridge = Transform.load(self.place / BRIDGE)
        if state.bridge not in (None, digest_of(bridge)):
            raise InputChangedError(
                f"{self.place / BRIDGE} is another than when the backfill began; remove"
                f" {self.place} and begin again"
            )
        through = bridge.transform_items if run.users is None else bridge.transform_users
        sent, ids = np.asarray(through(queries)), run.table(state.table).row_ids
        wanted = min(index.rows, 2 * k)
        while True:
            scores, names = index.search(sent, wanted)
            each, at = np.unique(names, return_inverse=True)  # queries find the same ids
            rows = known_rows(ids, each, state.table)[at].reshape(names.shape)
            moved = (rows >= 0) & (rows < state.done)
            if wanted == index.rows or (~moved).sum(axis=1).min(initial=k) >= k:
                break
            wanted = min(index.rows, 2 * wanted)
        order = np.argsort(moved, axis=1, kind="stable")[:, :k]
        scores = np.where(moved, -np.inf, scores)
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(names, order, axis=1)

    def _opened(self, place: Path, table: str, origin: str | None) -> Index:
        """An index of this space, kept open while there is room and its files are the same."""
        try:
            status = (place / RECORD if place.is_dir() else place).stat()
        except FileNotFoundError:
            raise InputChangedError(
                f"there is no index at {place}: it was removed, or rolled back meanwhile; restore"
                " it, or call again"
            ) from None
        stamp = status.st_ino, status.st_mtime_ns, status.st_size
        known = self._kept.get(place)
        if known is not None and known[0] == stamp:
            return known[1]
        index = open_index(place, table)
        if origin is not None and index.space.origin != origin:
            raise SpaceError(
                f"{place} must hold vectors of the space {origin}, as when the backfill of"
                f" {self.place} began; it holds those of {index.space.origin}; restore it, or begin"
                " again"
            )
        self._kept.pop(place, None)
        size = sum(one.rows * one.d * 4 for _, one in self._kept.values())
        if len(self._kept) < _KEPT and size + index.rows * index.d * 4 < physical_memory() // 4:
            self._kept[place] = stamp, index
        return index

    def _size(self, start: int) -> int:
        return min(self.state.part_rows, self.state.rows - start)

    def _part(self, start: int) -> Path:
        return self.place / "parts" / f"{start:012d}"

    def _old(self, state: State) -> Index:
        return self._opened(Path(state.index), state.table, state.old_space)

    def _run(self, state: State) -> Run:
        run = open_run(state.run)
        if space_of_run(run).origin != state.space or run.table(state.table).n_rows != state.rows:
            raise InputChangedError(
                f"{state.run} is another run than when the backfill of {self.place} began; remove"
                " its folder and begin again"
            )
        return run

    def _state(self) -> State:
        try:
            return State(**json.loads(read_regular(self.place / STATE)))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"there is no backfill at {self.place}; begin one") from None
        except (ValueError, TypeError) as error:
            raise DamageError(f"{self.place / STATE} cannot be read ({error})") from error

    def _save(self, state: State) -> None:
        self.state = state
        text = json.dumps(asdict(state), indent=1)
        write_whole(self.place / STATE, lambda file: file.write(text.encode()))


def begin(place: Path, index: Index, new: Run, bridge: Transform, part_rows: int) -> Backfill:
    """Make the place of a backfill from an index to the rows of a new run; nothing is moved yet.

    ``bridge`` leads from the new space into the index's.
    """
    if index.engine not in SEARCHED:
        raise InputError(
            f"a backfill searches both indexes; files of {index.engine} are searched by its server"
        )
    if index.metric == "l2":
        raise InputError(
            f"a backfill merges answers by dot products or cosines; {index.folder} ranks by"
            " distances; build the new index at once"
        )
    if new.path is None:
        raise InputError("the new run must be stored: a backfill goes on in another process")
    place.mkdir(exist_ok=False)
    bridge.save(place / BRIDGE)
    table = new.table(index.table)
    made = State(
        str(index.folder.absolute()),
        str(Path(new.path).absolute()),
        index.table,
        space_of_run(new).origin,
        part_rows,
        table.n_rows,
        old_space=index.space.origin,
        bridge=digest_of(bridge),
    )
    text = json.dumps(asdict(made), indent=1)
    write_whole(place / STATE, lambda file: file.write(text.encode()))
    return Backfill(place)
