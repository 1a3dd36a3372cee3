"""Of what was each chunk of an interrupted write made? A record of fixed length per chunk, in a
file beside the table.

A chunk is taken over only where its record is whole, says the digest of what it is to be made of,
and tells the checksums that its files have. So a chunk that was torn, zeroed, flipped, exchanged,
or made of an input that has changed since is written anew. Tasks write their own records, wherever
they run; one that a power cut took is a chunk that is made again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import crc32c
import numpy as np

from dask_embstab.tables.read.source import Digests
from dask_embstab.tables.read.stored.chunk_files import ChunkFiles, open_chunk
from dask_embstab.tables.read.stored.shards import OpenShard
from dask_embstab.tables.read.stored.stored_bytes import checksum_of, read_checksum

_RECORD = np.dtype([("made_of", "<u8"), ("checksums", "<u4", 3), ("check", "<u4")])
_CHECK_BYTES = 4


@dataclass(frozen=True, slots=True)
class Recovered:
    """Chunks that an earlier call left whole: what each was made of, and the checksums of its
    vectors (of codes, where there are no vectors).
    """

    made_of: dict[int, int]
    digests: Digests


@dataclass(frozen=True, slots=True)
class Journal:
    """The records of one table, in the file at ``path``; ``arrays`` are those whose chunks they
    tell of, three at most.

    ``origin`` stands for what the whole write is made of.
    """

    path: str
    arrays: tuple[ChunkFiles, ...]
    origin: int

    def record(self, made_of: Mapping[int, int | None], *checksums: Digests) -> None:
        """Note the chunks that a task has written, with their checksums in every array."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            for chunk, origin in made_of.items():
                if origin is not None:
                    data = _encoded(chunk, origin, [digests[chunk] for digests in checksums])
                    os.pwrite(descriptor, data, chunk * _RECORD.itemsize)
        finally:
            os.close(descriptor)

    def recovered(self, chunks: Iterable[int]) -> Recovered | None:
        """These chunks, where all of them are recorded and their files are what was recorded."""
        recovered = Recovered({}, {})
        for chunk in chunks:
            data = np.fromfile(self.path, _RECORD, 1, offset=chunk * _RECORD.itemsize)
            if not len(data):
                return None
            origin, crcs = int(data["made_of"][0]), data["checksums"][0].tolist()
            if data.tobytes() != _encoded(chunk, origin, crcs):
                return None
            if not all(
                _is_whole(files, chunk, crc) for files, crc in zip(self.arrays, crcs, strict=False)
            ):
                return None
            recovered.made_of[chunk], recovered.digests[chunk] = origin, crcs[0]

        return recovered


def made_of(
    digests: Digests, input_rows: int, chunks: Iterable[int], chunk_rows: int, n_rows: int
) -> dict[int, int | None]:
    """A number for the input chunks that the rows of an output chunk lie in; None where one of them
    has no digest.

    Chunks hold ``input_rows`` rows in the input and ``chunk_rows`` in the output, of ``n_rows`` in
    all.
    """
    numbers: dict[int, int | None] = {}
    for chunk in chunks:
        first, last = chunk * chunk_rows, min((chunk + 1) * chunk_rows, n_rows)
        read = [
            digests.get(number) for number in range(first // input_rows, -(-last // input_rows))
        ]
        numbers[chunk] = None if None in read else number_of(input_rows, first, read)
    return numbers


def number_of(*parts: Any) -> int:
    """64 bits that differ where the parts do."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little")


def _encoded(chunk: int, origin: int, crcs: list[int]) -> bytes:
    record = np.zeros(1, _RECORD)
    record["made_of"], record["checksums"][0, : len(crcs)] = origin, crcs
    record["check"] = crc32c.crc32c(f"{chunk} ".encode() + record.tobytes()[:-_CHECK_BYTES])
    return record.tobytes()


def _is_whole(files: ChunkFiles, chunk: int, crc: int) -> bool:
    """Whether a chunk's file is there, as long as it should be, and has this checksum, stored and
    computed.
    """
    try:
        opened = open_chunk(files, chunk)
    except OSError:
        return False
    if opened is None:
        return False
    try:
        if isinstance(opened, OpenShard):
            opened.verify()
            return opened.stored_checksum() == opened.source.stored_checksum() == crc
        whole = read_checksum(opened, files.data_bytes) == crc
        return whole and checksum_of(opened, 0, files.data_bytes) == crc
    except OSError:
        return False
    finally:
        opened.close()
