"""Maps of one embedding space to another that people use in place of a rotation, each fitted on
rows that both have.

A map has two parts, one for the rows of either space; all but canonical correlations leave the
second space as it is. `fit` methods take X (n, d) and Y (n, D), row i of one beside row i of the
other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from papers import Rows
from scipy import linalg

import dask_embstab as es

Map = Callable[[Rows], Rows]


@dataclass(frozen=True)
class Adapter:
    """Rows of the first space, and of the second, in one space; ``n_numbers`` are kept for that."""

    ours: Map
    theirs: Map
    n_numbers: int


def padded(rows: Rows, width: int) -> Rows:
    """Components of zeros up to a width."""
    return np.pad(rows, ((0, 0), (0, max(0, width - rows.shape[1]))))


def linear(W: Rows) -> Adapter:
    """Rows times a matrix."""
    return Adapter(lambda rows: np.asarray(rows @ W), lambda rows: rows, W.size)


def nothing(x: Rows, y: Rows, _seed: int) -> Adapter:
    """Both as they are, the narrower one padded."""
    width = max(x.shape[1], y.shape[1])
    return Adapter(lambda rows: padded(rows, width), lambda rows: padded(rows, width), 0)


def rotation(x: Rows, y: Rows, _seed: int) -> Adapter:
    """`es.fit` in geometry mode: the nearest rotation (Schonemann 1966)."""
    width = max(x.shape[1], y.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", es.EmbstabWarning)  # of few or hardly related rows
        transform = es.fit(x, reference=y, keep="geometry", width=width)
    return Adapter(
        transform.transform_items, lambda rows: padded(rows, width), transform.items.size
    )


def least_squares(x: Rows, y: Rows, _seed: int) -> Adapter:
    """The matrix W that minimizes |XW - Y|."""
    return linear(np.asarray(linalg.lstsq(x, y)[0]))


def ridge(x: Rows, y: Rows, seed: int) -> Adapter:
    """|XW - Y|^2 + strength |W|^2; a fifth of the rows chooses the strength, then all decide."""
    part = np.random.default_rng((seed, 3)).permutation(len(x))
    held, kept = part[: len(x) // 5], part[len(x) // 5 :]

    def solved(rows: np.ndarray, strength: float) -> Rows:
        gramian = x[rows].T @ x[rows]
        scale = strength * np.trace(gramian) / len(gramian)
        cross = x[rows].T @ y[rows]
        W: Rows = linalg.solve(gramian + scale * np.eye(len(gramian)), cross, assume_a="pos")
        return W

    strengths = 10.0 ** np.arange(-6, 2.5, 0.5)
    errors = [np.linalg.norm(x[held] @ solved(kept, s) - y[held]) for s in strengths]
    return linear(solved(part, float(strengths[int(np.argmin(errors))])))


def canonical_correlations(x: Rows, y: Rows, _seed: int) -> Adapter:
    """Both spaces in the components that correlate most, each weighted by the root of its
    correlation (Hotelling 1936), with a ridge of a thousandth of the mean energy.
    """
    roots = [
        linalg.cholesky(G + 1e-3 * np.trace(G) / len(G) * np.eye(len(G)))
        for G in (x.T @ x, y.T @ y)
    ]  # upper triangular R, R'R = G
    whitened = linalg.solve_triangular(roots[0], x.T @ y, trans=1)
    whitened = linalg.solve_triangular(roots[1], whitened.T, trans=1).T
    P, correlations, Zh = linalg.svd(whitened, full_matrices=False)
    A = linalg.solve_triangular(roots[0], P * np.sqrt(correlations))
    B = linalg.solve_triangular(roots[1], Zh.T * np.sqrt(correlations))
    return Adapter(
        lambda rows: np.asarray(rows @ A), lambda rows: np.asarray(rows @ B), A.size + B.size
    )


def mlp(x: Rows, y: Rows, seed: int, *, hidden: int = 256, most_epochs: int = 200) -> Adapter:
    """A ridge map and a hidden layer beside it, trained by Adam on what the ridge map leaves; the
    epoch with the least error on a fifth of the rows counts, and 10 without a lesser one end it.
    """
    rng = np.random.default_rng((seed, 4))
    base = ridge(x, y, seed)
    rest = y - base.ours(x)
    scale, size = (float(np.sqrt(np.mean(rows**2))) + 1e-300 for rows in (x, rest))
    rest /= size
    weights = [
        rng.standard_normal((x.shape[1], hidden)) / (scale * np.sqrt(x.shape[1])),
        np.zeros(hidden),
        np.zeros((hidden, y.shape[1])),
    ]
    part = rng.permutation(len(x))
    held, kept = part[: len(x) // 5], part[len(x) // 5 :]
    best, least = [w.copy() for w in weights], float(np.linalg.norm(rest[held]))
    steps, since_best = Adam(weights, rate=1e-3), 0
    for _ in range(most_epochs):
        for batch in np.array_split(rng.permutation(kept), max(1, len(kept) // 256)):
            layer = np.tanh(x[batch] @ weights[0] + weights[1])
            error = (layer @ weights[2] - rest[batch]) / len(batch)
            back = error @ weights[2].T * (1 - layer**2)
            steps.take([x[batch].T @ back, back.sum(axis=0), layer.T @ error])
        layer = np.tanh(x[held] @ weights[0] + weights[1])
        held_error, since_best = (
            float(np.linalg.norm(layer @ weights[2] - rest[held])),
            since_best + 1,
        )
        if held_error < least:
            best, least, since_best = [w.copy() for w in weights], held_error, 0
        if since_best == 10:
            break

    def mapped(rows: Rows) -> Rows:
        return np.asarray(base.ours(rows) + size * np.tanh(rows @ best[0] + best[1]) @ best[2])

    return Adapter(mapped, lambda rows: rows, base.n_numbers + sum(w.size for w in best))


class Adam:
    """Steps of Kingma & Ba, arXiv 1412.6980, on arrays that are changed in place."""

    def __init__(self, weights: list[Rows], *, rate: float) -> None:
        self.weights, self.rate, self.n = weights, rate, 0
        self.means = [np.zeros_like(w) for w in weights]
        self.squares = [np.zeros_like(w) for w in weights]

    def take(self, gradients: list[Rows]) -> None:
        """One step down."""
        self.n += 1
        for w, m, v, g in zip(self.weights, self.means, self.squares, gradients, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g**2 - v)
            w -= self.rate * (m / (1 - 0.9**self.n)) / (np.sqrt(v / (1 - 0.999**self.n)) + 1e-12)


ADAPTERS: dict[str, Callable[[Rows, Rows, int], Adapter]] = {
    "nothing": nothing,
    "rotation": rotation,
    "linear map": least_squares,
    "ridge map": ridge,
    "MLP": mlp,
    "CCA": canonical_correlations,
}
