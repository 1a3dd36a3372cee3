"""A series in an Icechunk repository.

Everything is in the repository's hierarchy on the branch ``main``: runs and running references as
Zarr groups, small files as arrays of bytes. A publish is one commit, of the run, its running
reference, its digests and its version; before it nobody sees any of them. There are no locks: of
two who decide on one snapshot, one commits.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any, Self

from zarr.storage import StorePath

from dask_embstab.errors import DamageError, RetryError
from dask_embstab.files.regular import MOST_METADATA_BYTES
from dask_embstab.series.repository.address import icechunk, repository_at, require_on_objects
from dask_embstab.series.repository.commits import (
    BRANCH,
    TRIES,
    asking,
    changed_since,
    commit,
    only_adds,
    require_conditions,
    wait,
)
from dask_embstab.series.repository.tree import Tree

_NOTES = ("attempts", "candidates")
"""Folders of what is known of deliveries: nothing that is published hangs on them."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What a lock is where commits decide."""

    def is_held(self) -> bool:
        """Always: whoever was overtaken is told when it commits."""
        return True


class InRepository:
    """A series in a repository, given by its URL or as an ``icechunk.Repository``."""

    def __init__(self, place: Any) -> None:
        self.given = place
        is_url = isinstance(place, str)
        self._name = place if is_url else require_on_objects(place)
        self._opened: Any = None if is_url else place
        self._seen: Any = None

    def __reduce__(self) -> Any:
        return InRepository, (self.given,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InRepository) and self._name == other._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._name)!r})"

    @property
    def repository(self) -> Any:
        """The repository; FileNotFoundError where there is none."""
        if self._opened is None:
            with asking(self._name):
                self._opened = repository_at(self.given)
        return self._opened

    def require_fit(self) -> None:
        """Raise `InputError` unless of several commits at once one alone is done."""
        with asking(self._name, "written"):
            require_conditions(self.repository, self._name)

    def made(self) -> Any:
        """The repository, made where there is none."""
        if self._opened is None:
            with asking(self._name, "written"):
                self._opened = repository_at(self.given, make=True)
        return self._opened

    def make(self, folder: str) -> None:
        """Make a group."""
        self.change(f"make {folder}", lambda tree: tree.make(folder))

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, sorted; nothing where there is none."""
        with asking(self.name(folder)):
            return self.tree().names(folder)

    def folders(self, folder: str) -> list[str]:
        """The folders that lie directly in a folder, sorted."""
        with asking(self.name(folder)):
            return self.tree().folders(folder)

    def files(self, folder: str) -> dict[str, int]:
        """Keys of all files below a folder, relative to it, sorted, and their bytes."""
        with asking(self.name(folder)):
            return self.tree().files(folder)

    def read(self, key: str) -> bytes:
        """A file's bytes."""
        return next(self.read_each([key]))

    def read_each(self, keys: Sequence[str]) -> Iterator[bytes]:
        """The same of many files, all of one snapshot."""
        with asking(self.name("")):
            tree = self.tree()
        for key in keys:
            with asking(self.name(key)):
                if (size := tree.size(key)) > MOST_METADATA_BYTES:
                    raise DamageError(
                        f"{self.name(key)} has {size} bytes and {MOST_METADATA_BYTES} may stand"
                        " there at most; restore it from its source"
                    )
                data = b"".join(tree.blocks(key))
            yield data

    def blocks(self, key: str) -> Iterator[bytes]:
        """A file's bytes, a bounded number at a time."""
        with asking(self.name(key)):
            yield from self.tree().blocks(key)

    def open(self, key: str) -> AbstractContextManager[IO[bytes]]:
        """A file to be read by position."""
        return io.BytesIO(b"".join(self.blocks(key)))

    def age(self, key: str) -> float:
        """Seconds since the last commit that changed something of it, by the clocks of those who
        commit.
        """
        with asking(self.name(key)):
            tree = self.tree()
            if not tree.has(key):
                raise FileNotFoundError(self.name(key))
            history = self.repository.ancestry(snapshot_id=tree.store.session.snapshot_id)
            last = next(history)
            for before in history:
                changed = changed_since(self.repository, before.id, last.id)
                if any(f"{path}/".startswith(f"{key}/") for path in changed):
                    break
                last = before
            return float(time.time() - last.written_at.timestamp())

    def create(self, key: str, data: bytes) -> None:
        """Commit a new file."""

        def write(tree: Tree) -> None:
            if tree.has(key):
                raise FileExistsError(f"{self.name(key)} exists already")
            tree.write(key, data)

        self.change(f"create {key}", write)

    def replace(self, key: str, data: bytes) -> None:
        """Let a file have these bytes."""
        self.change(f"write {key}", lambda tree: tree.write(key, data))

    def remove(self, key: str) -> None:
        """Remove a file, or a folder with everything in it."""
        self.change(f"remove {key}", lambda tree: tree.remove(key))

    def sync(self, key: str) -> None:
        """Nothing: what is committed is durable."""

    def transaction(self) -> AbstractContextManager[InRepository]:
        """The same series with a session of its own."""
        return InTransaction(self)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[_Held]:
        """Nothing is locked: sessions do not see each other, and one of two commits."""
        del name
        yield _Held()

    def place(self, key: str) -> Any:
        """Where Zarr finds a run, in the snapshot of now."""
        with asking(self.name(key)):
            return StorePath(self.tree().store, key)

    def name(self, key: str) -> str:
        """What messages call a file."""
        return f"{self._name}/{key}" if key else str(self._name)

    def tree(self) -> Tree:
        """What was committed last."""
        newest, seen = self.repository.lookup_branch(BRANCH), self._seen
        if seen is None or seen.snapshot_id != newest:
            seen = self._seen = self.repository.readonly_session(snapshot_id=newest)
        return Tree(seen.store)

    def change(self, message: str, act: Callable[[Tree], None]) -> None:
        """Change something in a commit of its own, looking again where another came first."""
        with asking(self._name, "written"):
            for tries in range(TRIES):
                session = self.repository.writable_session(BRANCH)
                act(Tree(session.store))
                if not session.has_uncommitted_changes or commit(self.repository, session, message):
                    return
                wait(tries)
        raise self.overtaken()

    def overtaken(self) -> RetryError:
        """What is told where others came first."""
        return RetryError(
            f"{self._name} was changed by another process meanwhile; nothing was published; call"
            " again"
        )


