"""Decode what a stranger compressed into no more bytes than its metadata allows.

A few megabytes of gzip become gigabytes. Decoders of the standard library are stopped at the
allowed size; formats that say how long their contents are (Blosc, Zstandard, LZ4) are asked before
they are decoded; Pcodec fills what it is given. Codecs that keep the size of their input need no
bound.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import numcodecs
import numpy as np

from dask_embstab.errors import DamageError
from dask_embstab.extras import require_extra

_SLACK_BYTES = 1 << 16
MOST_TEXT_BYTES = 1 << 10
"""Bytes that a text may take on the average of its chunk: metadata does not say."""
_FEW_TEXT_BYTES = 1 << 20
"""What a chunk of few texts may take all the same: one of them may be long."""
LENGTH_BYTES = 4
"""Before each text stands its length."""
_TEXT_TIMES = 1 << 11
"""Texts become so many times their compressed bytes at most: ids differ, the longest by a byte."""
_ZSTD_MAGIC, _ZSTD_SKIPPED, _ZSTD_BLOCK = 0xFD2FB528, 0x184D2A5, 128 << 10
_LZMA_DICTIONARIES = 96 << 20
"""What a decoder holds besides its output: the dictionary of the strongest preset is 64 MiB."""
_BLOSC_HEADER = 16
_GZIP, _ZLIB = 31, 15
"""What zlib calls these formats."""
_INFLATED_BYTES = 256 << 10
"""Of gzip that are decoded at a time: what they become is copied while it is in the cache."""
Decoder = Callable[[Any, memoryview, int, int | None], Any]


def most_text_bytes(n_texts: int) -> int:
    """What the texts of a chunk of so many may take."""
    return max(n_texts * MOST_TEXT_BYTES, _FEW_TEXT_BYTES)


def allowed_bytes(n_values: int, dtype: np.dtype[Any], n_encoded: int | None = None) -> int:
    """What a chunk of so many values may take when it is decoded, and between its codecs: some add
    a little. Of texts that no metadata tells the length of, ``n_encoded`` bytes say more.
    """
    is_text = dtype.kind in "OT"
    size = most_text_bytes(n_values) if is_text else n_values * dtype.itemsize
    if is_text and n_encoded is not None:
        size = min(size, n_values * LENGTH_BYTES + _TEXT_TIMES * n_encoded)
    return size + size // 8 + _SLACK_BYTES


def decode_into(compression: str, data: memoryview, out: np.ndarray[Any, Any]) -> None:
    """Decode into an array of just the right size, by the library of the codec that has this name
    in numcodecs; ValueError where it is another size.
    """
    if compression in ("gzip", "zlib"):
        _inflate(data, memoryview(out.reshape(-1).view(np.uint8)), one=compression == "zlib")  # type: ignore[arg-type]
    elif compression == "pcodec":
        _decompress_numbers(data, out.reshape(-1))
    elif compression == "blosc":
        _require_exact(_blosc_size(data), out.nbytes)  # less would leave what stood there before
        numcodecs.Blosc().decode(data, out=out)
    else:
        codec = numcodecs.Zstd()
        codec.decode(data, out=out)  # not more, and just so much where no frame tells its size
        claimed, _ = _zstd_header(data)
        if claimed not in (None, out.nbytes):  # of the first frame
            _require_exact(len(codec.decode(data)), out.nbytes)


def _inflate(data: memoryview, out: memoryview, *, one: bool) -> None:
    """Members of gzip one after another, or ``one`` stream of zlib."""
    at = 0
    while len(data):
        decoder = zlib.decompressobj(_ZLIB if one else _GZIP)
        for start in range(0, len(data), _INFLATED_BYTES):
            stop = min(start + _INFLATED_BYTES, len(data))
            inflated = decoder.decompress(data[start:stop], len(out) - at + 1)
            _require(at + len(inflated), len(out))
            out[at : at + len(inflated)] = inflated
            at += len(inflated)
            if decoder.eof:
                break
        if not decoder.eof:
            raise ValueError("compressed data ended before its end was reached")
        data = data[stop - len(decoder.unused_data) :]
        if one or not any(data[:4]):  # zeros may pad a file
            break
    _require_exact(at, len(out))


def _decompress_numbers(data: memoryview, out: np.ndarray[Any, Any]) -> None:
    codec = require_extra("pcodec", "pcodec", what="decoding the codec pcodec")
    done = codec.standalone.simple_decompress_into(bytes(data), out)
    if done.n_processed != out.size or not done.finished:
        raise ValueError(f"it becomes other than {out.size} numbers, as the metadata says")


def decode_bounded(codec: Any, data: Any, allowed: int, exact: int | None = None) -> Any:
    """What the numcodecs ``codec`` makes of ``data``; ValueError where that is more than
    ``allowed`` bytes.

    ``exact``: its size, where only one is right.
    """
    plain: Any = np.ascontiguousarray(data)
    return DECODERS[codec.codec_id](codec, memoryview(plain).cast("B"), allowed, exact)


def require_count(encoded: Any, n_values: int) -> None:
    """Raise where more texts are claimed than the metadata allows, or than the bytes can hold:
    before each of them stands its length.
    """
    data = memoryview(encoded).cast("B")
    claimed = int.from_bytes(data[:LENGTH_BYTES], "little")
    if claimed > n_values:
        raise ValueError(f"it claims {claimed} texts and the metadata allows {n_values}")
    if LENGTH_BYTES * claimed > len(data) - LENGTH_BYTES:
        raise ValueError(f"it claims {claimed} texts and its {len(data)} bytes hold fewer")


def require_encoded_size(size: int, allowed: int, what: str) -> None:
    """Raise where a file is longer than what it holds may be: it would be read into memory as it
    is.
    """
    if size > allowed:
        raise DamageError(
            f"{what} has {size} bytes and {allowed} may stand there at most; restore it from its"
            " source"
        )


def _require(size: int, allowed: int) -> None:
    if size > allowed:
        raise ValueError(f"it becomes {size} bytes or more and the metadata allows {allowed}")


def _require_exact(size: int, expected: int) -> None:
    if size != expected:
        raise ValueError(f"it becomes {size} bytes and the metadata says {expected}")


def _members(start: Callable[[], Any], *, one: bool = False) -> Decoder:
    """Decode members (streams) one after another, as files of gzip, bz2 and xz have them."""

    def decode(codec: Any, data: memoryview, allowed: int, exact: int | None) -> bytes:
        del codec, exact
        parts, size = [], 0
        while len(data):
            decoder = start()
            parts.append(decoder.decompress(data, allowed + 1 - size))
            size += len(parts[-1])
            _require(size, allowed)
            if not decoder.eof:
                raise ValueError("compressed data ended before its end was reached")
            data = memoryview(decoder.unused_data)
            if one or not any(data[:4]):  # zeros may pad a file
                break

        return b"".join(parts)

    return decode


def _lzma(codec: Any, data: memoryview, allowed: int, exact: int | None) -> Any:
    limit = None if codec.format == lzma.FORMAT_RAW else allowed + _LZMA_DICTIONARIES

    def start() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(codec.format, memlimit=limit, filters=codec.filters)

    return _members(start)(codec, data, allowed, exact)


def _claimed_by(header: Callable[[memoryview], int]) -> Decoder:
    def decode(codec: Any, data: memoryview, allowed: int, exact: int | None) -> Any:
        del exact
        _require(header(data), allowed)
        return codec.decode(data)

    return decode


def _blosc_size(data: memoryview) -> int:
    """What the header says; it is not taken for granted that all that it speaks of is there."""
    if len(data) < _BLOSC_HEADER or int.from_bytes(data[12:16], "little") > len(data):
        raise ValueError("compressed data ended before its end was reached")
    return int.from_bytes(data[4:8], "little")


def _zstd(codec: Any, data: memoryview, allowed: int, exact: int | None) -> Any:
    claimed, _ = _zstd_header(data)
    if claimed is None and exact is not None:
        return codec.decode(data, out=np.empty(exact, np.uint8))
    _require(_zstd_bound(data), allowed if claimed is not None else allowed + _ZSTD_BLOCK)
    return codec.decode(data)


def _zstd_header(data: memoryview) -> tuple[int | None, int]:
    """The size that the first frame says its contents have, and where its blocks begin (RFC 8878,
    3.1.1.1); frames of somebody's own, which hold none, may stand before it.
    """
    first = _behind_skipped(data, 0)
    if int.from_bytes(data[first : first + 4], "little") != _ZSTD_MAGIC:
        raise ValueError("this is no frame of Zstandard")

    flags = data[first + 4]
    single, size_flag = flags >> 5 & 1, flags >> 6
    at = first + 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[size_flag]
    claimed = (
        int.from_bytes(data[at : at + length], "little") + (256 if length == 2 else 0)
        if length
        else None
    )
    return claimed, at + length


def _behind_skipped(data: memoryview, at: int) -> int:
    """Where the next frame that is decoded begins (RFC 8878, 3.1.2)."""
    while int.from_bytes(data[at : at + 4], "little") >> 4 == _ZSTD_SKIPPED:
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    return at


def _zstd_bound(data: memoryview) -> int:
    """What all frames can become at most: what they claim, else what their blocks can."""
    total, at = 0, 0
    while (at := _behind_skipped(data, at)) < len(data):
        claimed, start = _zstd_header(data[at:])
        checksum, bound, last = data[at + 4] >> 2 & 1, 0, False
        at += start
        while not last:
            header = int.from_bytes(data[at : at + 3], "little")
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            bound += _ZSTD_BLOCK if kind == 2 else size
            at += 3 + (1 if kind == 1 else size)
            if at > len(data):
                raise ValueError("compressed data ended before its end was reached")
        at += 4 * checksum
        total += bound if claimed is None else claimed

    return total


DECODERS: dict[str, Decoder] = {
    "gzip": _members(lambda: zlib.decompressobj(_GZIP)),
    "zlib": _members(zlib.decompressobj, one=True),
    "bz2": _members(bz2.BZ2Decompressor),
    "lzma": _lzma,
    "blosc": _claimed_by(_blosc_size),
    "lz4": _claimed_by(lambda data: int.from_bytes(data[:4], "little")),
    "zstd": _zstd,
}
"""By the name that numcodecs gives a codec."""
