"""Which ids have no partner, and would have one if they were spelled alike? Unicode normal forms,
UUIDs in another case.

They are other ids and are not matched; but nobody means them to be. Only ids without a partner are
looked at, first those of a few ranges of either table: where each of these is in the one normal
form, nothing more is read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from dask_embstab.tables.ids.ids import ID_RANGE, Ids, RowNumberIds
from dask_embstab.tables.ids.row_index import RowIndex

_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}")
_SAMPLED_RANGES = 4
_MOST = 1 << 18
"""Spellings of either table that are held in memory."""
_REPAIR = {
    "their Unicode normal form": "unicodedata.normalize('NFC', id)",
    "the case of a UUID": "str(uuid.UUID(id))",
}
_FORM, _CASE = _REPAIR


@dataclass(frozen=True, slots=True)
class Unmatched:
    """The ids of a table that have no partner in ``partners``."""

    ids: Ids | RowNumberIds
    partners: RowIndex

    def texts(self, *, sampled: bool = False) -> Iterator[list[str]]:
        """They, a range at a time; of a few ranges alone where they are ``sampled``."""
        reader, starts = self.ids.open(), range(0, len(self.ids), ID_RANGE)
        for start in starts[:: -(-len(starts) // _SAMPLED_RANGES)] if sampled else starts:
            stop = min(start + ID_RANGE, len(self.ids))
            alone = self.partners.take(start, stop) < 0
            if alone.any():
                yield reader.take(start, stop)[alone].tolist()


@dataclass(frozen=True, slots=True)
class Difference:
    """``n`` ids of two tables differ only ``by`` something (at least so many where not all were
    ``counted``).
    """

    by: str
    n: int
    ours: str
    theirs: str
    counted: bool

    def __str__(self) -> str:
        """As a message says it."""
        least = "" if self.counted else "at least "
        return (
            f"{least}{self.n:,} ids differ only by {self.by} ({self.ours!a} and {self.theirs!a})"
            f" and are not matched; write them alike in both, {_REPAIR[self.by]}"
        )


def canonical(text: str) -> str:
    """The text in one Unicode normal form; a UUID in lower case."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return plain.lower() if _UUID.fullmatch(plain) else plain


def spellings(text: str) -> list[str]:
    """How else the text may have been written: in the other normal forms; a UUID in either case."""
    forms = {unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    forms |= {text.lower(), text.upper()} if _UUID.fullmatch(text) else set()
    return sorted(forms - {text})


def differences(ours: Unmatched, theirs: Unmatched) -> list[Difference]:
    """What keeps ids of two tables apart that would otherwise match; nothing where all are spelled
    canonically.
    """
    if not any(_odd(texts, {}) for side in (ours, theirs) for texts in side.texts(sampled=True)):
        return []

    odd: tuple[dict[str, str], dict[str, str]] = {}, {}
    for side, spellings in zip((ours, theirs), odd, strict=True):
        for texts in side.texts():
            _odd(texts, spellings)

    pairs = chain(
        ((odd[0][text], text) for text in _texts_among(theirs, odd[0])),
        ((text, odd[1][text]) for text in _texts_among(ours, odd[1])),
        ((odd[0][form], odd[1][form]) for form in odd[0].keys() & odd[1].keys()),
    )
    return _count_differences(pairs, is_all=max(map(len, odd)) < _MOST)


def _odd(texts: list[str], spellings: dict[str, str]) -> dict[str, str]:
    """Those that are not spelled canonically, by their canonical form; most ranges show at a glance
    that none is.
    """
    glance = "".join(texts)
    if glance.isascii() and glance == glance.lower():
        return spellings
    for text in texts:
        if len(spellings) < _MOST and (form := canonical(text)) != text:
            spellings[form] = text
    return spellings


def _texts_among(side: Unmatched, forms: dict[str, str]) -> Iterator[str]:
    return (
        (text for texts in side.texts() for text in texts if text in forms) if forms else iter(())
    )


def _count_differences(pairs: Iterable[tuple[str, str]], *, is_all: bool) -> list[Difference]:
    counts: dict[str, int] = dict.fromkeys(_REPAIR, 0)
    examples: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        by = _CASE if all(text.isascii() for text in pair) else _FORM
        counts[by] += 1
        examples.setdefault(by, pair)
    return [
        Difference(by, counts[by], mine, known, is_all) for by, (mine, known) in examples.items()
    ]
