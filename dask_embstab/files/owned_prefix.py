"""Objects of one call alone, below a prefix of a store, and what tells that nobody needs them.

``.<name>.<token>.scratch/`` holds a mark, put first, put again every hour while its process lives,
and removed last. A prefix whose mark is older than a day, or gone, was left: the next call that
uses the same place removes it. Both times are the store's.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings

from dask_embstab.errors import EmbstabError, EmbstabWarning
from dask_embstab.files.atomic import hidden_name, new_token
from dask_embstab.files.objects import (
    folders_in,
    object_time,
    objects_below,
    put_object,
    remove_objects,
)
from dask_embstab.files.remote import Url

_SUFFIX, _MARK = ".scratch", "mark"
_BEAT_SECONDS, _LEFT_SECONDS = 3600.0, 86400.0


class OwnedPrefix:
    """Objects that this process alone needs; `discard` removes them."""

    def __init__(self, place: Url, name: str) -> None:
        self.path = place / hidden_name(name, new_token(), _SUFFIX)
        self._ended = threading.Event()
        self._beating = threading.Thread(
            target=self._keep_beating, daemon=True, name="embstab-scratch"
        )
        self._put_mark()
        try:
            _reclaim(place, name, object_time(self.path / _MARK))
        except BaseException:
            self.discard()
            raise
        self._beating.start()

    def discard(self) -> None:
        """Remove everything. It never raises: what cannot be removed is a warning."""
        self._ended.set()
        if self._beating.is_alive():  # it may be putting the mark
            self._beating.join()
        try:
            _remove(self.path)
        except EmbstabError as error:
            warnings.warn(
                f"{error}; scratch stays at {self.path} until a call with the same place for"
                " scratch finds it a day old",
                EmbstabWarning,
                stacklevel=2,
            )

    def _put_mark(self) -> None:
        put_object(self.path / _MARK, [memoryview(b"scratch of dask_embstab")])

    def _keep_beating(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            with contextlib.suppress(EmbstabError):
                self._put_mark()


def _reclaim(place: Url, name: str, now: float | None) -> None:
    """Remove what killed processes left of work on ``name``."""
    ours = re.compile(
        re.escape(hidden_name(name, "TOKEN", _SUFFIX)).replace("TOKEN", "[0-9a-f]{12}")
    )
    for folder in filter(ours.fullmatch, folders_in(place)):
        put_at = object_time(place / folder / _MARK)
        if put_at is None or (now is not None and now - put_at > _LEFT_SECONDS):
            _remove(place / folder)


def _remove(prefix: Url) -> None:
    """The mark goes last: what an interruption leaves is told by having none."""
    names = objects_below(prefix)
    remove_objects(prefix, [name for name in names if name != _MARK])
    remove_objects(prefix, [_MARK])
