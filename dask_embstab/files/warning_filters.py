"""How is a warning left out for a block, while other threads do the same and the caller's filters
stay as they are?

``warnings.catch_warnings`` puts back the list of filters that it found: of two threads whose blocks
overlap, the second leaves the first one's filters behind for good. Here every block adds its own
filters and takes away only those.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def left_out(message: str = "", category: type[Warning] = Warning) -> Iterator[None]:
    """Leave out warnings of a ``category`` whose text begins with ``message``."""
    item: Any = (
        "ignore",
        re.compile(message, re.IGNORECASE) if message else None,
        category,
        None,
        0,
    )
    entered: Any = warnings.filters
    entered.insert(0, item)

    try:
        yield
    finally:
        current: Any = warnings.filters
        for filters in (entered,) if current is entered else (entered, current):
            with contextlib.suppress(ValueError):  # the caller has reset them
                filters.remove(item)
