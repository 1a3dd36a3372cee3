"""How does a change become part of a repository, whole, and for one of all who try?

A commit names the snapshot that it follows, and the store lets it pass while the branch is still
there (a condition on the one object that says so). An answer may be lost, and Icechunk then takes
its own commit for another's: so each carries a token, and whoever is refused looks for it first.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.files.atomic import new_token
from dask_embstab.files.remote import unreached
from dask_embstab.series.repository.address import icechunk
from dask_embstab.series.repository.tree import Tree
from dask_embstab.tables.stores.compared_store import icechunk_cause

BRANCH = "main"
TRIES = 100
_TOKEN, _WAIT_SECONDS = "embstab", 0.02
_PROBERS, _RACES = 8, 2
_NEW, _DELETED = ("new_groups", "new_arrays"), ("deleted_groups", "deleted_arrays")
_CHANGES = (*_NEW, *_DELETED, "updated_groups", "updated_arrays", "updated_chunks")


@contextlib.contextmanager
def asking(what: str, done: str = "read") -> Iterator[None]:
    """Whatever Icechunk raises, as one clear error; FileNotFoundError where something is not
    there.
    """
    api = icechunk()
    try:
        yield
    except (api.IcechunkError, api.ConflictError, api.RebaseFailedError) as error:
        text, is_missing = icechunk_cause(error)
        if is_missing:
            raise FileNotFoundError(what) from None
        raise unreached(Exception(text), what, done) from None


def commit(repository: Any, session: Any, message: str, branch: str = BRANCH) -> bool:
    """Commit what a session has changed; False where the branch has moved since the session began,
    and nothing was committed.
    """
    api, token, base = icechunk(), new_token(), session.snapshot_id
    try:
        session.commit(message, {_TOKEN: token})
    except api.ConflictError:
        return _is_committed(repository, branch, base, token)
    except api.IcechunkError:  # it may be there all the same
        with contextlib.suppress(api.IcechunkError):
            if _is_committed(repository, branch, base, token):
                return True
        raise
    return True


def _is_committed(repository: Any, branch: str, base: str, token: str) -> bool:
    for snapshot in repository.ancestry(branch=branch):
        if snapshot.id == base:
            return False
        if snapshot.metadata.get(_TOKEN) == token:
            return True
    return False


def changed_since(repository: Any, base: str, now: str) -> set[str]:
    """Paths of all groups and arrays that commits after ``base`` made, changed or removed."""
    if base == now:
        return set()
    return paths_in(repository.diff(from_snapshot_id=base, to_snapshot_id=now), *_CHANGES)


def only_adds(session: Any, besides: Container[str]) -> bool:
    """Whether what a session has not committed yet changes and removes nothing that was there,
    ``besides`` what is in these folders.
    """
    status = session.status()
    added = paths_in(status, *_NEW) - paths_in(status, *_DELETED)
    changed = paths_in(status, *_CHANGES) - added
    return all(path.partition("/")[0] in besides for path in changed)


def paths_in(difference: Any, *changes: str) -> set[str]:
    """Paths of the groups and arrays that are changed so."""
    return {path.strip("/") for change in changes for path in getattr(difference, change)}


def wait(tries: int) -> None:
    """Let others go first, for longer each time."""
    time.sleep(random.uniform(0, _WAIT_SECONDS * min(tries + 1, 10)))


def require_conditions(repository: Any, name: str) -> None:
    """Raise `InputError` unless, of several sessions that began at one snapshot, one alone is told
    that it committed.
    """
    branch = f"embstab-probe-{new_token()}"
    repository.create_branch(branch, repository.lookup_branch(BRANCH))
    try:
        for race in range(_RACES):
            sessions = [repository.writable_session(branch) for _ in range(_PROBERS)]
            for number, session in enumerate(sessions):
                Tree(session.store).write(f"probe-{race}-{number}", b"0")
            with ThreadPoolExecutor(_PROBERS) as pool:
                done = pool.map(lambda one: commit(repository, one, "probe", branch), sessions)
                won = sum(done)
            if won != 1:
                raise InputError(
                    "a series needs a store on which one of several commits at once is done; of"
                    f" {_PROBERS} that began at one snapshot of {name}, {won} were told that they"
                    " were; publishers would lose each other's versions in silence; use Amazon S3,"
                    " Google Cloud Storage, Azure Blob Storage, Cloudflare R2 or MinIO, and leave"
                    " Icechunk's unsafe_use_conditional_update as it is"
                )
    finally:
        with contextlib.suppress(icechunk().IcechunkError):
            repository.delete_branch(branch)
