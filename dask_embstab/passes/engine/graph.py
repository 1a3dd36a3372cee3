"""A pass as a value, and the run of passes on whichever Dask scheduler is active.

One BLAS thread per task, progress for whoever asked, memory projected before anything is read.
"""

from __future__ import annotations

import contextlib
import operator
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import dask
import dask.order
from dask.callbacks import Callback
from dask.delayed import Delayed

from dask_embstab.passes.engine.blas import one_thread
from dask_embstab.passes.engine.cluster import active_client, local_scheduler, on_cluster
from dask_embstab.passes.engine.memory import Load, require_memory
from dask_embstab.passes.engine.plan import FAN_IN
from dask_embstab.tables.inputs import compare

K = TypeVar("K")
V = TypeVar("V")

ProgressHook = Callable[[str, int, int], object]
"""Called with a label, tasks done and tasks in all; from the scheduler's thread."""

_hook: ContextVar[ProgressHook | None] = ContextVar("embstab_progress", default=None)


@contextlib.contextmanager
def progress(hook: ProgressHook) -> Iterator[None]:
    """Report the progress of every pass in this context to ``hook``."""
    token = _hook.set(hook)
    try:
        yield
    finally:
        _hook.reset(token)


def compute(nodes: Sequence[Any], *, label: str, n_tasks: int) -> tuple[Any, ...]:
    """Values of delayed ``nodes``; ``n_tasks`` is the number of their tasks that read or write a
    table.
    """
    hook, scheduler = _hook.get(), local_scheduler()
    client = active_client()
    with one_thread(), on_cluster(client):
        if hook is None:
            return tuple(dask.compute(*nodes, scheduler=scheduler))
        hook(label, 0, n_tasks)
        if client is None:
            with _counting(partial(hook, label), n_tasks):
                values = tuple(dask.compute(*nodes, scheduler=scheduler))
        else:
            values = _watched(client, nodes, partial(hook, label), n_tasks)
        hook(label, n_tasks, n_tasks)
        return values


@dataclass(frozen=True, slots=True)
class Pass(Generic[V]):
    """One pass over a table as a value; nothing is read or written before it is run.

    ``node`` is the last task of its graph, ``n_tasks`` the number of tasks that read or write rows,
    ``load`` what one of them holds in memory (None: next to nothing). ``finalize`` makes the result
    of the value of ``node``, here. ``reads`` are the sources (or ids) of which that value tells
    ``read_digests``, to be compared with earlier passes.
    """

    node: Delayed
    n_tasks: int
    label: str
    finalize: Callable[[Any], V]
    load: Load | None = None
    reads: tuple[Any, ...] = ()

    def run(self) -> V:
        """The result of this pass alone."""
        return run_all({"": self})[""]


def run_all(passes: Mapping[K, Pass[V]]) -> dict[K, V]:
    """The results of passes that run side by side, under the label of the first; refused where
    memory will not do.
    """
    if not passes:
        return {}

    require_memory([one.load for one in passes.values() if one.load is not None])
    nodes = [one.node for one in passes.values()]
    label = next(iter(passes.values())).label
    values = compute(nodes, label=label, n_tasks=sum(one.n_tasks for one in passes.values()))
    for one, value in zip(passes.values(), values, strict=True):
        if one.reads:
            compare(one.reads, value.read_digests())

    return {
        key: one.finalize(value) for (key, one), value in zip(passes.items(), values, strict=True)
    }


class Graph:
    """The tasks of one pass by key, written down as they are.

    `dask.delayed` inspects every argument of every call for collections, 1 ms a task: as long as a
    small chunk takes. Here a Delayed among the arguments is found without looking into them. Keys
    say what the pass does (its label) and which step of it a task is, as Dask's dashboards show
    them: ``embstab-rows-fit-reading``, ``embstab-join-fit-reading``.
    """

    def __init__(self, label: str) -> None:
        self._tasks: dict[Any, Any] = {}
        self._label = label
        self._name = f"{'-'.join(_WORD.findall(label.lower()))}-{dask.base.tokenize(object())}"

    def read(self, function: Callable[..., Any], *arguments: Any) -> str:
        """The key of a task that reads or writes rows: it counts in the progress report."""
        key, task = f"{TASK}-{self._name}-{len(self._tasks)}", [function, *arguments]
        for at, argument in enumerate(arguments, 1):
            if isinstance(argument, Delayed):
                self._tasks.update(argument.__dask_graph__())
                task[at] = argument.key
        self._tasks[key] = tuple(task)
        return key

    def shared(self, value: Any) -> str:
        """The key of a value that many tasks use: it goes to every worker once, and not once with
        every task.
        """
        key = f"embstab-shared-{self._name}-{len(self._tasks)}"
        self._tasks[key] = value
        return key

    def tree(
        self,
        keys: Sequence[str],
        join: Callable[[Sequence[Any]], Any],
        *,
        finalize: Callable[[Any], V] = lambda value: value,
        load: Load | None = None,
        reads: tuple[Any, ...] = (),
    ) -> Pass[V]:
        """The pass whose value is that of these tasks, joined in their order by a tree of tasks."""
        level, shared = list(keys), self.shared(join)
        while len(level) > 1:
            groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
            level = [group[0] for group in groups]
            for at, group in enumerate(groups):
                if len(group) > 1:
                    level[at] = f"embstab-join-{self._name}-{len(self._tasks)}"
                    self._tasks[level[at]] = operator.call, shared, group

        return Pass(Delayed(level[0], self._tasks), len(keys), self._label, finalize, load, reads)

    def starts(self, keys: Sequence[str]) -> Sequence[int]:
        """The order in which a scheduler of this process starts these tasks, by their numbers;
        theirs where finding it would take as long as running some.
        """
        numbers = range(len(keys))
        if len(keys) > _MOST_ORDERED:
            return numbers
        priority: Any = dask.order.order(self._tasks)
        return sorted(numbers, key=lambda number: priority[keys[number]])


@contextlib.contextmanager
def _counting(report: Callable[[int, int], object], n_tasks: int) -> Iterator[None]:
    """On a local scheduler: Dask's callback after every task."""
    done = 0

    def after(key: Any, *_: Any) -> None:
        nonlocal done
        if str(key).startswith(TASK):
            done += 1
            report(done, n_tasks)

    with Callback(posttask=after):
        yield


def _watched(
    client: Any, nodes: Sequence[Any], report: Callable[[int, int], object], n_tasks: int
) -> tuple[Any, ...]:
    """On a cluster: the scheduler is asked twice a second how many tasks are left."""
    futures = client.compute(list(nodes))
    while not all(future.done() for future in futures):
        left = client.run_on_scheduler(_tasks_left)
        report(max(0, n_tasks - left), n_tasks)
        time.sleep(_POLL_SECONDS)
    return tuple(client.gather(futures))


def _tasks_left(dask_scheduler: Any) -> int:
    waiting = ("waiting", "no-worker", "queued", "processing")
    return sum(
        str(key).startswith(TASK) and task.state in waiting
        for key, task in dask_scheduler.tasks.items()
    )


_POLL_SECONDS = 0.5
_MOST_ORDERED = 1 << 14
_WORD = re.compile(r"[a-z]+")
TASK = "embstab-rows"
"""Prefix of the keys of tasks that read or write rows."""