class InTransaction(InRepository):
    """The same while a transaction lasts: it reads and changes a session of its own, which `create`
    commits, and the end. What a failure leaves is committed too, for the next call to go on from;
    where others have committed meanwhile, only if it takes nothing away. Afterwards it reads what
    was committed last.
    """

    def __init__(self, home: InRepository) -> None:
        super().__init__(home.given)
        self._opened = home.made()
        self._session: Any = None
        self._removed: set[str] = set()
        self._has_created = False

    def __enter__(self) -> Self:
        with asking(self._name):
            self._session = self.repository.writable_session(BRANCH)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Commit the rest. RetryError where it was decided on what others have changed."""
        try:
            if error is not None:
                with contextlib.suppress(Exception):  # what others publish may need what goes
                    decided = not only_adds(self._session, _NOTES)
                    self._commit("leave what is unfinished", decided=decided)
            elif self._has_created:
                with contextlib.suppress(OSError):
                    self._commit("remove notes", decided=False)
            elif not self._commit("change", decided=True):
                raise self.overtaken()
        finally:
            self._session = None

    def transaction(self) -> AbstractContextManager[InRepository]:
        """Itself, while it lasts."""
        return super().transaction() if self._session is None else contextlib.nullcontext(self)

    def tree(self) -> Tree:
        """What was committed when it began, and its own changes."""
        return super().tree() if self._session is None else Tree(self._session.store)

    def change(self, message: str, act: Callable[[Tree], None]) -> None:
        """Change something that the next commit takes along."""
        if self._session is None:
            super().change(message, act)
            return
        with asking(self._name, "written"):
            act(self.tree())

    def remove(self, key: str) -> None:
        """Remove a file, or a folder with everything in it."""
        self._removed.add(key)
        super().remove(key)

    def create(self, key: str, data: bytes) -> None:
        """Commit a new file, with all that was changed in this transaction."""
        if self._session is None:
            super().create(key, data)
            return
        with asking(self.name(key), "written"):
            tree = self.tree()
            if not tree.has(key):
                tree.write(key, data)
                if self._commit(f"create {key}", decided=True):
                    self._has_created = True
                    return
                tree.remove(key)
            if not super().tree().has(key):
                raise self.overtaken()
        raise FileExistsError(f"{self.name(key)} exists already")

    def place(self, key: str) -> Any:
        """Where Zarr finds a run: one that was committed, in its snapshot, which other processes
        can read.
        """
        if self._session is not None and key not in self._removed:
            with asking(self.name(key)):
                at = self._session.snapshot_id
                committed = self.repository.readonly_session(snapshot_id=at).store
                if Tree(committed).has(key):
                    return StorePath(committed, key)
        return super().place(key)

    def _commit(self, message: str, *, decided: bool) -> bool:
        """Commit the session, on top of what others have committed meanwhile; False where that
        changed the same, or, of what was ``decided`` by the log, anything but notes.
        """
        api, session = icechunk(), self._session
        if not session.has_uncommitted_changes:
            return True
        with asking(self._name, "written"):
            for tries in range(TRIES):
                before = session.snapshot_id
                if commit(self.repository, session, message):
                    self._session = self.repository.writable_session(BRANCH)
                    return True
                if decided and self._is_moved(before, self.repository.lookup_branch(BRANCH)):
                    return False
                try:
                    session.rebase(api.ConflictDetector())
                except api.RebaseFailedError:
                    return False
                if decided and self._is_moved(before, session.snapshot_id):
                    return False
                wait(tries)
        return False

    def _is_moved(self, before: str, now: str) -> bool:
        """Whether others have changed anything but notes."""
        theirs = changed_since(self.repository, before, now)
        return any(path.partition("/")[0] not in _NOTES for path in theirs)
