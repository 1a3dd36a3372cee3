"""A progress bar for every pass, on stderr or below the cell of a notebook."""

from __future__ import annotations

import contextlib
import html
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

Hook = Callable[[str, int, int], object]


@contextlib.contextmanager
def watched(report_to: Callable[[Hook], AbstractContextManager[None]]) -> Iterator[None]:
    """The block with bars for what ``report_to`` reports: those of a notebook where it runs in
    one.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    with notebook_bars() if hasattr(shell, "kernel") else bars() as hook, report_to(hook):
        yield


@contextlib.contextmanager
def notebook_bars() -> Iterator[Hook]:
    """A hook that draws the bars as HTML below the cell, by IPython's own display: no widgets."""
    from IPython.display import display

    known: dict[str, tuple[int, int]] = {}
    shown = display(_Bars(known), display_id=True)

    def hook(label: str, done: int, total: int) -> None:
        if total:
            known[label] = done, total
            shown.update(_Bars(known))

    yield hook


class _Bars:
    """What a notebook shows of the passes so far."""

    def __init__(self, known: dict[str, tuple[int, int]]) -> None:
        self._known = known

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {done}/{total}" for name, (done, total) in self._known.items())

    def _repr_html_(self) -> str:
        return "".join(
            f"<div>{html.escape(name)} <progress value='{done}' max='{total}'></progress>"
            f" {done}/{total}</div>"
            for name, (done, total) in self._known.items()
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
