"""Alternating least squares: which factors of users and items explain counts of interactions.

With p = 1 where a user met an item and 0 elsewhere, and
confidence c = 1 + alpha * count, the loss is

    sum over all pairs of c (p - x'y)^2  +  regularization * (|X|^2 + |Y|^2).

For fixed items Y each user's minimum is x = (Y'Y + Y'(C - 1)Y + regularization)^-1 Y'C p, where C -
1 is sparse; and so for items.  Rotating X and Y together changes neither scores nor loss, so two
random starts end with nearly the same scores on axes that have nothing to do with each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

_BLOCK_BYTES = 1 << 24

Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True)
class Factors:
    """Factors of a matrix of interactions; score = ``users @ items.T``.

    Attributes
    ----------
    users
        float32, shape (n_users, components).
    items
        float32, shape (n_items, components).
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check that both tables have the same components."""
        if self.users.shape[1] != self.items.shape[1]:
            raise ValueError(
                f"factors must be equally wide, got {self.users.shape} and {self.items.shape}"
            )


def factorize(
    interactions: sparse.csr_array,
    *,
    components: int = 16,
    n_iterations: int = 10,
    regularization: float = 1.0,
    alpha: float = 1.0,
    n_cg_steps: int | None = None,
    seed: int,
) -> Factors:
    """Factorize counts of interactions as implicit feedback.

    Parameters
    ----------
    interactions
        Counts, at least 0, shape (n_users, n_items).
    components
        Columns of either factor.
    n_iterations
        Sweeps; each solves for all users, then for all items.
    regularization
        Weight of the squared norms.
    alpha
        Confidence gained with each event.
    n_cg_steps
        Steps of conjugate gradients towards each half-sweep's minimum, from where the sweep before
        it ended; the default is the minimum itself.
    seed
        Of the random start; same seed, same factors.

    Returns
    -------
    Factors
        float32, as is the arithmetic.

    Raises
    ------
    ValueError
        If ``components``, ``n_iterations`` or ``n_cg_steps`` is less than 1, or ``regularization``
        is not positive.

    References
    ----------
    Y. Hu, Y. Koren and C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM
    2008, doi:10.1109/ICDM.2008.22.  G. Takacs, I. Pilaszy and D. Tikk, "Applications of the
    conjugate gradient method for implicit feedback collaborative filtering", RecSys 2011,
    doi:10.1145/2043932.2043987.
    """
    if components < 1 or n_iterations < 1:
        raise ValueError(
            f"components and n_iterations must be positive, got {components} and {n_iterations}"
        )
    if regularization <= 0:
        raise ValueError(f"regularization must be positive, got {regularization}")
    if n_cg_steps is not None and n_cg_steps < 1:
        raise ValueError(
            f"n_cg_steps must be positive, or None for the exact solution, got {n_cg_steps}"
        )
    by_user = interactions.astype(np.float32)
    by_item = by_user.T.tocsr()
    rng = np.random.default_rng(seed)
    items = rng.standard_normal((by_user.shape[1], components), dtype=np.float32)
    users = np.zeros((by_user.shape[0], components), np.float32)
    loss: dict[str, float] = {"regularization": regularization, "alpha": alpha}

    def step(
        counts: sparse.csr_array, fixed: NDArray[np.float32], rows: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        if n_cg_steps is None:
            return half_step(counts, fixed, **loss)
        return descend(counts, fixed, rows, n_steps=n_cg_steps, **loss)

    for _ in range(n_iterations):
        users = step(by_user, items, users)
        items = step(by_item, users, items)
    return Factors(users, items)


def half_step(
    interactions: sparse.csr_array, fixed: NDArray[Real], *, regularization: float, alpha: float
) -> NDArray[Real]:
    """Minimize the loss over one side's rows while the other side stays fixed.

    Parameters
    ----------
    interactions
        Counts, shape (n, n_fixed); transposed to solve for items.
    fixed
        The other side, float32 or float64, shape (n_fixed, components).
    regularization, alpha
        As in `factorize`.

    Returns
    -------
    ndarray
        Shape (n, components), computed in the dtype of ``fixed``.  Memory is the packed outer
        products of ``fixed``, n_fixed x components (components + 1) / 2, plus a few blocks of 16
        MiB.
    """
    d = fixed.shape[1]
    upper = np.triu_indices(d)
    outer = fixed[:, upper[0]] * fixed[:, upper[1]]
    ridge = fixed.T @ fixed + regularization * np.eye(d, dtype=fixed.dtype)
    counts = interactions.astype(fixed.dtype)
    block_rows = max(1, _BLOCK_BYTES // ridge.nbytes)
    blocks = (counts[start : start + block_rows] for start in range(0, counts.shape[0], block_rows))
    return np.concatenate([_solve(block, alpha, fixed, outer, ridge) for block in blocks])


def descend(
    interactions: sparse.csr_array,
    fixed: NDArray[Real],
    rows: NDArray[Real],
    *,
    n_steps: int,
    regularization: float,
    alpha: float,
) -> NDArray[Real]:
    """Go some steps of conjugate gradients from ``rows`` towards what `half_step` solves for.

    Parameters
    ----------
    interactions, fixed, regularization, alpha
        As in `half_step`.
    rows
        Where to start, shape (n, components).
    n_steps
        As many as components end at the minimum.

    Returns
    -------
    ndarray
        Shape (n, components), computed in the dtype of ``fixed``.  Memory is twice ``components``
        numbers per interaction.
    """
    extra = interactions.astype(fixed.dtype) * fixed.dtype.type(alpha)
    ridge = fixed.T @ fixed + regularization * np.eye(fixed.shape[1], dtype=fixed.dtype)
    met, n_met = fixed[extra.indices], np.diff(extra.indptr)

    def times(vectors: NDArray[Real]) -> NDArray[Real]:
        """Each vector times its own row's matrix of the normal equations."""
        weighted = extra.data * np.einsum("nd,nd->n", np.repeat(vectors, n_met, axis=0), met)
        product: NDArray[Real] = (
            vectors @ ridge
            + type(extra)((weighted, extra.indices, extra.indptr), extra.shape) @ fixed
        )
        return product

    residual = (extra + extra.sign()) @ fixed - times(rows)
    direction, squares = residual, _squares(residual)
    for _ in range(n_steps):
        image = times(direction)
        step = _ratio(squares, np.sum(direction * image, axis=1, keepdims=True))
        rows = rows + step * direction
        residual = residual - step * image
        before, squares = squares, _squares(residual)
        direction = residual + _ratio(squares, before) * direction
    return rows


def _squares(rows: NDArray[Real]) -> NDArray[Real]:
    total: NDArray[Real] = np.sum(rows * rows, axis=1, keepdims=True)
    return total


def _ratio(above: NDArray[Real], below: NDArray[Real]) -> NDArray[Real]:
    """Zero where a row has arrived: its residual, and so its direction, is zero."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _solve(
    counts: sparse.csr_array,
    alpha: float,
    fixed: NDArray[Real],
    outer: NDArray[Real],
    ridge: NDArray[Real],
) -> NDArray[Real]:
    """Solve the normal equations of a block of rows."""
    extra = alpha * counts
    normal = (extra @ outer)[:, _unpacking(fixed.shape[1])] + ridge
    # p = 1 wherever there is an event, and its confidence there is 1 + extra.
    wanted = (extra + counts.sign()) @ fixed
    return np.linalg.solve(normal, wanted[:, :, None])[:, :, 0]


def _unpacking(d: int) -> NDArray[np.int64]:
    """Positions in a packed upper triangle of the entries of the symmetric matrix, shape (d, d)."""
    positions = np.zeros((d, d), np.int64)
    positions[np.triu_indices(d)] = np.arange(d * (d + 1) // 2)
    return np.maximum(positions, positions.T)
