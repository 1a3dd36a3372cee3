"""The texts of a chunk that Zarr stores by vlen-utf8, without an object for each.

Before every text stands its length, so that where one begins is known of the one before alone. A
length that is not zero ends in two bytes that are, and texts hold no such byte: so all lengths are
found at once, and they are believed where they lead from one to the next, from the first byte to
the last. What does not is decoded by Zarr, as are chunks of other codecs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec, VLenUTF8Codec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from dask_embstab.core.types import RowNumbers
from dask_embstab.errors import EmbstabError
from dask_embstab.tables.ids.texts import Bytes, Texts, padded, pieces_of
from dask_embstab.tables.read.bounded import LENGTH_BYTES
from dask_embstab.tables.read.chunk_layout import require_visible
from dask_embstab.tables.read.guarded import Counted
from dask_embstab.tables.read.stored.files import OpenChunk
from dask_embstab.tables.store_errors import reading
from dask_embstab.tables.stores.run_files import CHECKSUM_BYTES

_SEARCHED = 1 << 18
"""Bytes of a chunk that are searched at a time."""
_WORD = 8
_NOT_ASCII, _NOT_ASCII_BYTE = np.uint64(0x8080808080808080), 0x80
_CONTINUES, _CONTINUED = 0xC0, 0x80
"""In UTF-8, the bits of a byte that tell whether it goes on with a character, and how."""


def stored_texts(array: zarr.Array[Any], number: int, n: int, *, what: str) -> Texts | None:
    """The first ``n`` texts of one chunk; None where only Zarr can decode them, or tell what is
    wrong with them.
    """
    if (texts := _read_texts(array, number, n, what)) is None:
        encoded = _encoded(array, number, what)
        texts = None if encoded is None else parsed(encoded, n)
    fill = str(array.fill_value or "").encode()
    # A chunk of nothing but its fill value is no chunk of ids: Zarr's reader says so.
    return None if texts is None or (n and texts.at(0) == fill) else texts


def _read_texts(array: Any, number: int, n: int, what: str) -> Texts | None:
    """The same of a chunk file that holds texts and their checksum and nothing else, without a
    copy; None where it does not, or is not whole.
    """
    codecs, store = _byte_codecs(array), array.store
    kinds = [type(codec) for codec in codecs or ()]
    if kinds not in ([Crc32cCodec], [Counted, Crc32cCodec]) or not isinstance(store, LocalStore):
        return None
    key = f"{array.path}/{array.metadata.encode_chunk_key((number,))}"
    most, recorded = (getattr(store, name, None) for name in ("most_bytes", "recorded"))
    try:
        chunk = OpenChunk.at(str(Path(store.root, key)), what)
    except (OSError, EmbstabError):
        return None
    try:
        size = chunk.size - CHECKSUM_BYTES
        if size <= LENGTH_BYTES or (most is not None and chunk.size > most):
            return None
        # Texts begin at a multiple of eight bytes, and have eight behind them.
        data = np.empty(LENGTH_BYTES + chunk.size + _WORD, np.uint8)
        encoded: Any = data[LENGTH_BYTES : LENGTH_BYTES + chunk.size]
        chunk.read_into(memoryview(encoded), 0)
    finally:
        chunk.close()
    checksum = int.from_bytes(encoded[size:].tobytes(), "little")
    if recorded is not None:
        recorded.require_chunk(key, checksum, chunk.path)
    if crc32c.crc32c(memoryview(encoded[:size])) != checksum:
        return None
    return _parsed(encoded[:size], data[2 * LENGTH_BYTES :], n)


def first_texts(array: zarr.Array[Any], n: int, *, what: str) -> list[bytes] | None:
    """The first ``n`` texts of an array's first chunk, one after another; None as above."""
    if (encoded := _encoded(array, 0, what)) is None:
        return None
    texts, at = [], LENGTH_BYTES
    for _ in range(min(n, array.chunks[0], array.shape[0])):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(encoded[at:start].tobytes(), "little")
        texts.append(encoded[start:at].tobytes())
    return texts if at <= len(encoded) else None


def store_texts(array: zarr.Array[Any], number: int, texts: Texts) -> None:
    """Write texts as one chunk of an array that has the codecs of this library's own: behind the
    last one stand empty ones.
    """
    codecs = _byte_codecs(array)
    assert codecs is not None, "texts of a table are written by vlen-utf8"
    n_empty = array.chunks[0] - len(texts)
    packed = texts.packed(LENGTH_BYTES)
    lengths = packed.length.astype("<u4").view(f"V{LENGTH_BYTES}")
    pieces_of(packed.data, LENGTH_BYTES)[packed.begin - LENGTH_BYTES] = lengths
    size = len(texts) * LENGTH_BYTES + int(packed.length.sum())
    count = np.array(array.chunks[:1], "<u4").view(np.uint8)
    parts = count, packed.data[:size], np.zeros(n_empty * LENGTH_BYTES, np.uint8)
    sync(_set(array, number, codecs, np.concatenate(parts)))


