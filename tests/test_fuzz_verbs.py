"""Every public verb with every wrong kind in every argument: it is taken, or one clear error of
this library says why not.

Verbs, their parameters and the commands are asked of the package itself: a new one that is not
called here fails.
"""

from __future__ import annotations

import inspect
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from oracle import world
from wrong_kinds import KINDS, NO_TABLES, value

import dask_embstab as es
from dask_embstab.series.log.settings import SETTINGS
from dask_embstab.series.log.thresholds import THRESHOLDS

T, W = world(76)
T2, W2 = world(77)
IDS: dict[str, Any] = {"item_ids": np.arange(60), "user_ids": np.arange(90)}
RESULTS = {es.Metrics, es.Report, es.Run, es.Table, es.TableMoments, es.UpgradePlan, es.Detected}
"""Nobody makes these by calling them: verbs return them."""
TABLES: dict[str, set[str]] = {
    "apply": {"run"},
    "begin_backfill": {"old", "new"},
    "compress": {"run"},
    "create_run": {"items", "users"},
    "detect_space": {"vectors"},
    "evaluate": {"a", "b", "queries"},
    "export": {"what"},
    "fit": {"items", "users", "reference", "weights", "counts", "pairs"},
    "fold": {"weight"},
    "fold_bias": {"items", "users"},
    "frontier": {"run"},
    "ingest": {"source", "users"},
    "moments": {"table", "reference", "weights", "counts"},
    "open_run": {"path"},
    "report": {"a", "queries"},
    "query_index": {"queries"},
    "search": {"queries", "run"},
    "stabilize": {"run", "reference", "weights", "counts", "pairs"},
    "table": {"array"},
    "upgrade_index": {"new", "queries"},
    "upgrade_plan": {"old", "new", "queries"},
    "Series.add": {"run", "weights", "counts", "queries"},
    "Series.apply": {"run"},
}
"""By verb, the arguments that are tables or columns: no kind of `NO_TABLES` may be taken for one.
"""
OPERATORS = ("__add__", "__sub__")


def public_verbs() -> dict[str, Callable[..., Any]]:
    """By name, every function and method (and constructor) of the public names."""
    seen: dict[str, Callable[..., Any]] = {}
    for name in es.__all__:
        thing = getattr(es, name)
        if not isinstance(thing, type):
            seen[name] = thing
        elif not issubclass(thing, Exception | Warning):
            if thing not in RESULTS:
                seen[name] = thing
            own = {k: v for base in reversed(thing.__mro__[:-1]) for k, v in vars(base).items()}
            for attribute, value in own.items():
                if isinstance(value, property) or not callable(getattr(thing, attribute)):
                    continue
                if not attribute.startswith("_") or attribute in OPERATORS:
                    seen[f"{name}.{attribute}"] = getattr(thing, attribute)
    return seen


