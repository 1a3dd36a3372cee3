"""The resumable pipeline of `Series.add`, one function per step of ``docs/series.md``.

The order is the whole of it: the transform is durable before the first chunk is written, every
chunk is durable and verified before the version is created, and the version is created by one of
all who try.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dask_embstab.errors import HoldError, InputChangedError, NotFiniteError, TooFewMatchedError
from dask_embstab.files.place import local_path
from dask_embstab.files.published import unpublished
from dask_embstab.passes.apply import Codes, transform_run
from dask_embstab.series.log.basis import read_run
from dask_embstab.series.log.digests import Digests, record_digests
from dask_embstab.series.log.log import read_log
from dask_embstab.series.log.names import candidate_key, held_key, require_model, require_run_name
from dask_embstab.series.log.settings import Settings
from dask_embstab.series.log.version_file import Details
from dask_embstab.series.log.versions import Version
from dask_embstab.series.publish.advance import MeanUpdate, advance_consensus
from dask_embstab.series.publish.attempts import attempting
from dask_embstab.series.publish.candidate import Candidate, fit
from dask_embstab.series.publish.code_figures import code_figures
from dask_embstab.series.publish.coding import Coding, coding_of, is_coded_as
from dask_embstab.series.publish.commit import create_version, next_version
from dask_embstab.series.publish.delivery import Delivery, Request, model_of, prepare, require_same
from dask_embstab.series.publish.figures import content_of, delivered, figures_of
from dask_embstab.series.publish.files import is_left, make_durable, removed_if_torn
from dask_embstab.series.publish.gates import Verdict, held, hold, judge, refused
from dask_embstab.series.publish.readback import Readback, is_transformed_by, verify
from dask_embstab.series.store import Held, Store
from dask_embstab.tables.inputs import unchanged
from dask_embstab.tables.run import Run


@dataclass(frozen=True, slots=True)
class Added:
    """What came of it: the version, and whether this call published it."""

    version: Version
    published: bool
    note: str


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Seconds since ``began``, and those of the steps of a publish."""

    began: float = field(default_factory=time.perf_counter)
    steps: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Of what is done within, and of the same step before."""
        began = time.perf_counter()
        yield
        self.steps[step] = self.steps.get(step, 0.0) + time.perf_counter() - began

    def seconds(self) -> dict[str, float]:
        """To the millisecond, ``add`` is all of it."""
        known = {**self.steps, "add": time.perf_counter() - self.began}
        return {step: round(seconds, 3) for step, seconds in known.items()}


@dataclass(frozen=True, slots=True)
class Judged:
    """What every gate said, over how many sampled rows of each table, and what is recorded of the
    codes, if there are any.
    """

    verdicts: tuple[Verdict, ...]
    sampled: dict[str, dict[str, int]]
    codes: dict[str, Any] | None


def add_run(store: Store, initial: Settings, source: Run, request: Request) -> Added:
    """Publish a run as the next version; a run that is published already is left as it is.

    Where a gate holds it, its candidate stays as an interrupted publish leaves it, so that the same
    call with ``accept`` (a reason) publishes it without fitting or writing again.
    """
    name, watch = request.name, Stopwatch()
    require_run_name(name)
    require_model(request.model or model_of(source) or name)
    with (
        store.transaction() as store,
        store.lock(name) as lock,
        attempting(store, name, source.where),
        contextlib.ExitStack() as locks,
    ):
        log = read_log(store)
        if name in log.runs:
            return _published_before(store, log.runs[name], source, request)
        delivery = prepare(store, log, initial, source, request, locks)
        with _one_delivery(delivery):
            with _refusals_hold(name):
                with watch.of("fit"):
                    candidate = fit(delivery)
                with watch.of("codes"):
                    coding = coding_of(delivery, candidate)
                for is_last in (False, True):  # what a power cut tore is written anew, once
                    with watch.of("apply"):
                        apply(delivery, candidate, coding.codes)
                        make_durable(store, delivery.key)
                    with removed_if_torn(store, delivery.key, is_last=is_last), watch.of("verify"):
                        readback = verify(delivery, candidate)
                        break
            with watch.of("gates"):
                judged = check_gates(delivery, candidate, coding, readback)
        with watch.of("consensus"):
            mean_update = advance_consensus(delivery, candidate, readback)
        return publish(delivery, candidate, readback, judged, mean_update, watch, lock)


def apply(delivery: Delivery, candidate: Candidate, codes: Codes) -> None:
    """Write the aligned run, and its codes in the same read; one that an interrupted call left
    serves, and so do its whole chunks.
    """
    store, source = delivery.store, delivery.source

    def is_ours(left: Run) -> bool:
        return is_transformed_by(left, candidate.transform) and is_coded_as(left, codes)

    if is_left(store, delivery.key, is_ours):
        return
    place = store.place(delivery.key)
    with unpublished():  # a version names it later, or nothing does
        transform_run(
            candidate.transform,
            source,
            place,
            name=delivery.name,
            dtype=delivery.settings.dtype,
            overwrite=False,
            resume=local_path(place) is not None,
            for_series=True,
            inputs=() if source.path is None else (source.path,),
            codes=codes,
        )


def check_gates(
    delivery: Delivery, candidate: Candidate, coding: Coding, readback: Readback
) -> Judged:
    """What the gates say of the aligned run, compared with the run that is live now.

    Raises `HoldError` where one holds it and no reason was given to accept that.
    """
    store, log, settings = delivery.store, delivery.log, delivery.settings
    head = None if log.head is None else read_run(store, log.located(log.head))
    figures, sampled = figures_of(
        log,
        head,
        readback.run,
        delivery.source,
        settings,
        readback,
        candidate.selected,
        delivery.request.queries,
    )
    of_codes, codes = code_figures(delivery, coding, readback, head)
    figures |= of_codes
    again = delivered(log, delivery.name, readback.inputs["tables"])
    figures["delivered"] = {"run": float(again is not None)}
    verdicts = judge(figures, settings.gates)
    if held(verdicts) and delivery.request.accept is None:
        known = json.dumps({"run": delivery.name, "verdicts": verdicts})
        store.replace(held_key(delivery.name), known.encode())
        raise hold(delivery.name, verdicts)
    return Judged(verdicts, sampled, codes)


def publish(
    delivery: Delivery,
    candidate: Candidate,
    readback: Readback,
    judged: Judged,
    mean_update: MeanUpdate,
    watch: Stopwatch,
    lock: Held,
) -> Added:
    """Create the version, which one of all who try does; nothing else of the publish is left
    then.
    """
    store, request, reference = delivery.store, delivery.request, delivery.reference
    figures = _fit_figures(candidate, readback) | {
        "chain_minus_first": readback.chain_minus_first,
        "running_reference": mean_update.rows or None,
        "sampled": judged.sampled,
        "selected": dict(candidate.selected.recorded) or None,
    }
    figures |= {} if judged.codes is None else {"codes": judged.codes}
    details = Details(
        verdicts=judged.verdicts,
        settings=delivery.recorded.to_dict(),
        figures=figures,
        spectra=readback.spectra,
        seconds=watch.seconds(),
    )
    digests = Digests(run=readback.digests, reference=mean_update.digests, inputs=readback.inputs)
    version = next_version(
        store,
        delivery.log,
        "publish",
        delivery.settings,
        run=delivery.name,
        model=delivery.model,
        reference=None if reference is None else reference.version,
        state="shadow" if request.shadow else "live",
        accepted=request.accept if held(judged.verdicts) else None,
        content=content_of(readback.inputs["tables"]),
        details=details,
        **record_digests(store, delivery.name, digests),
    )

    if delivery.narrower is not None:
        create_version(store, delivery.narrower, delivery.moving)
    create_version(store, version, lock)
    with contextlib.suppress(OSError):  # what is left is known to be nobody's
        remove_candidate(store, delivery.name)
    seen = ", a shadow that readers of the head do not see" if request.shadow else ""
    return Added(
        version, published=True, note=f"{delivery.name} is version {version.version}{seen}"
    )


def remove_candidate(store: Store, name: str) -> None:
    """Nothing of a publish is left but what it published."""
    store.remove(held_key(name))
    store.remove(candidate_key(name))


def _published_before(store: Store, version: Version, source: Run, request: Request) -> Added:
    """The same run once more: nothing to do; other content under a name that is taken is an
    error.
    """
    require_same(version, source, request.model)
    remove_candidate(store, request.name)
    seen = (
        "" if version.state == "live" else f" (a shadow: promote {version.version} makes it live)"
    )
    note = f"{version.run} is published already as version {version.version}{seen}; nothing to do"
    return Added(version, published=False, note=note)


@contextlib.contextmanager
def _one_delivery(delivery: Delivery) -> Iterator[None]:
    """What was made of a run that changed meanwhile goes again: neither the transform nor the rows
    serve any more.
    """
    source = delivery.source
    try:
        with unchanged(source.items, source.users):
            yield
    except InputChangedError:
        delivery.store.remove(delivery.key)
        remove_candidate(delivery.store, delivery.name)
        raise


@contextlib.contextmanager
def _refusals_hold(name: str) -> Iterator[None]:
    """What cannot be aligned for what it holds is held; there is nothing that could be accepted."""
    try:
        yield
    except (TooFewMatchedError, NotFiniteError) as error:
        gate = "matched" if isinstance(error, TooFewMatchedError) else "finite"
        raise HoldError(
            f"{name} is held and not published: {error.message}",
            *error.repairs,
            verdicts=[refused(gate)],
        ) from error


def _fit_figures(candidate: Candidate, readback: Readback) -> dict[str, Any]:
    known: Mapping[str, Any] = candidate.transform.diagnostics
    counts = ("rows", "matched", "new", "unmatched_reference", "returned", "lags")
    tables = {
        key: {name: known[key].get(name) for name in counts}
        | {"zero_rows": readback.zero_rows.get(key)}
        for key in ("items", "users")
        if known.get(key)
    }
    named = ("keep", "method", "rank", "balance", "alignment")
    return {**tables, **{name: known.get(name) for name in named}}