def _byte_codecs(array: Any) -> tuple[BytesBytesCodec, ...] | None:
    """What the encoded texts of an array's chunks go through; None where these are no such."""
    first, *rest = array.async_array.codec_pipeline
    is_plain = isinstance(first, VLenUTF8Codec)
    return tuple(rest) if is_plain and all(isinstance(c, BytesBytesCodec) for c in rest) else None


def _chunk(array: Any, number: int) -> tuple[Any, ArraySpec]:
    """Where a chunk lies, and what Zarr's codecs are told of it."""
    metadata, inner = array.metadata, array.async_array
    spec = metadata.dtype, metadata.fill_value, inner.config, default_buffer_prototype()
    key = metadata.encode_chunk_key((number,))
    return inner.store_path / key, ArraySpec(array.chunks, *spec)


def _encoded(array: zarr.Array[Any], number: int, what: str) -> Any:
    """A chunk before its texts are decoded; None where it is missing, or has other codecs."""
    if (codecs := _byte_codecs(array)) is None:
        return None
    with reading(what):
        require_visible(array)
        return sync(_get(array, number, codecs))


async def _get(array: Any, number: int, codecs: tuple[BytesBytesCodec, ...]) -> Any:
    place, spec = _chunk(array, number)
    buffer = await place.get(spec.prototype)
    for codec in reversed(codecs):
        if buffer is not None:
            (buffer,) = await codec.decode([(buffer, spec)])
    return None if buffer is None else buffer.as_numpy_array()


async def _set(array: Any, number: int, codecs: tuple[BytesBytesCodec, ...], data: Any) -> None:
    place, spec = _chunk(array, number)
    buffer: Any = spec.prototype.buffer.from_array_like(data)
    for codec in codecs:
        (buffer,) = await codec.encode([(buffer, spec)])
    await place.set(buffer)


def parsed(encoded: Any, n: int) -> Texts | None:
    """The first ``n`` of the texts in a chunk, all others empty; None where lengths do not lead
    from one to the next, or what stands between them is no UTF-8.
    """
    return _parsed(encoded, None, n)


def _parsed(encoded: Any, room: Bytes | None, n: int) -> Texts | None:
    """The same; ``room``: these bytes from the first text on, and eight behind them."""
    claimed = int.from_bytes(encoded[:LENGTH_BYTES].tobytes(), "little")
    stop = len(encoded) - LENGTH_BYTES * (claimed - n)
    if not 0 < n <= claimed or stop <= LENGTH_BYTES or encoded[stop:].any():
        return None
    size = stop - LENGTH_BYTES
    data = padded(encoded[LENGTH_BYTES:stop]) if room is None else room[: size + _WORD]
    if (at := _equal_steps(data, size, n)) is None:
        at = _lengths_at(data, size)
    if len(at) != n or at[0]:
        return None
    length = np.ndarray((len(data) - 1,), "<u2", data, 0, (1,))[at].astype(np.int64)
    begin = at + LENGTH_BYTES
    ends = begin + length
    if not np.array_equal(ends[:-1], at[1:]) or ends[-1] != size:
        return None
    texts = Texts(begin, length, data)
    words, rest = data[: size & -_WORD].view(np.uint64), data[size & -_WORD : size]
    is_ascii = not (np.bitwise_or.reduce(words) & _NOT_ASCII or (rest & _NOT_ASCII_BYTE).any())
    return texts if is_ascii or _are_utf8(texts) else None


def _equal_steps(data: Bytes, size: int, n: int) -> RowNumbers | None:
    """Where the lengths stand if all are the first one; None where they are not, or have more than
    two bytes.
    """
    if size % n or not data[:2].any() or data[2:LENGTH_BYTES].any():
        return None
    heads = np.ndarray((n,), "<u4", data, 0, (size // n,))
    return np.arange(0, size, size // n) if bool((heads == heads[0]).all()) else None


def _lengths_at(data: Bytes, size: int) -> RowNumbers:
    """Where lengths of two bytes stand, if no text holds a zero and none is empty."""
    lengths = []
    for start in range(0, size - LENGTH_BYTES, _SEARCHED):
        part = data[start : min(start + _SEARCHED, size - LENGTH_BYTES) + LENGTH_BYTES]
        zero = part == 0
        ends = zero[2:-2] & zero[3:-1]
        ends &= ~zero[4:]
        lengths.append(start + np.flatnonzero(ends))
    return np.concatenate(lengths) if lengths else np.empty(0, np.int64)


def _are_utf8(texts: Texts) -> bool:
    packed = texts.packed()
    if bool(((packed.data[packed.begin] & _CONTINUES) == _CONTINUED).any()):
        return False
    try:
        packed.data.tobytes().decode()
    except UnicodeDecodeError:
        return False
    return True
