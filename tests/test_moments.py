"""Fitting from moments, whole or in parts, is fitting from the tables, or is refused for the same
reason.
"""

from __future__ import annotations

import itertools
import tempfile
import warnings
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, assert_close, rotation

import dask_embstab as es

D = 3
KEYS = ("items", "users")
SELECTIONS = ("all", "weights", "norm", "only", "counts", "sample", "anchors")


def tables(seed: int, n: int, m: int, zeros: int = 0) -> dict[str, Array]:
    """Items and users whose scores are a product, the first ``zeros`` and the last one of the items
    without a direction.
    """
    rng = np.random.default_rng(seed)
    mixing = np.eye(D) + 0.2 * rng.normal(size=(D, D))
    items, users = (
        rng.normal(size=(n, D)) @ mixing,
        rng.normal(size=(m, D)) @ np.linalg.inv(mixing).T,
    )
    items[:zeros] = items[n - min(zeros, 1) :] = 0
    return {"items": items, "users": users}


def selection(kind: str, n: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "all": {},
        "weights": {"weights": rng.integers(0, 3, n)},
        "norm": {"weights": "norm"},
        "only": {"only": np.arange(0, n, 2)},
        "counts": {"counts": rng.integers(0, 9, n), "min_count": 4},
        "sample": {"sample": 11},
        "anchors": {"anchors": 9},
    }[kind]


def moments_of(
    rows: Array, key: str, reference: Any, chosen: dict[str, Any], cuts: list[int]
) -> es.TableMoments:
    """Of the whole table, or of parts of it, some of which may be empty of matches, in any
    order.
    """
    ids, n = np.arange(len(rows)), len(rows)

    def part(start: int, stop: int) -> es.TableMoments:
        per_row = [
            name for name in ("weights", "counts") if isinstance(chosen.get(name), np.ndarray)
        ]
        own = chosen | {name: chosen[name][start:stop] for name in per_row}
        table = es.table(rows[start:stop], ids=ids[start:stop], name=key)
        return es.moments(table, reference=reference, key=key, **own)  # type: ignore[arg-type]

    if {"sample", "anchors"} & set(chosen):
        return part(0, n)
    edges = sorted({0, *cuts, n})
    parts = [part(*edge) for edge in itertools.pairwise(edges)][::-1]
    return reduce(add, parts)


