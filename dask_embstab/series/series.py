"""`Series`: the verbs of a series. Whatever they answer follows from the log that is read when they
are called.
"""

from __future__ import annotations

import os
from typing import Any

from dask_embstab.errors import (
    InputError,
    OutputExistsError,
    RetryError,
    verb,
)
from dask_embstab.files.published import publishing
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import SELECTION, SETTINGS, taken
from dask_embstab.passes.fit.options import Balance, Method
from dask_embstab.passes.join.options import KeepDuplicates
from dask_embstab.passes.join.queries import query_log_of
from dask_embstab.repairs import option
from dask_embstab.series.log.log import Log
from dask_embstab.series.log.mark import create_mark, store_at
from dask_embstab.series.log.names import require_model
from dask_embstab.series.log.settings import Settings, settings_in
from dask_embstab.series.log.versions import Kind, Version
from dask_embstab.series.publish.attempts import delivering
from dask_embstab.series.publish.commit import again_as, create_version, next_version
from dask_embstab.series.publish.delivery import Request
from dask_embstab.series.publish.publish import Added, add_run
from dask_embstab.series.store import Store
from dask_embstab.series.upkeep import SeriesUpkeep
from dask_embstab.tables.run import RunLike, open_run
from dask_embstab.tables.store_errors import writing


