"""word2vec (text and binary, fastText's .vec too) and GloVe: a word and its components per row,
also compressed by gzip. The words are the ids; a file is one piece.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, ClassVar

import numpy as np

from dask_embstab.core.types import Rows
from dask_embstab.errors import DamageError, InputError
from dask_embstab.tables.formats.arrays import ArrayInfo
from dask_embstab.tables.ids.kinds import decoded_texts

WORD, VECTOR = "word", "vector"
_HEADER = re.compile(rb"\s*(\d+)\s+(\d+)\s*")
_GZIP = b"\x1f\x8b"
_ROWS = 1 << 12
_MOST_WORD_BYTES = 1 << 16
_MOST_LINE_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Words:
    """`ArrayFormat` of words: float32 vectors, and the words."""

    any_row: ClassVar[bool] = False

    def arrays(self, path: str) -> Mapping[str, ArrayInfo]:
        """From the header; lines of GloVe, which has none, are counted."""
        with _opened(path) as file:
            _, n, d = _head(file, path)
            if n is None:
                n = 1 + sum(1 for line in file if line.strip())
        return {
            VECTOR: ArrayInfo((n, d), np.dtype(np.float32)),
            WORD: ArrayInfo((n,), np.dtype(object)),
        }

    def read(self, path: str, name: str, start: int, stop: int) -> Iterator[Rows]:
        """Rows from the start of the file on, or their words."""
        at = 0
        with _opened(path) as file:
            head, n, d = _head(file, path)
            if n is None:
                batches = _text(file, head, d, path)
            elif _is_text(path, d):
                batches = _text(file, b"", d, path)
            else:
                batches = _binary(file, d, path, stop)
            for words, rows in batches:
                end = at + len(words)
                # Where the header counts fewer rows than there are: none is left out in silence.
                if n is not None and end >= n and (end > n or file.read(2).strip()):
                    raise DamageError(
                        f"the header of {path} counts {n} rows, and more follow; restore it from"
                        " its source, or mend the header"
                    )
                last = min(len(words), stop - at)
                first = min(max(0, start - at), last)
                yield (rows if name == VECTOR else _texts(words, path, at))[first:last]
                at = end
                if at >= stop:
                    return


def _opened(path: str) -> IO[bytes]:
    with open(path, "rb") as file:  # noqa: PTH123
        is_compressed = file.read(2) == _GZIP
    return gzip.open(path) if is_compressed else open(path, "rb")  # type: ignore[return-value]  # noqa: PTH123


def _head(file: IO[bytes], path: str) -> tuple[bytes, int | None, int]:
    """The first line; the rows that it counts, None where it is a row itself; and components."""
    head = file.readline(_MOST_LINE_BYTES)
    match = _HEADER.fullmatch(head)
    n, d = (int(match[1]), int(match[2])) if match else (None, len(head.split()) - 1)
    if d < 1:
        raise InputError(
            f"a file of words has a word and numbers in every line; {path} begins with"
            f" {head[:40]!r}"
        )
    return head, n, d


def _is_text(path: str, d: int) -> bool:
    """Whether the line behind the header ends with as many numbers."""
    with _opened(path) as file:
        file.readline(_MOST_LINE_BYTES)
        parts = file.readline(_MOST_LINE_BYTES).split()
    try:
        return len([float(part) for part in parts[-d:]]) == d and len(parts) > d
    except ValueError:
        return False


def _text(file: IO[bytes], head: bytes, d: int, path: str) -> Iterator[tuple[list[bytes], Rows]]:
    row = 0
    lines = iter(lambda: file.readline(_MOST_LINE_BYTES), b"")
    pending = [head] if head else []
    while batch := [*pending, *islice(lines, _ROWS - len(pending))]:
        pending = []
        parts = [line.rstrip().rsplit(None, d) for line in batch if line.strip()]
        if bad := [i for i, part in enumerate(parts) if len(part) != d + 1]:
            raise _refused(
                path, row + bad[0], f"has {len(parts[bad[0]]) - 1} values and others {d}"
            )
        try:
            rows = np.array([part[1:] for part in parts], "S").astype(np.float32)
        except ValueError:
            bad = [i for i, part in enumerate(parts) if not _are_numbers(part[1:])]
            raise _refused(path, row + bad[0], "has values that are no numbers") from None
        yield [part[0] for part in parts], rows.reshape(-1, d)
        row += len(parts)


def _are_numbers(parts: list[bytes]) -> bool:
    try:
        return bool([float(part) for part in parts])
    except ValueError:
        return False


def _binary(file: IO[bytes], d: int, path: str, n_rows: int) -> Iterator[tuple[list[bytes], Rows]]:
    """A word, a space and 4 d bytes per row, with or without a line's end."""
    width, row = 4 * d, 0
    while row < n_rows:
        words: list[bytes] = []
        parts: list[bytes] = []
        for _ in range(min(_ROWS, n_rows - row)):
            words.append(_word(file, path, row + len(words)))
            parts.append(file.read(width))
            if len(parts[-1]) < width:
                raise DamageError(
                    f"{path} must have {n_rows} rows of {d} components; it ends in row"
                    f" {row + len(parts) - 1}; restore it from its source"
                )
        yield words, np.frombuffer(b"".join(parts), "<f4").reshape(-1, d)
        row += len(words)


def _word(file: Any, path: str, row: int) -> bytes:
    word = bytearray()
    while (sign := file.read(1)) != b" ":
        if not sign or len(word) > _MOST_WORD_BYTES:
            raise DamageError(f"{path} must have a word in row {row}; it has none; restore it")
        if sign != b"\n" or word:
            word += sign
    return bytes(word)


def _texts(words: list[bytes], path: str, row: int) -> Any:
    return decoded_texts(
        words,
        lambda at, error: (
            f"words must be texts in UTF-8; row {row + at} of {path} has another ({error})"
        ),
    )


def _refused(path: str, row: int, received: str) -> InputError:
    return InputError(
        f"every row must have a vector of one length; row {row} of {path} {received}; drop or"
        " repair such rows"
    )
