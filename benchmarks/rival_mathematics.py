"""What every rival computes after its reads: singular values to compare by, and the paper's
alignment from two factors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]


def singular_values(G: Matrix) -> Matrix:
    """Those of a table, descending, from its Gramian."""
    return np.sqrt(np.clip(np.linalg.eigvalsh(np.asarray(G, np.float64))[::-1], 0, None))


def cholesky_factor(G: Matrix) -> Matrix:
    """R with R' R = G."""
    return np.linalg.cholesky(np.asarray(G, np.float64)).T


def alignment_matrices(R_T: Matrix, R_W: Matrix, C: Matrix) -> tuple[Matrix, Matrix]:
    """The paper's two matrices from the factors of both tables and the items' cross-product with
    the reference.
    """
    U, s, Vh = np.linalg.svd(np.asarray(R_T, np.float64) @ np.asarray(R_W, np.float64).T)
    M_T, M_W = R_W.T @ Vh.T / np.sqrt(s), R_T.T @ U / np.sqrt(s)
    P, _, Zh = np.linalg.svd(M_T.T @ C)
    return M_T @ P @ Zh, M_W @ P @ Zh
