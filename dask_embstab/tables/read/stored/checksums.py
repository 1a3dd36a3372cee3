"""The crc32c of parts one behind another, from those of the parts: nothing is read twice.

crc(A + B) = L(crc(A)) ^ crc(B), where L is linear over GF(2) and depends on the length of B alone
(the method of zlib's ``crc32_combine``). L is applied by four look-ups, one for each byte.
"""

from __future__ import annotations

from functools import lru_cache

import crc32c

_POLYNOMIAL = 0x82F63B78
_ONE = 1 << 31
"""The polynomial 1: bits are reflected."""
_BLOCK_BYTES = 1 << 20


class Appended:
    """The checksum of A + B, from that of A and that of B, for every B of one length."""

    def __init__(self, n_bytes: int) -> None:
        factor, square = _ONE, _ONE >> 8  # x^(8 n), by repeated squares of x^8
        while n_bytes:
            if n_bytes & 1:
                factor = _product(square, factor)
            n_bytes >>= 1
            square = _product(square, square)

        bits = [_product(factor, 1 << bit) for bit in range(32)]
        self._tables = []
        for byte in range(4):
            table = [0]
            for bit in bits[8 * byte : 8 * byte + 8]:
                table += [entry ^ bit for entry in table]
            self._tables.append(table)

    def __call__(self, before: int, crc: int) -> int:
        """That of A + B; ``before`` is that of A, ``crc`` that of B."""
        a, b, c, d = self._tables
        return (
            a[before & 255] ^ b[before >> 8 & 255] ^ c[before >> 16 & 255] ^ d[before >> 24] ^ crc
        )


def _product(a: int, b: int) -> int:
    """The product of two polynomials modulo that of crc32c."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@lru_cache(maxsize=64)
def appended(n_bytes: int) -> Appended:
    """The same object for the same length."""
    return Appended(n_bytes)


@lru_cache(maxsize=64)
def repeated(value: bytes, times: int) -> int:
    """The checksum of a value that stands so many times."""
    block = value * min(times, max(1, _BLOCK_BYTES // len(value)))
    left, crc = times * len(value), 0
    while left:
        crc = crc32c.crc32c(memoryview(block)[:left], crc)
        left -= min(left, len(block))
    return crc
