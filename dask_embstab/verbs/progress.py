"""How far are the passes of a block? Told to a function, or drawn as bars."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError, verb
from dask_embstab.passes.engine import graph
from dask_embstab.render.bars import watched


@verb()
def progress(
    hook: Callable[[str, int, int], object] | None = None,
) -> AbstractContextManager[None]:
    """A context in which every pass reports ``hook(label, done, total)``: the name of the pass, its
    tasks that have read or written rows, and all of them.

    Called when a pass begins, after every task (on a cluster twice a second) and when it has ended,
    in a thread of the scheduler; what it raises ends the pass. Without a hook there is a bar for
    every pass: on stderr, or below the cell of a notebook.

    Examples
    --------
    >>> steps = []
    >>> with es.progress(lambda label, done, total: steps.append((label, done, total))):
    ...     fitted = es.fit(tuesday, reference=monday)
    >>> steps[0], steps[-1][1] == steps[-1][2]
    (('fit: reading', 0, 2), True)
    """
    if hook is None:
        return watched(graph.progress)
    if not callable(hook):
        raise InputError(
            "a progress hook is a function of a label, the tasks done and all tasks;"
            f" {shown(hook)} came"
        )
    return graph.progress(hook)
