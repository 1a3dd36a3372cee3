"""Does an object store keep what a series relies on? Asked once, when a series is made.

Some servers take a condition and do not look at it, or look first and write later: then several
writers are told that they made one object, and versions would be lost in silence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.files.atomic import new_token
from dask_embstab.series.objects.requests import (
    ConflictError,
    Tag,
    asking,
    obstore,
    put_new,
    put_over,
)

_WRITERS, _RACES = 8, 3


def require_conditions(store: Any, folder: str, url: str) -> None:
    """Raise `InputError` unless, of all who create an object in ``folder`` at once, or replace one
    content of it, one alone is told that it did.
    """
    token = new_token()
    keys = [f"{folder}/.probe-{token}-{number}" for number in range(_RACES)]
    with asking(url, "written"), ThreadPoolExecutor(_WRITERS) as pool:
        try:
            for key in keys:
                made = _winners(pool, lambda: put_new(store, key, b"0"))  # noqa: B023 (called at once)
                _require_one(made, url, "If-None-Match: *")
                again = _winners(pool, lambda: put_over(store, key, b"1", made[0]))  # noqa: B023
                _require_one(again, url, "If-Match")
        except NotImplementedError as error:
            raise _unfit(url, f"it has no such requests ({str(error).splitlines()[0]})") from error
        finally:
            with contextlib.suppress(Exception):  # what failed is told
                obstore().delete(store, keys)


def _winners(pool: ThreadPoolExecutor, write: Callable[[], Tag]) -> list[Tag]:
    def won(_: int) -> Tag | None:
        with contextlib.suppress(ConflictError):
            return write()
        return None

    return [tag for tag in pool.map(won, range(_WRITERS)) if tag is not None]


def _require_one(winners: list[Tag], url: str, header: str) -> None:
    if len(winners) != 1:
        n = len(winners)
        raise _unfit(url, f"of {_WRITERS} such requests at once ({header}) it did {n} and not one")


def _unfit(url: str, why: str) -> InputError:
    return InputError(
        "a series needs a store that creates an object only where there is none (If-None-Match: *)"
        f" and replaces one only where it is what was read (If-Match); {url} does not: {why};"
        " publishers would lose each other's versions in silence; use Amazon S3, Google Cloud"
        " Storage, Azure Blob Storage, Cloudflare R2 or MinIO, or a folder of a file system"
    )
