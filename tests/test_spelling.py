"""Ids that differ only by how they are spelled are other ids, and are said to be nearly the
same.
"""

from __future__ import annotations

import contextlib
import unicodedata
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import world

import dask_embstab as es
from dask_embstab.tables.ids.spelling import canonical

T, W = world(61)
MakeRun = Callable[..., es.Run]
Refused = Callable[..., contextlib.AbstractContextManager[None]]
NAMES = [f"café-{i:02d}" for i in range(60)]
KEYS = [str(uuid.UUID(int=0xABCDEF << 100 | i)) for i in range(60)]
FORM, CASE = "Unicode normal form", "case of a UUID"


def decomposed(names: list[str], n: int) -> list[str]:
    return [unicodedata.normalize("NFD", name) if i < n else name for i, name in enumerate(names)]


def upper(names: list[str], n: int) -> list[str]:
    return [name.upper() if i < n else name for i, name in enumerate(names)]


SPELLED: dict[str, tuple[Callable[[], tuple[Any, Any]], str, int]] = {
    "normal forms": (lambda: (decomposed(NAMES, 20), NAMES), FORM, 20),
    "normal forms in the reference": (lambda: (NAMES, decomposed(NAMES, 20)), FORM, 20),
    "compatibility forms": (
        lambda: (
            [f"x{i}ﬁ" if i < 7 else f"x{i}" for i in range(60)],
            [f"x{i}fi" if i < 7 else f"x{i}" for i in range(60)],
        ),
        FORM,
        7,
    ),
    "UUIDs": (lambda: (upper(KEYS, 30), KEYS), CASE, 30),
    "UUIDs in the reference": (lambda: (KEYS, upper(KEYS, 30)), CASE, 30),
    "UUIDs without hyphens": (
        lambda: (
            [key.replace("-", "") for key in upper(KEYS, 9)],
            [key.replace("-", "") for key in KEYS],
        ),
        CASE,
        9,
    ),
    "two cases, neither of them lower": (
        lambda: (
            [*(key.upper() for key in KEYS[:5]), *KEYS[5:]],
            [*(key[:4] + key[4:].upper() for key in KEYS[:5]), *KEYS[5:]],
        ),
        CASE,
        5,
    ),
}


@pytest.mark.parametrize("memory", ["1GiB", 1 << 20])
@pytest.mark.parametrize("form", SPELLED)
def test_ids_that_differ_only_by_their_spelling_are_counted(
    make_run: MakeRun, form: str, memory: Any
) -> None:
    make, by, n = SPELLED[form]
    ours, theirs = make()
    order = np.random.default_rng(0).permutation(60)
    run = make_run("run", T, W, item_ids=ours)
    reference = make_run("reference", T[order], item_ids=[theirs[i] for i in order])
    says = (
        rf"run\.zarr/items and .*reference\.zarr/items: {n} ids differ only by (their|the) {by}"
        r" \('.*' and '.*'\)"
    )
    with pytest.warns(es.EmbstabWarning, match=says) as caught:
        fitted = es.fit(run, reference=reference, min_matched=4, join_memory=memory)
    assert len(caught) == 1
    assert str(caught[0].message).isascii(), "forms that look alike are told apart"
    figures = fitted.diagnostics["items"]
    assert figures["matched"] == 60 - n
    assert [(key.endswith(by), count) for key, count in figures["differ_only_by"].items()] == [
        (True, n)
    ]


def test_where_no_id_is_shared_the_error_says_why(refused: Refused) -> None:
    for ours, theirs, says in ((decomposed(NAMES, 60), NAMES, FORM), (upper(KEYS, 60), KEYS, CASE)):
        with refused(
            es.IdError, "share no id", f"60 ids differ only by the.* {says}", "write them alike"
        ):
            es.fit(es.table(T, ids=ours), W, reference=es.table(T, ids=theirs))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (NAMES, [*NAMES[:50], *(f"thé-{i}" for i in range(10))]),
        (KEYS, [*KEYS[:50], *(str(uuid.UUID(int=i)) for i in range(10))]),
        ([f"Item-{i}" for i in range(60)], [f"Item-{i + 5}" for i in range(60)]),
        ([f"A{i}" for i in range(60)], [f"a{i}" if i < 5 else f"A{i}" for i in range(60)]),
        (decomposed(NAMES, 60), [*decomposed(NAMES[:50], 50), *KEYS[:10]]),
    ],
)
def test_ids_that_differ_otherwise_are_no_news(ours: Any, theirs: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the rows agree with their reference rows no better")
        fitted = es.fit(es.table(T, ids=ours), W, reference=es.table(T, ids=theirs))
    assert fitted.diagnostics["items"]["differ_only_by"] == {}


def test_what_is_held_in_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask_embstab.tables.ids.spelling._MOST", 10)
    with pytest.raises(es.IdError, match="at least 10 ids differ only by"):
        es.fit(es.table(T, ids=decomposed(NAMES, 60)), W, reference=es.table(T, ids=NAMES))


@given(st.text())
def test_a_canonical_text_is_canonical(text: str) -> None:
    form = canonical(text)
    assert canonical(form) == form
    assert all(
        canonical(unicodedata.normalize(name, text)) == form
        for name in ("NFC", "NFD", "NFKC", "NFKD")
    )


UUIDS = [f"aaaaaaaa-bbbb-cccc-dddd-{n:012x}" for n in range(60)]


@pytest.mark.parametrize("asked", ["upper", "lower"])
def test_only_says_which_of_its_ids_differ_by_their_spelling(asked: str) -> None:
    T, _ = world(3)
    stored = [text.upper() if asked == "lower" else text for text in UUIDS]
    tables = es.table(T, ids=stored), es.table(T + 0.1 * world(4)[0], ids=stored)
    alike, other = (
        stored[:30],
        [text.swapcase() if text.islower() else text.lower() for text in stored[30:]],
    )
    with pytest.warns(es.EmbstabWarning, match="30 ids differ only by the case of a UUID"):
        fitted = es.fit(tables[0], reference=tables[1], only=[*alike, *other])
    assert fitted.diagnostics["items"]["aligned"] == 30
    with pytest.raises(
        es.IdError, match=r"1 of 1 ids are in no row.*differs only by its spelling from"
    ):
        tables[0].rows_of([other[0]])
    np.testing.assert_array_equal(tables[0].rows_of([alike[3]]), T[3:4])


@pytest.mark.parametrize(
    "write", [str, str.upper, lambda text: text.replace("-", ""), lambda text: f"{{{text}}}"]
)
def test_texts_of_uuids_are_read_where_a_table_has_uuids(write: Any) -> None:
    T, _ = world(3)
    ids = [uuid.UUID(text) for text in UUIDS]
    tables = es.table(T, ids=ids), es.table(T + 0.1 * world(4)[0], ids=ids)
    asked = [write(text) for text in UUIDS[:40]]
    expected = es.fit(tables[0], reference=tables[1], only=ids[:40])
    np.testing.assert_array_equal(
        es.fit(tables[0], reference=tables[1], only=asked).items, expected.items
    )
    np.testing.assert_array_equal(tables[0].rows_of(asked), T[:40])
    paired = es.fit(tables[0], reference=tables[1], pairs=(asked, asked))
    np.testing.assert_allclose(paired.items, expected.items, atol=1e-12)
    with pytest.raises(es.IdError, match="uuid"):
        es.fit(tables[0], reference=tables[1], only=["no uuid"])
