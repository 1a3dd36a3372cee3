"""Texts without an object for each are the texts that they were, however they are chosen, moved,
stored and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from oracle import world

import dask_embstab as es
from dask_embstab.tables.coerce import as_table
from dask_embstab.tables.ids import ids as stored_ids
from dask_embstab.tables.ids.keys import keyed, read_keyed, stable_order
from dask_embstab.tables.ids.stored_texts import parsed, store_texts
from dask_embstab.tables.ids.texts import Texts, joined_texts, texts_of

BYTES = st.lists(st.binary(max_size=20) | st.binary(min_size=8, max_size=8), max_size=20)
IDS = st.lists(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), min_size=1
)
MakeRun = Callable[..., es.Run]


def listed(texts: Texts) -> list[bytes]:
    return [texts.at(i) for i in range(len(texts))]


def encoded(texts: list[str]) -> Any:
    return np.frombuffer(numcodecs.VLenUTF8().encode(np.array(texts, object)), np.uint8)


@given(BYTES, st.randoms(use_true_random=False), st.integers(0, 4))
def test_chosen_packed_and_joined_texts_are_those_of_a_list(
    strings: list[bytes], random: Any, gap: int
) -> None:
    texts = texts_of(strings)
    order = np.array(random.sample(range(len(strings)), len(strings)), np.int64)
    chosen, other = texts.chosen(order), [strings[i] for i in order]
    assert listed(chosen.packed(gap)) == other
    assert listed(joined_texts([texts, chosen, chosen.packed(gap)])) == strings + other + other
    assert chosen.packed(gap).equal(chosen)
    assert chosen.equal(texts) == (other == strings)
    np.testing.assert_array_equal(chosen.packed(gap).keys(), texts.keys()[order])
    assert len(set(texts.keys().tolist())) == len(set(strings))


@given(BYTES, st.randoms(use_true_random=False))
def test_texts_in_cells_have_their_keys_and_differ_as_before(
    strings: list[bytes], random: Any
) -> None:
    texts = texts_of(strings).chosen(
        np.array(random.sample(range(len(strings)), len(strings)), int)
    )
    cells, keys = texts.in_cells()
    np.testing.assert_array_equal(keys, texts.keys())
    encoded_texts = [
        (len(s), s) if len(s) > 15 else (16, s.ljust(15, b"\0") + bytes([0xF0 + len(s)]))
        for s in listed(texts)
    ]
    assert [(len(s), s) for s in listed(cells)] == encoded_texts
    order = np.array(random.sample(range(len(strings)), len(strings) // 2), np.int64)
    for one in (texts, cells):
        moved = one.moved(order)
        assert listed(moved) == [listed(one)[i] for i in order]
        assert moved.equal_at(np.arange(len(order)), one, order)
        assert one.equal_at(order, one, order[::-1]) == (listed(moved) == listed(moved)[::-1])


@given(st.binary(min_size=16, max_size=16), st.text("ab\0\u00e9", max_size=9))
def test_a_cell_is_no_text_of_16_bytes(raw: bytes, text: str) -> None:
    cell, _ = texts_of([text.encode()[:15]]).in_cells()
    with pytest.raises(UnicodeDecodeError):
        cell.at(0).decode()
    assert texts_of([raw]).in_cells()[0].at(0) == raw


@given(IDS, st.integers(0, 3))
def test_stored_texts_are_those_that_zarr_decodes(texts: list[str], n_empty: int) -> None:
    result = parsed(encoded(texts + [""] * n_empty), len(texts))
    assert result is not None
    assert listed(result) == [text.encode() for text in texts]


@given(st.lists(st.text(max_size=3), min_size=1), st.binary(max_size=3), st.integers(0, 40))
def test_what_lengths_do_not_lead_through_is_left_to_zarr(
    texts: list[str], more: bytes, cut: int
) -> None:
    whole = encoded(texts)
    result = parsed(whole, len(texts))
    assert result is None or listed(result) == [text.encode() for text in texts]
    for data in (
        np.append(whole, np.frombuffer(more, np.uint8)),
        whole[: max(4, len(whole) - cut)],
    ):
        if len(data) != len(whole):
            assert parsed(data, len(texts)) is None


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\xc3", b"a\x80"])
def test_bytes_that_are_no_utf_8_are_left_to_zarr(raw: bytes) -> None:
    data = encoded(["ab", "c"])
    data = np.frombuffer(data.tobytes().replace(b"ab", (raw + b"z")[:2]), np.uint8)
    assert parsed(data, 2) is None


def test_a_character_is_not_cut_in_two() -> None:
    data = np.frombuffer(encoded(["ab", "cd"]).tobytes().replace(b"b", b"\xc3"), np.uint8)
    data = np.frombuffer(data.tobytes().replace(b"c", b"\xa9"), np.uint8)
    assert parsed(data, 2) is None


def test_texts_of_64_kilobytes_and_many_blocks_are_found() -> None:
    texts = ["x" * 65535, "y" * 256, *(f"item-{i}" for i in range(50_000)), "z" * 65536]
    result = parsed(encoded(texts[:-1]), len(texts) - 1)
    assert result is not None
    assert listed(result) == [text.encode() for text in texts[:-1]]
    assert parsed(encoded(texts), len(texts)) is None


@pytest.mark.parametrize("compressors", [None, zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()])
def test_texts_are_stored_as_zarr_stores_them(tmp_path: Path, compressors: Any) -> None:
    texts, arrays = ["b", "äöü", "", "c" * 300, "dd"], []
    for name in "ab":
        array = zarr.create_array(
            tmp_path / name, shape=5, chunks=3, dtype=str, compressors=compressors
        )
        arrays.append(array)
    arrays[0][:] = texts
    for number in (0, 1):
        part = [text.encode() for text in texts[3 * number : 3 * number + 3]]
        store_texts(arrays[1], number, texts_of(part).chosen(np.arange(len(part))))
    assert arrays[1][:].tolist() == texts
    for number in "01":
        assert (tmp_path / "a/c" / number).read_bytes() == (tmp_path / "b/c" / number).read_bytes()


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
@pytest.mark.parametrize("odd", [None, "", "a\0b"])
def test_texts_of_parquet_are_read_as_bytes_and_odd_ones_as_objects(
    tmp_path: Path, kind: str, odd: str | None
) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    ids = [f"item-ä{i}" for i in range(50)]
    if odd is not None:
        ids[45] = odd
    column = pa.array(ids, pa.large_string() if kind == "large_string" else pa.string())
    rows = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(100, np.float32)), 2)
    written = column.dictionary_encode() if kind == "dictionary" else column
    place = tmp_path / "items.parquet"
    parquet.write_table(pa.table({"id": written, "vector": rows}), place, row_group_size=20)
    reader = as_table(place).row_ids.open()
    first = reader.texts(10, 30)
    assert listed(first) == [text.encode() for text in ids[10:30]]
    rest = reader.texts(30, 50)
    assert (rest is None) == (odd is not None)
    assert rest is None or listed(rest) == [text.encode() for text in ids[30:]]
    assert (
        read_keyed(reader, 30, 50).key.tolist()
        == keyed(np.array(ids[30:], object), 30).key.tolist()
    )
    assert reader.take(0, 50).tolist() == ids


@pytest.mark.parametrize("memory", ["8KiB", "1GiB"])
def test_no_object_is_made_of_ids_that_are_texts(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    items, _ = world(41)
    ids = np.array([f"item-ä{i}" for i in range(60)], object)
    order = np.random.default_rng(0).permutation(60)
    make_run("reference", items, item_ids=ids)
    make_run("run", items[order], item_ids=ids[order])
    monkeypatch.setattr("dask_embstab.passes.join.options._LEAST", 1)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("ids are made objects")

    monkeypatch.setattr(stored_ids.SlicedIds, "_load", never)
    out = es.stabilize(
        tmp_path / "run.zarr",
        tmp_path / "out.zarr",
        reference=tmp_path / "reference.zarr",
        join_memory=memory,
    )
    assert out.transform is not None
    assert out.transform.diagnostics["items"]["matched"] == 60
    monkeypatch.undo()
    assert out.items is not None
    assert zarr.open_array(tmp_path / "out.zarr/items/id")[:].tolist() == ids[order].tolist()


@given(
    st.lists(st.integers(0, 40) | st.integers((1 << 63) - 40, (1 << 63) - 1), max_size=80),
    st.integers(0, 1 << 60),
)
def test_keys_are_ordered_as_by_a_stable_sort(keys: list[int], bit: int) -> None:
    values = np.array(keys, np.uint64) ^ np.uint64(bit)
    np.testing.assert_array_equal(stable_order(values), np.argsort(values, kind="stable"))
