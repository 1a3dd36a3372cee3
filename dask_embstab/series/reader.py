"""What readers of a series ask; whatever is answered follows from the log that is read then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_embstab.display import Displayed
from dask_embstab.errors import DamageError, EmbstabError, InputError, verb
from dask_embstab.files.place import local_path
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import taken
from dask_embstab.passes.apply import transform_run
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.join.space import space_of_run
from dask_embstab.repairs import option
from dask_embstab.series.admin import gc
from dask_embstab.series.admin.manifest import manifest_of
from dask_embstab.series.admin.status import status_of
from dask_embstab.series.admin.verify import Verified, verify
from dask_embstab.series.log.basis import of_one_width, read_run
from dask_embstab.series.log.codes import read_codes, require_one_code
from dask_embstab.series.log.log import Log, read_log
from dask_embstab.series.log.mark import read_mark, store_at
from dask_embstab.series.log.published import transform_of
from dask_embstab.series.log.settings import Settings, settings_in
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish.delivery import model_of
from dask_embstab.series.store import Store
from dask_embstab.tables.run import Run, RunLike, open_run
from dask_embstab.tables.space import Space
from dask_embstab.tables.transform import Transform

if TYPE_CHECKING:  # what one verb alone needs is imported by it: adding a run needs none of it
    from dask_embstab.passes.evaluate.results import Metrics
    from dask_embstab.passes.evaluate.skew import Skew
    from dask_embstab.render.report import Report


class SeriesReader(Displayed):
    """The verbs of a series that publish nothing."""

    def __init__(
        self,
        place: str | os.PathLike[str] | Store,
        *,
        storage_options: StorageOptions | None = None,
    ) -> None:
        (place,) = bound(storage_options, place)
        self.store: Store = store_at(place)
        named = isinstance(place, str | os.PathLike)
        self._initial = read_mark(self.store, str(place) if named else self.store.name(""))

    def _facts(self) -> dict[str, object]:
        return {"place": self.store.name("")}

    @property
    def settings(self) -> Settings:
        """The settings that the next run will be aligned with."""
        return settings_in(self.log(), self._initial)

    def log(self) -> Log:
        """Every version, oldest first.

        Examples
        --------
        >>> [(version.version, version.run) for version in series.log().versions]
        [(1, 'monday'), (2, 'tuesday')]
        """
        return read_log(self.store)

    def head(self) -> Version | None:
        """The highest live version; None where nothing is published.

        Examples
        --------
        >>> series.head().run
        'tuesday'
        """
        return self.log().head

    def show(self, version: int | None = None) -> Version:
        """All that is recorded of a version (default: the head).

        Examples
        --------
        >>> series.show(1).run
        'monday'
        """
        return self.log().version(version)

    def status(self) -> dict[str, Any]:
        """Is all ``well``? Three ``lines``, and the facts behind them.

        Examples
        --------
        >>> status = series.status()
        >>> status["held"], status["failed"]
        ([], [])
        """
        return status_of(self.store, self.log())

    @verb()
    def report(self) -> Report:
        """A page (`Report`) that says whether all is well, and shows what the versions record and
        what a sample of the runs tells.

        Of at most 40 live runs, fewer where rows are wide or tables long, all ids and 2,048 rows
        (12 per component where that is more) of each table are read; and for the version skew up to
        eight items tables, as far as they are 4 GiB together.

        Examples
        --------
        >>> series.report().well
        True
        """
        from dask_embstab.render.report import Report
        from dask_embstab.series.admin.report import report_values

        return Report(report_values(self.store, self.log(), Path(self.store.name("")).name))

    @verb()
    def metrics(self, *, measured: bool = False) -> str:
        """How the series is doing, as a Prometheus text file; with ``measured`` also what `report`
        measures on a sample of its runs.

        Examples
        --------
        >>> series.metrics().splitlines()[0]
        '# HELP embstab_series_versions Published versions.'
        """
        from dask_embstab.series.admin.days import days_of
        from dask_embstab.series.admin.metrics import metrics_text

        log, name = self.log(), Path(self.store.name("")).name
        days = days_of(self.store, log) if measured else None
        return metrics_text(self.store, log, name, days=days)

    def open(self, version: int | None = None) -> Run:
        """The run of a version (default: the head), which never changes once it is published.

        After a rebase its tables are views: lazy Dask arrays (and sources of every verb) of the
        stored rows times one small matrix, and its transform is composed with that matrix. ``path``
        is where the stored rows lie.

        Examples
        --------
        >>> series.open(1).items.n_rows
        200
        """
        return self._run_in(self.log(), version)

    def space(self, version: int | None = None) -> Space:
        """The fingerprint of the space that a version's vectors (default: the head's) are of: its
        ``origin`` is the same for all versions, until a rebase moves all of them.

        Examples
        --------
        >>> series.space(1).origin == series.space(2).origin
        True
        """
        located = (log := self.log()).located(log.with_run(version))
        return replace(space_of_run(self._run(located)), version=located.version)

    @verb()
    def codes(self, version: int | None = None, *, like: int | None = None) -> Run:
        """The run of a version (default: the head) with the rows that its stored codes give back,
        for every verb.

        The code itself is `items.source.code`; ``like`` is a version whose codes must be of the
        same code, so that their bytes can be compared. Raises `InputError` where they are not, or
        where the version holds no codes (the setting ``code``).

        Examples
        --------
        >>> small = es.Series.init(folder / "small", code="int8")
        >>> _ = small.add(monday)
        >>> small.codes(1).items.n_rows
        200
        """
        log = self.log()
        located = log.located(log.with_run(version))
        if like is not None:
            require_one_code(self.store, located, log.located(log.with_run(like)))
        return read_codes(self.store, located)

    @contextlib.contextmanager
    def pin(self, version: int | None = None) -> Iterator[Run]:
        """The run of a version, left alone by gc while the block lasts (and no longer than gc's
        ``pin_age``).

        Examples
        --------
        >>> with series.pin() as run:
        ...     print(run.items.n_rows)
        200
        """
        log = self.log()
        located = log.located(log.with_run(version))
        with gc.pin(self.store, str(located.run)):
            yield self._run(located)

    def verify(self) -> Verified:
        """Read every file of every published run and compare it with what was recorded.

        Examples
        --------
        >>> series.verify().damage
        ()
        """
        return verify(self.store, self.log())

    @verb()
    def diff(
        self, a: int, b: int | None = None, *, k: int = 100, users: int = 1000, seed: int = 0
    ) -> Metrics:
        """`evaluate` the runs of two versions (``b`` by default the head), also of two widths.

        Examples
        --------
        >>> round(series.diff(1, 2).items.mean_cosine, 6)
        1.0
        """
        from dask_embstab.passes.evaluate.driver import EvaluateOptions, measure_runs

        log = self.log()
        join = {"duplicates": settings_in(log, self._initial).duplicates}
        options = EvaluateOptions(k, users, seed, join=join)
        return measure_runs(*of_one_width(self._run_in(log, a), self._run_in(log, b)), options)

    @verb()
    def skew(
        self,
        versions: Any = None,
        *,
        k: int = 10,
        users: int = 200,
        seed: int = 0,
        metric: Metric | None = None,
    ) -> Skew:
        """What queries of one version find in another's table (recall@``k``), and in a table mixed
        of all.

        ``versions`` are numbers of at least two that hold a run; default: the last eight live ones.
        ``users`` queries that all of them have are sampled (items where the series has no users);
        ``metric`` as in `evaluate`. Reads each items table once; memory grows with versions x users
        x k.

        Examples
        --------
        >>> skew = series.skew([1, 2])
        >>> skew.versions
        (1, 2)
        """
        from dask_embstab.series.admin.skew import skew_of

        log = self.log()
        return skew_of(
            log,
            partial(self._run_in, log),
            versions,
            k=k,
            n_queries=users,
            seed=seed,
            metric=metric,
            duplicates=settings_in(log, self._initial).duplicates,
        )

    @verb()
    def transform_for(self, *, model: str | None = None, version: int | None = None) -> Transform:
        """The transform of a model's live version, of a version, or of the head: it transforms rows
        made by that model.

        Examples
        --------
        >>> series.transform_for(model="monday").d
        4
        """
        if model is not None and version is not None:
            raise InputError(
                f"a transform is that of a model or of a version; both came; give {option('model')}"
                f" or {option('version')}"
            )
        log = self.log()
        located = log.with_run(version) if model is None else log.of_model(model)
        located = log.located(located)
        return transform_of(self._run(located), located)

    @verb()
    def apply(
        self,
        run: RunLike,
        out: Any,
        *,
        model: str | None = None,
        version: int | None = None,
        dtype: Any = None,
        overwrite: bool = False,
        resume: bool = False,
        sync: bool = True,
        shard_rows: int | None = None,
        storage_options: StorageOptions | None = None,
    ) -> Run:
        """Transform a later batch of users or items with a published version's transform
        (`transform_for`) at ``out``.

        Options as those of `apply`; ``storage_options`` reach ``run`` and ``out``. Without
        ``model`` and ``version``: the model that the batch itself names, else the head.

        Examples
        --------
        >>> late = series.apply(folder / "monday.zarr", folder / "late.zarr", model="monday")
        >>> late.users.n_rows
        300
        """
        options = taken(locals(), ("dtype", "overwrite", "resume", "sync", "shard_rows"))
        run, out = bound(storage_options, run, out)
        source = open_run(run)
        if model is None and version is None:
            model = model_of(source)
        transform = self.transform_for(model=model, version=version)
        root = local_path(self.store.place(""))
        inputs = (source.path, *(() if root is None else (str(root),)))
        return transform_run(transform, source, out, name=source.name, inputs=inputs, **options)

    def manifest(self) -> dict[str, Any]:
        """Every version in full, and every file that a copy of the series needs.

        Examples
        --------
        >>> sorted(series.manifest())
        ['files', 'format', 'head', 'settings', 'versions']
        """
        return manifest_of(log := self.log(), settings_in(log, self._initial))

    def _run_in(self, log: Log, version: int | None) -> Run:
        """The run of a version (None: the head) of a log that was read."""
        return self._run(log.located(log.with_run(version)))

    def _run(self, version: Version) -> Run:
        """A published run; whatever is wrong with it by now is damage."""
        try:
            return read_run(self.store, version)
        except EmbstabError as error:
            raise DamageError(f"version {version.version} cannot be opened: {error}") from error