class Given:
    """What every verb is called with, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = es.create_run(folder / "a.zarr", T, W, **IDS)
        self.other = es.create_run(folder / "b.zarr", T2, W2, **IDS)
        self.third = es.create_run(folder / "c.zarr", T + 0.1 * T2, W + 0.1 * W2, **IDS)
        self.transform = es.fit(self.run)
        self.transform.save(folder / "t.npz")
        self.moments = es.moments(T)
        self.moments.save(folder / "m.npz")
        self.series = es.Series.init(folder / "series", gates=dict.fromkeys(THRESHOLDS))
        self.series.add(self.run)
        self.shadow = self.series.add(self.other, shadow=True).version.version
        shutil.copytree(folder / "series", folder / "template")
        self.index = folder / "index"
        es.export(self.run, self.index, format="usearch")
        es.begin_backfill(folder / "moving", self.index, self.run, self.other)
        self.n = 0

    def another_series(self) -> es.Series:
        """A series like the first one, to which a run is added."""
        return es.Series(shutil.copytree(self.folder / "template", self.fresh()))

    def fresh(self, ending: str = "") -> Path:
        """A place where nothing stands."""
        self.n += 1
        return self.folder / f"new-{self.n}{ending}"

    def moving(self) -> es.Backfill:
        """An index that is being moved."""
        return es.Backfill(self.folder / "moving")

    def arguments(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """By verb, arguments that it takes; methods are given what they are called on as
        ``self``.
        """
        a, b, t, m, s, new = (
            self.run,
            self.other,
            self.transform,
            self.moments,
            self.series,
            self.fresh,
        )
        return {
            "apply": lambda: {"transform": t, "run": a, "out": new()},
            "Backfill": lambda: {"place": self.folder / "moving"},
            "Backfill.step": lambda: {"self": self.moving()},
            "Backfill.roll_back": lambda: {"self": self.moving()},
            "Backfill.search": lambda: {"self": self.moving(), "queries": W2, "k": 3},
            "begin_backfill": lambda: {"place": new(), "index": self.index, "old": a, "new": b},
            "check_space": lambda: {"a": t, "b": t},
            "compress": lambda: {"run": a, "out": new()},
            "create_run": lambda: {"path": new(), "items": T, "users": W},
            "detect_space": lambda: {"vectors": a, "spaces": s},
            "Detected.to_dict": lambda: {"self": es.detect_space(a, s)},
            "evaluate": lambda: {"a": a, "b": b},
            "export": lambda: {"what": a, "out": new(), "format": "npy"},
            "fit": lambda: {"items": T, "users": W, "reference": {"items": T2, "users": W2}},
            "fold": lambda: {"transform": t, "weight": T, "bias": np.ones(4), "layout": "in_out"},
            "fold_bias": lambda: {"items": T, "users": W, "bias": np.ones(60)},
            "frontier": lambda: {"run": a},
            "ingest": lambda: {"source": a, "out": new()},
            "load_transform": lambda: {"path": self.folder / "t.npz"},
            "moments": lambda: {"table": T, "reference": T2},
            "open_run": lambda: {"path": a},
            "query_index": lambda: {"index": self.index, "queries": a, "k": 3},
            "upgrade_index": lambda: {"index": self.index, "out": new(), "transform": t},
            "progress": lambda: {"hook": lambda *_: None},
            "report": lambda: {"a": a, "b": b},
            "Report.save": lambda: {"self": es.report(T, T2), "path": new(".html")},
            "Report.to_dict": lambda: {"self": es.report(T, T2)},
            "search": lambda: {"queries": T, "run": T2, "k": 5},
            "space_of": lambda: {"given": a},
            "Space": lambda: {"origin": "0"},
            "Space.to_dict": lambda: {"self": es.space_of(t)},
            "Space.from_dict": lambda: {"values": {"origin": "0"}},
            "stabilize": lambda: {"run": a, "out": new(), "reference": b},
            "table": lambda: {"array": T},
            "upgrade_plan": lambda: {"old": a, "new": b},
            "UpgradePlan.to_dict": lambda: {"self": es.upgrade_plan(a, b)},
            "Transform": lambda: {"items": np.eye(4), "users": None, "singular_values": np.ones(4)},
            "Transform.arrays": lambda: {"self": t},
            "Transform.compose": lambda: {"self": t, "other": t},
            "Transform.from_arrays": lambda: {"arrays": t.arrays(), "diagnostics": {}},
            "Transform.inverse": lambda: {"self": t},
            "Transform.load": lambda: {"path": self.folder / "t.npz"},
            "Transform.save": lambda: {"self": t, "path": new(".npz")},
            "Transform.transform_items": lambda: {"self": t, "rows": T},
            "Transform.transform_users": lambda: {"self": t, "rows": W},
            "TableMoments.__add__": lambda: {"self": m, "other": m},
            "TableMoments.__sub__": lambda: {"self": m, "other": m},
            "TableMoments.digest": lambda: {"self": m},
            "TableMoments.load": lambda: {"path": self.folder / "m.npz"},
            "TableMoments.save": lambda: {"self": m, "path": new(".npz")},
            "Live": lambda: {"series": self.folder / "series"},
            "Live.at": lambda: {"self": es.Live(self.folder / "series"), "version": 1},
            "Live.close": lambda: {"self": es.Live(self.folder / "series")},
            "Live.now": lambda: {"self": es.Live(self.folder / "series")},
            "Metrics.to_dict": lambda: {"self": es.evaluate(T, T2)},
            "Run.table": lambda: {"self": a, "key": "items"},
            "Table.rows_of": lambda: {"self": a.items, "ids": [3]},
            "Table.to_xarray": lambda: {"self": a.items},
            "Series": lambda: {"place": self.folder / "series"},
            "Series.acknowledge": lambda: {"self": s, "run": "b"},
            "Series.add": lambda: {"self": self.another_series(), "run": self.third},
            "Series.apply": lambda: {"self": s, "run": b, "out": new()},
            "Series.change": lambda: {"self": s},
            "Series.codes": lambda: {"self": s},
            "Series.diff": lambda: {"self": s, "a": 1},
            "Series.forget": lambda: {"self": self.another_series(), "ids": [3], "table": "items"},
            "Series.gc": lambda: {"self": s},
            "Series.head": lambda: {"self": s},
            "Series.init": lambda: {"place": new()},
            "Series.log": lambda: {"self": s},
            "Series.manifest": lambda: {"self": s},
            "Series.metrics": lambda: {"self": s},
            "Series.open": lambda: {"self": s, "version": 1},
            "Series.pin": lambda: {"self": s, "version": 1},
            "Series.promote": lambda: {"self": s, "version": self.shadow},
            "Series.rebase": lambda: {"self": s, "onto": b},
            "Series.report": lambda: {"self": s},
            "Series.replay": lambda: {"self": s, "scratch": new()},
            "Series.rollback": lambda: {"self": s, "version": 1},
            "Series.space": lambda: {"self": s},
            "Series.show": lambda: {"self": s, "version": 1},
            "Series.skew": lambda: {"self": s, "versions": [1, self.shadow]},
            "Series.status": lambda: {"self": s},
            "Series.transform_for": lambda: {"self": s},
            "Series.verify": lambda: {"self": s},
        }


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(tmp_path_factory.mktemp("fuzz"))


def parameters(verb: str, function: Callable[..., Any]) -> Iterator[str]:
    """The names of its parameters, and those that it hands on."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            handed = set(inspect.signature(es.fit).parameters) - {"items", "users", "reference"}
            yield from sorted(SETTINGS if verb.startswith("Series.") else handed)
        elif name not in ("self", "sync"):
            yield name


