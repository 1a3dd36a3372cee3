"""`Series`: the verbs of a series. Whatever they answer follows from the log that is read when they
are called.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import crc32c

from dask_embstab.arguments import offers
from dask_embstab.display import Displayed
from dask_embstab.errors import (
    DamageError,
    EmbstabError,
    InputError,
    OutputExistsError,
    RetryError,
    verb,
)
from dask_embstab.files.place import local_path
from dask_embstab.files.published import publishing
from dask_embstab.options import SELECTION, SETTINGS, taken
from dask_embstab.passes.apply import transform_run
from dask_embstab.passes.evaluate.driver import EvaluateOptions, measure_runs
from dask_embstab.passes.evaluate.ranked import Metric
from dask_embstab.passes.evaluate.results import Metrics
from dask_embstab.passes.evaluate.skew import Skew
from dask_embstab.passes.fit.options import Balance, Method
from dask_embstab.passes.join.options import KeepDuplicates
from dask_embstab.repairs import call, option
from dask_embstab.series.admin import gc
from dask_embstab.series.admin.forget import Forgotten, forget
from dask_embstab.series.admin.gc import Collected
from dask_embstab.series.admin.metrics import metrics_text
from dask_embstab.series.admin.rebase import rebase
from dask_embstab.series.admin.replay import replay
from dask_embstab.series.admin.skew import skew_of
from dask_embstab.series.admin.status import acknowledge, status_of
from dask_embstab.series.admin.verify import Verified, verify
from dask_embstab.series.log.basis import of_one_width, read_run
from dask_embstab.series.log.log import Log, read_log
from dask_embstab.series.log.names import require_model
from dask_embstab.series.log.published import transform_of
from dask_embstab.series.log.settings import Settings, settings_in
from dask_embstab.series.log.versions import FORMAT, Kind, Version, artifacts
from dask_embstab.series.publish.attempts import Attempt, recording_refusals
from dask_embstab.series.publish.commit import again_as, create_version, next_version
from dask_embstab.series.publish.delivery import Request, model_of
from dask_embstab.series.publish.publish import Added, add_run
from dask_embstab.series.store import Folder, Store
from dask_embstab.tables.layout import SERIES_MARK
from dask_embstab.tables.run import Run, open_run
from dask_embstab.tables.store import is_place, place_name
from dask_embstab.tables.store_errors import writing
from dask_embstab.tables.transform import Transform

RunLike = Run | str | os.PathLike[str]


def delivering(
    series: Series, run: Any = None, *, name: Any = None, **_: Any
) -> AbstractContextManager[None]:
    """Record an error of the block as a refused delivery of ``run``, which `Series.status` and
    `metrics` show.

    `Series.add` does so itself; this is for what comes before it, such as connecting to a cluster.
    """
    return recording_refusals(
        series.store, name if isinstance(name, str) else _name_at(run), _called(run)
    )


class Series(Displayed):
    """Stabilized runs in order, on a plain folder, with versions that are published, inspected and
    rolled back.

    ``Series(path)`` opens a series that `Series.init` made. Every verb reads the log anew, so any
    number of processes may read, add, roll back and collect at once: a reader never sees half a
    publish, and each version has one winner.
    """

    def __init__(self, place: str | os.PathLike[str] | Store) -> None:
        self.store: Store = _store(place)
        self._initial = _marked(self.store, str(place))

    @classmethod
    @verb(Settings)
    def init(cls, place: str | os.PathLike[str] | Store, **settings: Any) -> Series:
        """Make an empty series; ``settings`` are those of `Settings` (policy, keep, align_on,
        balance and the like).
        """
        chosen, store = Settings.of(settings), _store(place)
        with writing(f"the series {place}"):
            for folder in ("runs", "versions", "digests", "candidates", "attempts", "pins"):
                store.make(folder)
        values = {"format": FORMAT, "kind": "series", "settings": chosen.to_dict()}
        try:
            with publishing(place):
                store.create(
                    SERIES_MARK,
                    json.dumps(
                        values | {"crc32c": _check(values)}, indent=1, sort_keys=True
                    ).encode(),
                )
        except FileExistsError:
            raise OutputExistsError(
                f"{place} is a series already; add runs to it, or choose another place"
            ) from None
        return cls(place)

    def _facts(self) -> dict[str, object]:
        return {"place": self.store.place("")}

    @property
    def settings(self) -> Settings:
        """The settings that the next run will be landed with."""
        return settings_in(self.log(), self._initial)

    def log(self) -> Log:
        """Every version, oldest first."""
        return read_log(self.store)

    def head(self) -> Version | None:
        """The highest live version; None where nothing is published."""
        return self.log().head

    def show(self, version: int | None = None) -> Version:
        """All that is recorded of a version (default: the head)."""
        return self.log().version(version)

    def status(self) -> dict[str, Any]:
        """Is all ``well``? Three ``lines``, and the facts behind them."""
        return status_of(self.store, self.log())

    def metrics(self) -> str:
        """How the series is doing, as a Prometheus text file."""
        return metrics_text(self.store, self.log(), Path(str(self.store.place(""))).name)

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

        All other options are those of `fit` for this run alone, in place of the settings of these
        names: arrays, names of arrays stored with its tables, or files. Rows that ``only`` and
        ``min_count`` leave out are published and have no say in the rotation, the running reference
        and the gates. ``pairs`` says which rows of the reference decide the rotation of a run that
        renames ids; the running reference and the gates go by the ids as they are.

        The first run fixes which tables the runs of the series have, and whether scores or geometry
        are kept (the settings ``tables`` and ``keep``): a run with others is held, and only
        `change` lets it in.

        How often a row is read, where ids are in the last run's order: of the run twice (fit,
        apply), of the landed run once (to verify it), of the reference's aligned table once (fit),
        of the first run's once (`chain_minus_first`); where directions are aligned, the fit reads
        the run's aligned tables once more. ``consensus`` reads those of the last run beside the
        running reference's in the fit (and those of the run at each of the ``gaps`` once), those of
        the landed run and of the running reference once more to move it on, and what it wrote once.
        The gates add a sample, however long the tables are: 4,096 shared rows (16 per component
        where that is more) of each table of the landed and of the last live run, 256 of each of the
        landed run and of the run. With ids in another order, chunks that rows are picked from are
        read once more, for their checksums.

        Raises `RetryError` where another process was quicker, `HoldError` (with the ``verdicts``)
        where a gate holds the run, `InputError` where the run cannot be used or its name is taken
        by other content.
        """
        arguments = locals()
        if accept is not None and not accept.strip():
            raise InputError(f"{option('accept')} is a reason, in some words; it is empty")
        source = open_run(run)
        own = taken(arguments, SETTINGS.keys() - set(SELECTION))
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
            selection=taken(arguments, SELECTION),
            own={name: value for name, value in own.items() if value is not None},
        )
        for left in range(retries, -1, -1):
            try:
                return add_run(self.store, self._initial, source, request)
            except RetryError:
                if not left:
                    raise
        raise InputError(f"retries must be at least 0; it is {retries}")

    @verb()
    def acknowledge(self, run: str, *, reason: str = "") -> Attempt:
        """Show a delivery that was held, failed or interrupted no more in `status` and `metrics`; a
        later one is shown.

        What is held can still be accepted. ``reason`` is recorded. Raises `InputError` where there
        is no such delivery.
        """
        return acknowledge(self.store, self.log(), run, reason)

    def open(self, version: int | None = None) -> Run:
        """The run of a version (default: the head), which never changes once it is published.

        After a rebase its tables are views: lazy Dask arrays (and sources of every verb) of the
        stored rows times one small matrix, and its transform is composed with that matrix. ``path``
        is where the stored rows lie.
        """
        log = self.log()
        return self._run(log.located(log.with_run(version)))

    @contextlib.contextmanager
    def pin(self, version: int | None = None) -> Iterator[Run]:
        """The run of a version, left alone by gc while the block lasts (and no longer than gc's
        ``pin_age``).
        """
        log = self.log()
        found = log.located(log.with_run(version))
        with gc.pin(self.store, str(found.run)):
            yield self._run(found)

    def rollback(self, version: int) -> Added:
        """Make the run of an earlier version the head again, by a new version; nothing is
        removed.
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
        """Make the run of a shadow version live, by a new version."""
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
        """Change settings for the runs to come, by a new version that holds the head's run."""
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

    @verb(through="Series.change", settings=SETTINGS)
    def rebase(self, onto: int | RunLike | None, *, rewrite: bool = False) -> Added:
        """Move all that is stored onto another reference, by a new version that holds the head's
        run; scores stay.

        ``onto``: the run of a version, in the space in which it was published, or any other run;
        every stored run is rotated onto the rows that it shares with it. None goes back to how
        everything was read before the last rebase. Lazily one small matrix per run is recorded and
        readers multiply by it; with ``rewrite`` all runs are written anew in the new space (one
        read and one write each), and the old files stay until `gc`.

        Either way vectors that were read before are of another space: indexes that hold them must
        be built anew.
        """
        return rebase(
            self.store,
            self._initial,
            open_run(onto) if not isinstance(onto, int | None) else onto,
            rewrite=rewrite,
        )

    @verb()
    def forget(
        self, ids: Any, *, table: Literal["items", "users"] | None = None, rewrite: bool = False
    ) -> Forgotten:
        """Remove ids for good (a duty to delete), by a new version that holds the head's run.

        Every running reference that is kept is written anew without their rows; with ``rewrite``
        every run that holds one of them too (one read and one write each; the other rows are copied
        as they are). ``table`` says whose ids they are; it may be left out where only one of the
        tables has any of them. Nothing is published where nothing holds them.

        The ids of all runs are read once. In memory are the given ids and the numbers of their
        rows. The old files stay until `gc`. Raises `InputError` where both tables have some of the
        ids, a table's rows have none, or no row would be left.
        """
        return forget(self.store, self._initial, ids, table=table, rewrite=rewrite)

    def verify(self) -> Verified:
        """Read every file of every published run and compare it with what was recorded."""
        return verify(self.store, self.log())

    @verb()
    def gc(self, *, pin_age: float = gc.DAY, grace: float = gc.HOUR) -> Collected:
        """Remove what no version needs, was last changed more than ``grace`` seconds ago, and no
        reader has pinned in the last ``pin_age`` seconds.

        The grace (default: an hour, by the file system's clock) keeps what is being written on a
        machine that locks do not reach, and candidates that a gate holds, which `add` with
        ``accept`` publishes as they are. ``grace=0`` removes them at once. What stays is in
        ``left``, with the reason.
        """
        return gc.collect(self.store, pin_age=pin_age, grace=grace)

    @verb()
    def diff(
        self, a: int, b: int | None = None, *, k: int = 100, users: int = 1000, seed: int = 0
    ) -> Metrics:
        """`evaluate` the runs of two versions (``b`` by default the head), also of two widths."""
        options = EvaluateOptions(k, users, seed, join={"duplicates": self.settings.duplicates})
        return measure_runs(*of_one_width(self.open(a), self.open(b)), options)

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
        """
        return skew_of(
            self.log(),
            self.open,
            versions,
            k=k,
            n_queries=users,
            seed=seed,
            metric=metric,
            duplicates=self.settings.duplicates,
        )

    @verb(Settings)
    def replay(
        self,
        scratch: str | os.PathLike[str] | Store,
        *,
        first: int | None = None,
        last: int | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Land the inputs of the live runs of versions ``first`` to ``last`` again and compare, run
        by run and in the mean.

        ``scratch`` becomes a series with the settings of this one, changed by ``settings``; a gate
        holds nothing there (its verdict is recorded). A replay that was interrupted goes on.
        Besides what the versions hold, each run is compared with the one before it in its own
        series (`diff`). Raises `InputError` where an input is gone or not what was landed.
        """
        return replay(self, scratch, settings, first=first, last=last)

    @verb()
    def transform_for(self, *, model: str | None = None, version: int | None = None) -> Transform:
        """The transform of a model's live version, of a version, or of the head: what lands rows
        made by that model.
        """
        if model is not None and version is not None:
            raise InputError(
                f"a transform is that of a model or of a version; both came; give {option('model')}"
                f" or {option('version')}"
            )
        log = self.log()
        found = log.with_run(version) if model is None else log.of_model(model)
        found = log.located(found)
        return transform_of(self._run(found), found)

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
    ) -> Run:
        """Land a later batch of users or items with a published version's transform
        (`transform_for`) at ``out``.

        Options as those of `apply`. Without ``model`` and ``version``: the model that the batch
        itself names, else the head.
        """
        how = taken(locals(), ("dtype", "overwrite", "resume", "sync"))
        source = open_run(run)
        if model is None and version is None:
            model = model_of(source)
        transform = self.transform_for(model=model, version=version)
        root = local_path(self.store.place(""))
        inputs = (source.path, *(() if root is None else (str(root),)))
        return transform_run(transform, source, out, name=source.name, inputs=inputs, **how)

    def manifest(self) -> dict[str, Any]:
        """Every version in full, and every file that a copy of the series needs."""
        log = self.log()
        files = [key for version in log.stored.values() for key, _, _ in artifacts(version)]
        files += [*log.digests_files, *log.bases]
        head = log.head
        return {
            "format": FORMAT,
            "head": None if head is None else head.version,
            "settings": settings_in(log, self._initial).to_dict(),
            "versions": [version.without_digests() for version in log.versions],
            "files": [
                SERIES_MARK,
                *(f"versions/{v.version}.json" for v in log.versions),
                *sorted(files),
            ],
        }

    def _run(self, version: Version) -> Run:
        """A published run; whatever is wrong with it by now is damage."""
        try:
            return read_run(self.store, version)
        except EmbstabError as error:
            raise DamageError(f"version {version.version} cannot be opened: {error}") from error