def outcome(fit: Any) -> Any:
    """A transform with the warnings that came with it, or the kind of an error and its reason;
    repairs are the caller's.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", es.EmbstabWarning)
        try:
            fitted = fit()
        except es.EmbstabError as error:
            # What too few rows are is told by two numbers: how many are needed, and how many came.
            parts = 2 if isinstance(error, es.TooFewMatchedError) else 1
            return type(error), "".join(str(error).split(";")[:parts])
    return fitted, sorted(str(warning.message).split(";")[0].split(":")[0] for warning in caught)


@given(data=st.data(), seed=st.integers(0, 1000))
def test_fit_of_moments_is_fit_of_tables_or_its_refusal(data: Any, seed: int) -> None:
    require_the_same(data.draw, seed)


@pytest.mark.long
@settings(max_examples=400)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_fit_of_moments_is_fit_of_tables_in_many_more_draws(data: Any, seed: int) -> None:
    require_the_same(data.draw, seed)


def drawn_options(draw: Any, keep: str) -> dict[str, Any]:
    options = {
        "method": draw(st.sampled_from(["auto", "gram"])),
        "balance": draw(st.sampled_from([None, "rows"])),
        "min_matched": draw(st.sampled_from([None, None, 1, 12, 1000])),
        "width": draw(st.sampled_from([None, D - 1, D, D + 2])),
    }
    if keep == "scores":
        return options | {"rank": draw(st.sampled_from([None, 2]))}
    only_geometry = {"center": draw(st.booleans()), "rotation_only": draw(st.booleans())}
    return options | only_geometry | {"max_lost_energy": draw(st.sampled_from([0.5, 0.1]))}


def require_the_same(draw: Any, seed: int) -> None:
    """Every option of a fit that moments can have, on whole runs and on parts, with and without
    what must be refused.
    """
    zeros = draw(st.sampled_from([0, 0, 12]))
    rows = tables(seed, draw(st.integers(20, 60)), draw(st.integers(20, 60)), zeros)
    theirs = tables(seed + 1, draw(st.integers(20, 60)), 40, draw(st.sampled_from([0, 0, 15])))
    if draw(st.booleans()):
        theirs = {
            key: other[: min(len(other), len(rows[key]))].copy() for key, other in theirs.items()
        }
        for key, other in theirs.items():  # alike, so that nothing is at chance
            other[:] = rows[key][: len(other)] + 0.1 * other
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rows = {key: table.astype(dtype) for key, table in rows.items()}
    first = {
        key: draw(st.integers(0, 50)) for key in KEYS
    }  # the reference's ids, of which few may be shared
    keep, align_on = (
        draw(st.sampled_from(["scores", "geometry"])),
        draw(st.sampled_from(["items", "users", "both"])),
    )
    aligned = KEYS if align_on == "both" else (align_on,)
    options = {"keep": keep, "align_on": align_on, **drawn_options(draw, keep)}
    kinds = {
        key: selection(draw(st.sampled_from(SELECTIONS)), len(rows[key]), seed) for key in aligned
    }
    names = sorted({name for chosen in kinds.values() for name in chosen})
    by_table = {
        name: {key: own[name] for key, own in kinds.items() if name in own} for name in names
    }
    cuts = {key: draw(st.lists(st.integers(1, len(rows[key]) - 1), max_size=2)) for key in KEYS}

    with tempfile.TemporaryDirectory() as folder:
        own_ids = {f"{key[:-1]}_ids": np.arange(len(theirs[key])) + first[key] for key in KEYS}
        reference: Any = es.create_run(Path(folder) / "r", **theirs, **own_ids)
        if draw(st.booleans()):
            reference = es.stabilize(reference, Path(folder) / "s", balance="gramians")
        whole = [es.table(rows[key], ids=np.arange(len(rows[key])), name=key) for key in KEYS]
        wanted = outcome(lambda: es.fit(*whole, reference=reference, **options, **by_table))
        taken = [
            moments_of(rows[key], key, reference, kinds.get(key, {}), cuts[key]) for key in KEYS
        ]
        if draw(st.booleans()):
            taken[0].save(Path(folder) / "m")
            taken[0] = es.TableMoments.load(Path(folder) / "m")
        named = draw(st.sampled_from([None, reference]))
        result = outcome(lambda: es.fit(*taken, reference=named, **options))
        if (
            result[0] is es.ConditionError
        ):  # a table may be read again, and moments say that they cannot
            result = outcome(
                lambda: es.fit(*taken, reference=named, **options | {"method": "gram"})
            )
    require_one_outcome(wanted, result, aligned)


def require_one_outcome(wanted: Any, result: Any, aligned: tuple[str, ...]) -> None:
    if isinstance(wanted[0], type) or isinstance(result[0], type):
        message = f"{wanted}, of moments {result}"
        if "share no id" in wanted[1]:  # there with an id of either side, which moments do not hold
            assert (result[0], "share no id" in result[1]) == (es.TooFewMatchedError, True), message
        else:
            assert wanted == result, message
        return
    assert result[1] == wanted[1]
    ours, theirs = result[0].diagnostics, wanted[0].diagnostics
    figures, expected = dict(ours["alignment"]), dict(theirs["alignment"])
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        close = pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value
        assert figures[name] == close, name
    if not expected["free_directions"]:
        assert_close(result[0].items, wanted[0].items, 1e-7)
        assert_close(result[0].users, wanted[0].users, 1e-7)
    assert ours["reference"] == theirs["reference"]
    for name in ("rank", "width", "balance", "centred"):
        assert ours[name] == theirs[name]
    for key in aligned:
        for name in ("rows", "matched", "zero_rows", "dtype"):
            assert ours[key][name] == theirs[key][name], (key, name)


@pytest.mark.parametrize("min_matched", [None, 195, 221, 1000])
@pytest.mark.parametrize("n_zeros", [1, 33])
@pytest.mark.parametrize("n_theirs", [220, 4000])
def test_too_few_rows_are_the_same_numbers_of_moments_and_of_tables(
    min_matched: int | None, n_zeros: int, n_theirs: int
) -> None:
    """220 shared ids, a few of rows of zeros, against floors below and above either count."""
    rows, theirs = tables(0, 3000, 20)["items"], tables(1, n_theirs, 20)["items"]
    rows[:n_zeros] = theirs[-n_zeros:] = 0
    ours = es.table(rows, ids=np.arange(3000))
    reference = es.table(theirs, ids=np.arange(n_theirs) + (0 if n_theirs == 220 else 2780))
    options: dict[str, Any] = {"min_matched": min_matched, "keep": "geometry"}
    wanted = outcome(lambda: es.fit(ours, reference=reference, **options))
    moments = outcome(lambda: es.fit(es.moments(ours, reference=reference), **options))
    assert isinstance(wanted[0], type) == isinstance(moments[0], type)
    assert isinstance(wanted[0], es.Transform) or wanted == moments


def test_a_part_that_shares_no_id_has_no_pairs() -> None:
    rows, theirs = (
        tables(0, 60, 20)["items"],
        es.table(tables(1, 30, 20)["items"], ids=np.arange(30)),
    )
    shared = es.moments(es.table(rows[:30], ids=np.arange(30)), reference=theirs)
    alone = es.moments(es.table(rows[30:], ids=np.arange(30, 60)), reference=theirs)
    assert (alone.matched, alone.moments.pairs, alone.n_rows) == (0, None, 30)
    both = alone + shared
    assert (both.matched, both.n_rows) == (30, 60)
    assert_close((both - alone).gramian, shared.gramian, 1e-12)
    assert es.fit(both).diagnostics["items"]["matched"] == 30
    with pytest.raises(es.TooFewMatchedError, match="share no id"):
        es.fit(alone)


def test_matched_counts_rows_before_weights_and_selection() -> None:
    rows, theirs = tables(0, 40, 20)["items"], tables(1, 40, 20)["items"]
    for chosen in (
        {"weights": np.arange(40) % 2},
        {"only": [1, 2, 3]},
        {"sample": 5},
        {"anchors": 5},
        {},
    ):
        moments = es.moments(rows, reference=theirs, **chosen)
        assert (
            moments.matched
            == es.fit(rows, reference=theirs, **chosen).diagnostics["items"]["matched"]
            == 40
        )


def test_weighted_and_unweighted_parts_keep_the_gramian_of_the_whole() -> None:
    rows, theirs = tables(0, 40, 20)["items"], tables(1, 40, 20)["items"]
    weights = np.arange(1.0, 21.0)
    ids = np.arange(40)
    reference = es.table(theirs, ids=ids)
    first = es.moments(es.table(rows[:20], ids=ids[:20]), reference=reference, weights=weights)
    second = es.moments(es.table(rows[20:], ids=ids[20:]), reference=reference)
    for both in (first + second, second + first):
        assert_close(both.gramian, rows.T @ rows, 1e-12)
        assert_close((both - first).gramian, second.gramian, 1e-12)
        assert_close((both - second).gramian, first.gramian, 1e-12)
        every = np.r_[weights, np.ones(20)][:, None]
        assert_close(es.fit(both).items, rotation(every * rows, theirs), 1e-12)


@pytest.mark.parametrize("name", ["sample", "anchors"])
def test_drawn_rows_of_two_tables_stand_for_all_of_them(name: str, tmp_path: Path) -> None:
    """As many of 400 items as of 100 users: an item that was drawn counts four times as much as a
    user.
    """
    rows, theirs = tables(0, 400, 100), tables(1, 400, 100)
    reference = es.create_run(tmp_path / "r", **theirs)
    chosen: dict[str, Any] = {name: 50, "seed": 3}
    single = {
        key: es.fit(rows[key], reference=theirs[key], **chosen).diagnostics["items"]["aligned"]
        for key in KEYS
    }
    assert single == {"items": 50, "users": 50}
    cross = {
        key: es.moments(rows[key], reference=reference, key=key, **chosen).moments.pairs
        for key in KEYS
    }  # type: ignore[arg-type]
    assert [cross[key].weight for key in KEYS] == [400, 100]  # type: ignore[union-attr]
    fitted = es.fit(*rows.values(), reference=reference, keep="geometry", align_on="both", **chosen)
    P, _, Zh = np.linalg.svd(sum(cross[key].cross for key in KEYS))  # type: ignore[union-attr]
    assert_close(fitted.items, P @ Zh, 1e-12)


REFUSED = {
    "unit_rows": ({"unit_rows": True}, "another read"),
    "qr": ({"method": "qr"}, "another read"),
    "weights": ({"weights": np.ones(40)}, r"weights.*moments"),
    "only": ({"only": [1]}, r"only.*moments"),
    "sample": ({"sample": 5}, r"sample.*moments"),
    "another table": ({"align_on": "users"}, "only moments of items"),
    "scores": ({"keep": "scores"}, "needs users"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_only_a_read_can_do_is_refused(kind: str) -> None:
    rows, theirs = tables(0, 40, 20)["items"], tables(1, 40, 20)["items"]
    options, message = REFUSED[kind]
    with pytest.raises(es.InputError, match=message):
        es.fit(es.moments(rows, reference=theirs), **options)


def test_moments_of_another_reference_or_of_none_are_refused(tmp_path: Path) -> None:
    rows, theirs, others = tables(0, 40, 40), tables(1, 40, 40), tables(2, 40, 40)
    with pytest.raises(es.InputError, match="taken without a reference"):
        es.fit(es.moments(rows["items"]), reference=theirs["items"])
    first, second = (
        es.create_run(tmp_path / name, **made) for name, made in (("a", theirs), ("b", others))
    )
    taken = [
        es.moments(rows[key], reference=run, key=key)
        for key, run in zip(KEYS, (first, second), strict=True)
    ]  # type: ignore[arg-type]
    with pytest.raises(es.InputError, match="one reference"):
        es.fit(*taken, align_on="both", keep="geometry")