class Series(SeriesUpkeep):
    """Stabilized runs in order, in a plain folder or on an object store, with versions that are
    published, inspected and rolled back.

    ``Series(place)`` opens a series that `Series.init` made; ``storage_options`` reach a URL, as in
    `fit`. Every verb reads the log anew, so any
    number of processes may read, add, roll back and collect at once: a reader never sees half a
    publish, and each version has one winner.

    Examples
    --------
    >>> [version.run for version in series.log().versions]
    ['monday', 'tuesday']
    >>> series.open().items.n_rows  # of the head
    200
    """

    @classmethod
    @verb(Settings)
    def init(
        cls,
        place: str | os.PathLike[str] | Store,
        *,
        storage_options: StorageOptions | None = None,
        **settings: Any,
    ) -> Series:
        """Make an empty series in a folder or below a URL (``s3://bucket/prefix``, which
        ``storage_options`` reach); ``settings`` are those of `Settings` (policy, keep, align_on,
        balance and the like).

        Raises `InputError` where the place cannot let one of several publishers have a version: an
        object store that does not look at ``If-None-Match`` and ``If-Match``, a file system without
        hard links.

        Examples
        --------
        >>> es.Series.init(folder / "other", policy="first").head() is None
        True
        """
        (place,) = bound(storage_options, place)
        chosen, store = Settings.of(settings), store_at(place)
        with writing(f"the series {place}"):
            with store.transaction() as made:
                for folder in ("runs", "versions", "digests", "candidates", "attempts", "pins"):
                    made.make(folder)
            store.require_fit()
        try:
            with publishing(place):
                create_mark(store, chosen)
        except FileExistsError:
            raise OutputExistsError(
                f"{place} is a series already; add runs to it, or choose another place"
            ) from None
        return cls(store)

    @verb(through="Series.change", settings=SETTINGS, around=delivering)
    def add(
        self,
        run: RunLike,
        *,
        name: str | None = None,
        model: str | None = None,
        new_model: str | None = None,
        retries: int = 0,
        shadow: bool = False,
        accept: str | None = None,
        refit_code: bool = False,
        queries: Any = None,
        method: Method | None = None,
        rank: int | None = None,
        width: int | None = None,
        max_lost_energy: float | None = None,
        balance: Balance | None = None,
        center: bool | None = None,
        min_matched: int | None = None,
        unit_rows: bool | None = None,
        rotation_only: bool | None = None,
        weights: Any = None,
        only: Any = None,
        counts: Any = None,
        min_count: float | None = None,
        sample: int | None = None,
        anchors: int | None = None,
        seed: int | None = None,
        pairs: Any = None,
        duplicates: KeepDuplicates | None = None,
        storage_options: StorageOptions | None = None,
    ) -> Added:
        """Fit, apply, verify, ask the gates, and publish a run.

        Interrupted anywhere, the series reads as before, and the same call goes on from the whole
        chunks that are there. A run that is published already is left as it is. ``name`` and
        ``model`` are by default the run's own name; ``retries`` says how often to go on after
        another publisher was quicker. A ``shadow`` is published without becoming the head;
        `promote` makes it live. ``accept`` is the reason to publish what a gate would hold; it is
        recorded. ``new_model`` is a planned change: the first run of another model, of that name.
        Gates that compare it with the model before do not hold it; the space gets as many
        components as this run has, where they are more, or ``width``. With fewer, earlier versions
        are read in the narrower space from then on (one read of the head's tables; no stored vector
        changes, and `rebase` goes back).

        ``refit_code`` makes a new code for this run and those that follow, fitted to its rows,
        where the series has the setting ``code``; entries of a product code get the numbers of the
        old entries near to them. What is published keeps its own code (`codes`).

        ``queries`` are a log of ids of the run's users (without users: items), or of vectors as the
        run came: the gates look at these in place of a sample, and at what they find
        (``query_recall``).

        ``storage_options`` reach the run (and files of weights, counts, ids and pairs) at URLs. All
        other options are those of `fit` for this run alone, in place of the settings of these
        names: arrays, names of arrays stored with its tables, or files. Rows that ``only`` and
        ``min_count`` leave out are published and have no say in the rotation, the running reference
        and the gates. ``pairs`` are ids of a run that renames or merges some, and the ids that they
        have in the series: they decide the rotation, also with ``gaps``, and say which rows the
        gates compare; the running reference goes by the ids as they are.

        The first run fixes which tables the runs of the series have, and whether scores or geometry
        are kept (the settings ``tables`` and ``keep``): a run with others is held, and only
        `change` lets it in.

        How often a row is read, where ids are in the last run's order: of the run twice (fit,
        apply), of the stabilized run once (to verify it), of the reference's aligned table once
        (fit), of the first run's once (`chain_minus_first`); where directions are aligned, the fit
        reads the run's aligned tables once more. ``consensus`` reads those of the last run beside
        the running reference's in the fit (and those of the run at each of the ``gaps`` once),
        those of the stabilized run and of the running reference once more to update it, and what it
        wrote once. The gates add a sample, however long the tables are: 4,096 shared rows (16 per
        component where that is more) of each table of the stabilized and of the last live run, 256
        of each of the stabilized run and of the run. With ids in another order, chunks that rows
        are gathered from are read once more, for their checksums.

        Raises `RetryError` where another process was quicker, `HoldError` (with the ``verdicts``)
        where a gate holds the run, `InputError` where the run cannot be used or its name is taken
        by other content.

        Examples
        --------
        >>> rng = np.random.default_rng(1)
        >>> A = rng.normal(size=(4, 4))  # another training: the same scores in other axes
        >>> wednesday = es.create_run(
        ...     folder / "wednesday.zarr",
        ...     np.asarray(monday.items.vectors) @ A,
        ...     np.asarray(monday.users.vectors) @ np.linalg.inv(A).T,
        ...     item_ids=np.asarray(monday.items.ids),
        ...     user_ids=np.asarray(monday.users.ids),
        ... )
        >>> added = series.add(wednesday)
        >>> added.published, added.version.version
        (True, 3)
        """
        run, weights, only, counts, pairs = bound(
            storage_options, run, weights, only, counts, pairs
        )
        arguments = locals()
        if accept is not None and not accept.strip():
            raise InputError(f"{option('accept')} is a reason, in some words; it is empty")
        source = open_run(run)
        own = taken(arguments, SETTINGS.keys() - set(SELECTION))
        log = query_log_of(queries, source)
        if new_model is not None:
            require_model(new_model)
        if model is not None and new_model not in (None, model):
            raise InputError(
                f"a run belongs to one model; {option('model')} and {option('new_model')} name two"
                f" ({model!r}, {new_model!r}); give {option('new_model')} alone"
            )
        request = Request(
            name=name or source.name,
            model=model if new_model is None else new_model,
            planned=new_model is not None,
            shadow=shadow,
            accept=accept,
            refit_code=refit_code,
            selection=taken(arguments, SELECTION),
            queries=log,
            own={name: value for name, value in own.items() if value is not None},
        )
        for left in range(retries, -1, -1):
            try:
                return add_run(self.store, self._initial, source, request)
            except RetryError:
                if not left:
                    raise
        raise InputError(f"retries must be at least 0; it is {retries}")

    def rollback(self, version: int) -> Added:
        """Make the run of an earlier version the head again, by a new version; nothing is
        removed.

        Examples
        --------
        >>> rolled = series.rollback(1).version
        >>> rolled.kind, rolled.run
        ('rollback', 'monday')
        """
        log = self.log()
        target = log.with_run(version)
        if target.run not in log.live_runs:
            raise InputError(
                f"version {version} is a shadow that was never live; promote {version} makes it"
                " live"
            )
        return self._head_again(log, target, "rollback")

    def promote(self, version: int) -> Added:
        """Make the run of a shadow version live, by a new version.

        Examples
        --------
        >>> shadow = series.add(monday, name="wednesday", shadow=True, accept="the same rows again")
        >>> series.promote(shadow.version.version).version.kind
        'promote'
        """
        log = self.log()
        target = log.with_run(version)
        if target.state != "shadow":
            raise InputError(
                f"version {version} is no shadow; rollback {version} makes a run live that was so"
                " before"
            )
        return self._head_again(log, target, "promote")

    def _head_again(self, log: Log, target: Version, kind: Kind) -> Added:
        if log.head is not None and log.head.run == target.run:
            note = (
                f"version {log.head.version} is live and holds {target.run} already; nothing to do"
            )
            return Added(log.head, published=False, note=note)
        self._run(log.located(target))
        settings = settings_in(log, self._initial)
        made = again_as(target, log, kind, settings, restores=target.version, state="live")
        create_version(self.store, made)
        note = f"version {made.version} makes {made.run} of version {target.version} the head"
        if (
            settings.policy == "consensus"
            and target.has_reference
            and not log.located(target).has_reference
        ):
            note += (
                "; its running reference is not kept any more (keep_references is"
                f" {settings.keep_references}): the next run is aligned to this run alone, and"
                " starts a new one"
            )
        return Added(made, published=True, note=note)

    @verb(Settings)
    def change(self, **settings: Any) -> Added:
        """Change settings for the runs to come, by a new version that holds the head's run.

        Examples
        --------
        >>> series.change(policy="previous").version.kind
        'settings'
        """
        log = self.log()
        current = settings_in(log, self._initial)
        chosen = current.changed(settings)
        if chosen == current and log.versions:
            return Added(
                log.versions[-1],
                published=False,
                note="these are the settings already; nothing to do",
            )
        if log.head is None:
            made = next_version(
                self.store, log, "settings", chosen, run=None, model=None, reference=None
            )
        else:
            made = again_as(log.head, log, "settings", chosen, restores=None)
        create_version(self.store, made)
        return Added(made, published=True, note=f"version {made.version} changes settings")

    @verb(Settings)
    def replay(
        self,
        scratch: str | os.PathLike[str] | Store,
        *,
        first: int | None = None,
        last: int | None = None,
        storage_options: StorageOptions | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Stabilize the inputs of the live runs of versions ``first`` to ``last`` again and
        compare, run by run and in the mean; ``storage_options`` reach them, and ``scratch``, at
        URLs.

        ``scratch`` becomes a series with the settings of this one, changed by ``settings``; a gate
        holds nothing there (its verdict is recorded). A replay that was interrupted goes on.
        What the `add` of one run alone was given (its rank, the name of its weights and the like)
        is given again; an `add` that was given arrays is an error that names its version.
        ``without_options`` in the result are versions that do not tell (older releases).
        Besides what the versions hold, each run is compared with the one before it in its own
        series (`diff`). Raises `InputError` where an input is gone or not what was aligned.

        Examples
        --------
        >>> report = series.replay(folder / "scratch", policy="previous")
        >>> [run["run"] for run in report["runs"]]
        ['monday', 'tuesday']
        """
        (scratch,) = bound(storage_options, scratch)
        from dask_embstab.series.admin.replay import replay

        return replay(
            self, scratch, settings, first=first, last=last, storage_options=storage_options
        )
