"""A progress bar for every pass, on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A hook ``(label, done, total)`` that draws one bar per label; none where there is nothing to
    count, as of a few rows.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as drawn:
        known: dict[str, TaskID] = {}

        def hook(label: str, done: int, total: int) -> None:
            if not total:
                return
            if label not in known:
                known[label] = drawn.add_task(label, total=total)
            drawn.update(known[label], completed=done, total=total)

        yield hook