def series_version(given: Any) -> Run | None:
    """The run of the version that ``SERIES@3`` or ``SERIES@head`` names; None for anything else."""
    if not isinstance(given, str | os.PathLike):
        return None
    place, at, version = os.fspath(given).rpartition("@")
    local = local_path(place) if at and (version == "head" or version.isdecimal()) else None
    if local is None or os.path.lexists(os.fspath(given)) or not (local / SERIES_MARK).is_file():
        return None
    return Series(local).open(None if version == "head" else int(version))


def _called(run: Any) -> str:
    if isinstance(run, Run):
        return run.where
    return place_name(run) if is_place(run) else f"a {type(run).__name__}"


def _name_at(run: Any) -> str:
    """What a run is called, or would be where it cannot be opened."""
    if isinstance(run, Run):
        return run.name
    return Path(_called(run)).name.removesuffix(".zarr")


def _store(place: Any) -> Store:
    if isinstance(place, str | os.PathLike):
        if (local := local_path(place)) is None:
            raise InputError(
                f"a series must lie in a local folder; {place} is the URL of another store; give a"
                " path"
            )
        return Folder(local)
    if not all(offers(place, verb) for verb in ("names", "read", "create")):
        raise InputError(
            f"a series must be named by the path of its folder; a {type(place).__name__} came"
        )
    store: Store = place
    return store


def _marked(store: Store, place: str) -> Settings:
    try:
        values = json.loads(store.read(SERIES_MARK))
        if values.pop("crc32c") != _check(values):
            raise ValueError("it fails its checksum")
        return Settings.of(values["settings"])
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"there is no series at {place}; make one with {call('Series.init')}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(
            f"{SERIES_MARK} of {place} cannot be read ({error}); restore it from a copy"
        ) from error


def _check(values: dict[str, Any]) -> int:
    return int(crc32c.crc32c(json.dumps(values, sort_keys=True).encode()))
