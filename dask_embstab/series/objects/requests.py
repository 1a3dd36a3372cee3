"""How is an object made by one of all who try, however many answers are lost on the way?

A client that got no answer asks again, and a store that did the first request refuses the second.
So whatever is written under a condition carries a token of its writer, and whoever is refused looks
whose object stands there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from dask_embstab.errors import DamageError, EmbstabError
from dask_embstab.extras import require_extra
from dask_embstab.files.atomic import new_token
from dask_embstab.files.remote import again, is_missing_object, unreached

WRITER = "embstabwriter"
"""Of the metadata of an object; letters alone, which every store takes."""
_MOST_TRIES, _WAIT_SECONDS = 8, 0.05
Tag = Mapping[str, str]
"""What tells one content of an object from the next: its entity tag, its version."""


class ConflictError(Exception):
    """The object is not what the request wanted it to be; nothing was changed."""


def obstore() -> Any:
    """The package that speaks to object stores."""
    return require_extra("obstore", "s3", what="a series on an object store")


@contextlib.contextmanager
def asking(what: str, done: str = "read") -> Iterator[None]:
    """Whatever a request raises, as one clear error; FileNotFoundError where there is no such
    object.
    """
    try:
        yield
    except (EmbstabError, ConflictError):
        raise
    except Exception as error:
        if is_missing_object(error):
            raise
        raise unreached(error, what, done) from None


def put(store: Any, key: str, data: bytes) -> None:
    """Write an object whole, over what stands there."""
    obstore().put(store, key, data)


def delete(store: Any, keys: list[str]) -> None:
    """Remove objects, as far as they are there: Google and Azure tell of one that is not."""
    api = obstore()
    try:
        if keys:
            again(lambda: api.delete(store, keys))
    except FileNotFoundError:
        for key in keys if len(keys) > 1 else ():
            delete(store, [key])


def put_new(store: Any, key: str, data: bytes) -> Tag:
    """Make an object; `ConflictError` where there is one."""
    return _put_if(store, key, data, None)


def put_over(store: Any, key: str, data: bytes, tag: Tag) -> Tag:
    """Write an object over the content that has this tag; `ConflictError` where it is another."""
    return _put_if(store, key, data, tag)


def _put_if(store: Any, key: str, data: bytes, wanted: Tag | None) -> Tag:
    """An object that is there as ``wanted`` (None: not at all) is asked for again: stores refuse
    one of two requests at once even where the other has failed.
    """
    api, token = obstore(), new_token()
    raised = api.exceptions
    refusals = (raised.AlreadyExistsError, raised.PreconditionError, FileNotFoundError)
    mode = "create" if wanted is None else dict(wanted)
    for _ in range(_MOST_TRIES):
        try:
            return _tag(api.put(store, key, data, mode=mode, attributes={WRITER: token}))
        except refusals as refused:
            writer, tag = _writer(store, key)
            if writer == token:
                return tag or {}
            if _entity(tag) != _entity(wanted):
                raise ConflictError(key) from refused
            time.sleep(_WAIT_SECONDS)
        except Exception:  # it may have been done all the same
            with contextlib.suppress(Exception):
                writer, tag = _writer(store, key)
                if writer == token:
                    return tag or {}
            raise
    raise ConflictError(key)


def stored(store: Any, key: str, most_bytes: int) -> tuple[bytes, Tag, Any]:
    """An object's bytes, its tag, and when it was last changed, by the clock of the store.

    Raises FileNotFoundError where there is none, `DamageError` where it is longer than it may be.
    """

    def read() -> tuple[bytes, Any]:
        answer = obstore().get(store, key)
        if (size := answer.meta["size"]) > most_bytes:
            raise DamageError(
                f"{key} has {size} bytes and {most_bytes} may stand there at most; restore it from"
                " its source"
            )
        return bytes(answer.bytes()), answer.meta

    data, meta = again(read)
    return data, _tag(meta), meta["last_modified"]


def _writer(store: Any, key: str) -> tuple[str | None, Tag | None]:
    """Who wrote the object that stands there, and its tag; None where there is none."""
    try:
        answer = obstore().get(store, key)
    except FileNotFoundError:
        return None, None
    return answer.attributes.get(WRITER), _tag(answer.meta)


def _entity(tag: Tag | None) -> str | None:
    return None if tag is None else tag.get("e_tag")


def _tag(meta: Mapping[str, Any]) -> Tag:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}
