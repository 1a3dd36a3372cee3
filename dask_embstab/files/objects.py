"""Objects of a store by their URLs: put whole, listed, removed; and the threads of this process
that wait for the answers of stores.

The client belongs to the bucket, so that all objects share its connections.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from dask_embstab.errors import EmbstabError
from dask_embstab.extras import require_extra
from dask_embstab.files.remote import Url, again, client, is_missing_object, options_of, unreached

_PART_BYTES, _SENT = 8 << 20, 4
_THREADS = 64
V = TypeVar("V")


@lru_cache(maxsize=1)
def request_threads() -> ThreadPoolExecutor:
    """The threads of this process that wait for requests."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="embstab-fetch")


# A child has no thread of its parent's.
os.register_at_fork(after_in_child=request_threads.cache_clear)


def submit(function: Any, *arguments: Any) -> Future[Any]:
    """Have a thread call it; it may not wait for another one that does."""
    return request_threads().submit(function, *arguments)


def submit_alone(function: Any, *arguments: Any) -> Future[Any]:
    """Have a thread of its own call it: it waits for what its caller makes, who waits for others
    that `submit` was given.
    """
    threads = ThreadPoolExecutor(1, thread_name_prefix="embstab-send")
    called = threads.submit(function, *arguments)
    threads.shutdown(wait=False)
    return called


def with_object(path: Url, ask: Callable[[Any, Any, str], V], done: str) -> V:
    """What ``ask`` makes of obstore, the client of a bucket and a key in it; what fails is one
    clear error, and FileNotFoundError where there is no such object.
    """
    obstore = require_extra("obstore", "s3", what=f"reaching {path}")
    parts = urlsplit(path)
    store = client(Url(f"{parts.scheme}://{parts.netloc}", options_of(path)))
    try:
        return again(lambda: ask(obstore, store, unquote(parts.path).strip("/")))
    except EmbstabError:
        raise
    except Exception as error:
        if is_missing_object(error):
            raise
        raise unreached(error, path, done) from None


def put_object(path: Url, parts: Sequence[memoryview]) -> None:
    """Make one object of these bytes: in one request, or of a large one in parts."""
    if sum(map(len, parts)) <= _PART_BYTES:
        whole = b"".join(parts)
        with_object(path, lambda obstore, store, key: obstore.put(store, key, whole), "written")
        return
    with_object(
        path,
        lambda obstore, store, key: obstore.put(
            store, key, _cut(parts), chunk_size=_PART_BYTES, max_concurrency=_SENT
        ),
        "written",
    )


def _cut(parts: Sequence[memoryview]) -> Iterator[bytearray]:
    """The same bytes in parts of one length: stores take no short one but the last."""
    held = bytearray()
    for part in parts:
        left = part
        while len(left):
            taken = left[: _PART_BYTES - len(held)]
            held += taken
            left = left[len(taken) :]
            if len(held) == _PART_BYTES:
                yield held
                held = bytearray()
    if held:
        yield held


def object_time(path: Url) -> float | None:
    """When an object was put, in seconds by the store's clock; None where there is none."""
    try:
        status = with_object(path, lambda obstore, store, key: obstore.head(store, key), "read")
    except FileNotFoundError:
        return None
    return float(status["last_modified"].timestamp())


def folders_in(place: Url) -> list[str]:
    """Names of the prefixes right below a place."""
    listed = with_object(
        place,
        lambda obstore, store, key: obstore.list_with_delimiter(store, f"{key}/" if key else None),
        "listed",
    )
    return [path.rstrip("/").rpartition("/")[2] for path in listed["common_prefixes"]]


def objects_below(place: Url) -> dict[str, int]:
    """Names of all objects below a place, and their bytes."""

    def ask(obstore: Any, store: Any, key: str) -> dict[str, int]:
        listed = obstore.list(store, f"{key}/").collect()
        return {one["path"].removeprefix(key).strip("/"): one["size"] for one in listed}

    return with_object(place, ask, "listed")


def remove_objects(place: Url, names: Sequence[str]) -> None:
    """Remove objects below a place; those that are gone already are no error."""
    if names:
        with_object(
            place,
            lambda obstore, store, key: obstore.delete(store, [f"{key}/{name}" for name in names]),
            "removed",
        )
