"""A stranger's Zarr array, to be read without running his code and without more memory than his
metadata speaks of.

The array stays what it is, metadata and all; only the codecs that it is decoded by are others
(`tables/read/bounded.py`).
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numcodecs
import numpy as np
import zarr
from numcodecs.abc import Codec as Numcodec
from zarr.abc.codec import ArrayArrayCodec, ArrayBytesCodec, BytesBytesCodec, Codec
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.storage import LocalStore, StorePath

from dask_embstab.errors import InputError
from dask_embstab.tables.read.bounded import (
    DECODERS,
    allowed_bytes,
    decode_bounded,
    decode_into,
    require_count,
)
from dask_embstab.tables.read.recorded import RunStore

_OBJECTS = ("pickle", "json", "json2", "msgpack", "msgpack2", "categorize", "vlen-array")
_TEXTS = ("vlen-utf8", "vlen-bytes")
_SAME_SIZE = (
    "bytes",
    "crc32c",
    "crc32",
    "adler32",
    "fletcher32",
    "jenkins_lookup3",
    "shuffle",
    "transpose",
)
_FILTERS = ("delta", "fixedscaleoffset", "quantize", "bitround", "astype", "packbits", "base64")
"""They make as many values as they are given, of a type that their configuration names (packbits: 8
of a byte).
"""
_TYPES = ("dtype", "astype", "encode_dtype", "decode_dtype")
_NUMBERS = "pcodec"
_PREFIX = "numcodecs."
_INDEX_BYTES = 16
"""Of an inner chunk, in the index of a shard."""
_WIDEST = 16
"""Bytes of the widest value that a filter may make of one."""


def guarded(
    array: zarr.Array[Any], *, what: str, error: type[InputError] = InputError
) -> zarr.Array[Any]:
    """The array with bounded decoders and, in a folder, files no longer than any encoding of its
    chunks.

    Raises ``error`` where an object codec other than those of texts and bytes is among them (Pickle
    runs code), or a codec of which nobody knows before it is decoded how much it becomes, or a
    storage transformer (Zarr's groups open such arrays, and read them as if they had none).
    """
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        changes = _guarded_v2(metadata, what, error)
    else:
        if transformers := getattr(metadata, "storage_transformers", ()):
            raise error(
                f"{what} must be stored without storage transformers, which nobody has defined yet;"
                f" it names {transformers[0]}; write it again without"
            )
        codecs = _guarded_v3(metadata.codecs, what, error)
        changes = {} if codecs == tuple(metadata.codecs) else {"codecs": codecs}

    inner, path = array.async_array, _limited(array)
    is_zarr_s = type(inner.codec_pipeline).__module__.startswith("zarr.")
    if not is_zarr_s or (path is array.store_path and not changes):
        return array  # the pipeline of another library has decoders of its own

    made = zarr.AsyncArray(metadata, path, inner.config)
    if changes:
        other = copy.copy(metadata)
        for name, value in changes.items():
            object.__setattr__(other, name, value)
        object.__setattr__(
            made, "codec_pipeline", zarr.AsyncArray(other, path, inner.config).codec_pipeline
        )

    return zarr.Array(made)


def _limited(array: zarr.Array[Any]) -> StorePath:
    """Where the array lies: in a folder, that of a store that knows how long its chunk files may
    be.
    """
    store = array.store
    if not isinstance(store, RunStore) and type(store) is not LocalStore:
        return array.store_path
    n_values = math.prod(array.shards or array.chunks)
    most = allowed_bytes(n_values, array.dtype) + (_INDEX_BYTES * n_values if array.shards else 0)
    recorded = store.recorded if isinstance(store, RunStore) else None
    limited = RunStore(store.root, read_only=store.read_only, recorded=recorded, most_bytes=most)
    return StorePath(limited, array.path)


# --- Zarr v3


def _guarded_v3(codecs: Iterable[Any], what: str, error: type[InputError]) -> tuple[Codec, ...]:
    made: list[Codec] = []
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            inner = _guarded_v3(codec.codecs, what, error)
            guarded_ones = inner != tuple(codec.codecs)
            made.append(_sharding(_fields_of(codec) | {"codecs": inner}) if guarded_ones else codec)
            continue

        known = codec.to_dict()
        name = str(known["name"]).removeprefix(_PREFIX)
        # Zarr itself says what shape and type its own filters make.
        module = type(codec).__module__
        is_zarrs = module.startswith("zarr.codecs.") and "numcodecs" not in module
        if not (isinstance(codec, ArrayArrayCodec) and is_zarrs):
            _require_bounded(name, known.get("configuration") or {}, what, error)
        if isinstance(codec, BytesBytesCodec) and name not in _SAME_SIZE:
            made.append(_Bounded(codec))
        elif name == _NUMBERS:
            rounded = any("bitround" in str(before.to_dict()["name"]) for before in made)
            made.append(_BoundedNumbers(codec, rounded))
        else:
            made.append(codec)
            if isinstance(codec, ArrayBytesCodec) and name in _TEXTS:
                made.append(Counted())

    return tuple(made)


def _require_bounded(
    name: str, options: Mapping[str, Any], what: str, error: type[InputError]
) -> None:
    """Raise where what a codec makes of a chunk is not bounded by the metadata."""
    if name not in (*DECODERS, *_SAME_SIZE, *_TEXTS, *_FILTERS, _NUMBERS):
        raise error(
            f"{what} must be stored by codecs whose decoded size is known before; its chunks are"
            f" encoded by {name!r}, which may become anything; write it again without, e.g. by zstd"
        )

    wide = [
        str(options[key])
        for key in _TYPES
        if options.get(key) and np.dtype(options[key]).itemsize > _WIDEST
    ]
    if wide:
        raise error(
            f"filters of {what} must make values of at most {_WIDEST} bytes; {name!r} makes"
            f" {wide[0]}; write it again"
        )


class _GuardedSharding(ShardingCodec):
    """Shards of guarded inner chunks; Zarr's own pickles by the names of codecs, and these have
    none.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _sharding, (_fields_of(self),)


def _fields_of(codec: ShardingCodec) -> dict[str, Any]:
    return {field.name: getattr(codec, field.name) for field in fields(codec) if field.init}


def _sharding(values: dict[str, Any]) -> _GuardedSharding:
    return _GuardedSharding(**values)


class _PassedOn:
    """What a codec of this module leaves to the others, or to the ``inner`` one."""

    inner: Any
    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        """Never written."""
        return {"name": "embstab.guard", "configuration": {}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known beforehand."""
        raise NotImplementedError

    async def _encode_single(self, chunk_data: Any, chunk_spec: ArraySpec) -> Buffer | None:
        return await self.inner._encode_single(chunk_data, chunk_spec)  # type: ignore[no-any-return] # noqa: SLF001


@dataclass(frozen=True)
class _Bounded(_PassedOn, BytesBytesCodec):
    """A compressor that stops at the size of its chunk."""

    inner: BytesBytesCodec

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> _Bounded:
        """With the compressor for this array."""
        return replace(self, inner=self.inner.evolve_from_array_spec(array_spec))

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        n_values, dtype = math.prod(chunk_spec.shape), np.dtype(chunk_spec.dtype.to_native_dtype())
        allowed = allowed_bytes(n_values, dtype, len(chunk_data))
        exact = None if dtype.kind in "OT" else n_values * dtype.itemsize
        codec, data = _numcodec(self.inner), chunk_data.as_numpy_array()
        made = await asyncio.to_thread(decode_bounded, codec, data, allowed, exact)
        buffer: Buffer = chunk_spec.prototype.buffer.from_bytes(made)
        return buffer


@dataclass(frozen=True)
class _BoundedNumbers(_PassedOn, ArrayBytesCodec):
    """Pcodec, which fills a chunk and no more; bits that were rounded are whole numbers to it."""

    inner: ArrayBytesCodec
    rounded: bool

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        out: Any = np.empty(chunk_spec.shape, f"i{dtype.itemsize}" if self.rounded else dtype)
        data = memoryview(chunk_data.to_bytes())
        await asyncio.to_thread(decode_into, _NUMBERS, data, out)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(out)


@dataclass(frozen=True)
class Counted(_PassedOn, BytesBytesCodec):
    """Looks at texts before they are decoded: their number is the first that is taken for
    granted.
    """

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        require_count(chunk_data.as_numpy_array(), math.prod(chunk_spec.shape))
        return chunk_data

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        del chunk_spec
        return chunk_data


def _numcodec(codec: Any) -> Any:
    """The same codec of numcodecs, for decoding."""
    values = codec.to_dict()
    name, options = values["name"].removeprefix(_PREFIX), values.get("configuration", {})
    return numcodecs.get_codec(
        {"id": name} | (options if values["name"].startswith(_PREFIX) else {})
    )


# --- Zarr v2


def _guarded_v2(metadata: Any, what: str, error: type[InputError]) -> dict[str, Any]:
    filters, compressor = tuple(metadata.filters or ()), metadata.compressor
    for codec in (*filters, *(() if compressor is None else (compressor,))):
        if codec.codec_id in _OBJECTS or isinstance(codec, numcodecs.Pickle):
            raise error(
                f"{what} must be stored as numbers, texts or bytes; its chunks are encoded by"
                f" {codec.codec_id}, which makes objects of them (and may run code); write it again"
                " without, e.g. texts by vlen-utf8"
            )
        _require_bounded(codec.codec_id, codec.get_config(), what, error)

    n_values, dtype = math.prod(metadata.chunks), np.dtype(metadata.dtype.to_native_dtype())
    wide = (
        dtype if dtype.kind in "OT" or not filters else np.dtype(f"V{max(_WIDEST, dtype.itemsize)}")
    )
    exact = None if filters or dtype.kind in "OT" else n_values * dtype.itemsize
    if _NUMBERS in (c.codec_id for c in ((compressor, *filters) if filters else ()) if c):
        raise error(f"Pcodec must be the only codec of {what}; write it again without filters")
    changes: dict[str, Any] = {}
    if compressor is not None and compressor.codec_id not in _SAME_SIZE:
        changes["compressor"] = _BoundedV2(compressor, n_values, wide, exact)
    if any(codec.codec_id in (*_TEXTS, *DECODERS) for codec in filters):
        changes["filters"] = tuple(
            (
                _CountedV2(f, n_values)
                if f.codec_id in _TEXTS
                else _BoundedV2(f, n_values, wide, None)
                if f.codec_id in DECODERS
                else f
            )
            for f in filters
        )

    return changes


class _InsteadOf(Numcodec):  # type: ignore[misc]
    """Stands for another codec."""

    codec_id = "embstab.guard"

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def encode(self, buf: Any) -> Any:
        """As the other one."""
        return self.inner.encode(buf)

    def get_config(self) -> dict[str, Any]:
        """Of the other one."""
        config: dict[str, Any] = self.inner.get_config()
        return config


class _BoundedV2(_InsteadOf):
    """A compressor that stops at the size of its chunk."""

    def __init__(self, inner: Any, n_values: int, dtype: np.dtype[Any], exact: int | None) -> None:
        super().__init__(inner)
        self.n_values, self.dtype, self.exact = n_values, dtype, exact

    def decode(self, buf: Any, out: Any = None) -> Any:
        """No more than is allowed."""
        del out
        if self.inner.codec_id == _NUMBERS:
            numbers = np.empty(self.n_values, self.dtype)
            decode_into(_NUMBERS, memoryview(buf).cast("B"), numbers)
            return numbers
        allowed = allowed_bytes(self.n_values, self.dtype, memoryview(buf).nbytes)
        return decode_bounded(self.inner, buf, allowed, self.exact)


class _CountedV2(_InsteadOf):
    """Texts whose number is looked at first."""

    def __init__(self, inner: Any, n_values: int) -> None:
        super().__init__(inner)
        self.n_values = n_values

    def decode(self, buf: Any, out: Any = None) -> Any:
        """No more of them than the chunk has values."""
        require_count(np.frombuffer(buf, np.uint8), self.n_values)
        return self.inner.decode(buf, out)
