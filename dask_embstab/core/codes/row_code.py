"""Either kind of code: fixed beforehand, or fitted once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dask_embstab.core.codes.code import Code
from dask_embstab.core.codes.product import ProductCode
from dask_embstab.core.codes.residual import ResidualCode
from dask_embstab.core.types import Matrix

RowCode = Code | ProductCode | ResidualCode


def turned(code: RowCode, M: Matrix) -> RowCode:
    """The code of rows x @ ``M``, (d, k) with orthonormal rows or columns, whose numbers are those
    of x: what is decoded is ``M`` times what the code gives back.
    """
    before = np.eye(code.d) if code.matrix is None else code.matrix
    return replace(code, d=M.shape[1], matrix=M.T @ before)


def renumbered(code: RowCode, old: RowCode) -> RowCode:
    """A product code whose entries have, as far as possible, the numbers of the ``old`` entries
    near to them: the assignment with the least sum of squared distances, part by part.

    Codes of other kinds, and of other parts or another matrix, are handed on: there is nothing to
    renumber.
    """
    if not isinstance(code, ProductCode) or not isinstance(old, ProductCode):
        return code
    alike = code.codebooks.shape == old.codebooks.shape
    if not alike or not np.array_equal(_matrix(code), _matrix(old)):
        return code
    from scipy.optimize import linear_sum_assignment  # takes longer than a small fit

    books = np.empty_like(code.codebooks)
    for part, (new, before) in enumerate(zip(code.codebooks, old.codebooks, strict=True)):
        apart = ((before[:, None, :].astype(np.float64) - new) ** 2).sum(axis=2)
        numbers, entries = linear_sum_assignment(apart)
        books[part][numbers] = new[entries]
    return replace(code, codebooks=books)


def _matrix(code: RowCode) -> Matrix:
    return np.eye(code.d) if code.matrix is None else code.matrix