def outcome(call: Callable[[], Any]) -> str:
    """The name of the error, "taken" where there was none; a raw exception, or an unclear one, is
    raised.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", es.EmbstabWarning)
            result = call()
            if hasattr(result, "__enter__"):
                with result:
                    pass
    except es.EmbstabError as error:
        result = error
    if not isinstance(result, es.EmbstabError):
        return "taken"
    assert str(result)
    assert str(result).isprintable(), str(result)
    assert result.__cause__ is not result
    return type(result).__name__


def clean(folder: Path) -> None:
    """Nothing that a verb has written stands in the way of the next one."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "file.txt" or path.stat().st_size != 8:
            path.unlink()
            Path("file.txt").write_text("a,b\n1,2\n")


def test_every_public_verb_is_called(given: Given) -> None:
    assert set(given.arguments()) == set(public_verbs())
    for verb, arguments in given.arguments().items():
        wanted = {"self"} & arguments().keys() | set(parameters(verb, public_verbs()[verb]))
        assert arguments().keys() <= wanted | {"users", "reference"}, verb


@pytest.mark.parametrize("step", [32, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("verb", sorted(public_verbs()))
def test_no_verb_raises_anything_but_a_clear_error(
    given: Given, verb: str, step: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("a,b\n1,2\n")
    function = public_verbs()[verb]
    raw: dict[str, str] = {}
    taken: set[str] = set()
    with dask.config.set(scheduler="synchronous"):
        for name in parameters(verb, function):
            for kind in KINDS:
                if zlib.crc32(f"{verb} {name} {kind}".encode()) % step:
                    continue
                arguments = {**given.arguments()[verb](), name: value(kind)}
                on = arguments.pop("self", None)
                bound = function if on is None else getattr(on, verb.partition(".")[2])
                try:
                    result = outcome(lambda bound=bound, arguments=arguments: bound(**arguments))
                    if result == "taken" and kind in NO_TABLES and name in TABLES.get(verb, ()):
                        taken.add(f"{name}: {kind}")
                except Exception as error:  # noqa: BLE001 (all of them are told of at once)
                    raw[f"{name}: {kind}"] = f"{type(error).__name__}: {error}"[:200]
                clean(tmp_path)
    assert not raw
    assert not taken
