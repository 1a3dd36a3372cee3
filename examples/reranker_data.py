"""What a downstream re-ranker of a web shop is trained on: slates of items that customers may buy
in the week after a run, labels, and features with and without a run's vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from adapters import Adam
from numpy.typing import NDArray
from papers import Rows
from webshop import Events, Week

OTHERS, DOZEN = 40, 12
AGES = ("in the first run", "0 to 3", "4 and more")


@dataclass(frozen=True)
class Slates:
    """Candidates of every customer who buys in the week after a run, customer by customer.

    Candidate k is row ``items[k]`` for row ``users[k]`` of the run's tables; ``labels`` (n, 2): was
    it bought, and were that a dozen pieces; ``plain`` (n, 4) features without vectors; ``starts``
    are where customers begin; ``ages`` number the groups of `AGES`.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    labels: Rows
    plain: Rows
    starts: NDArray[np.int64]
    ages: NDArray[np.int64]


def first_runs(events: Events, known: list[Week]) -> NDArray[np.int64]:
    """The number of the first run that has an item, by the item's number in the events."""
    born = np.full(len(events.item_ids), len(known))
    for number in range(len(known) - 1, -1, -1):
        born[np.searchsorted(events.item_ids, known[number].item_ids)] = number
    return born


def slates(
    events: Events, week: Week, born: NDArray[np.int64], number: int, *, seed: int
) -> Slates:
    """All items that a customer of the run buys within seven days of its end, and 40 others drawn
    by their popularity.
    """
    end = date.fromisoformat(week.name).toordinal() + 1
    user, item = (
        positions(ids, of)[numbers]
        for ids, of, numbers in (
            (events.user_ids, week.user_ids, events.users),
            (events.item_ids, week.item_ids, events.items),
        )
    )
    known = (user >= 0) & (item >= 0)
    counts = week.interactions.toarray()
    after = known & (events.days >= end) & (events.days < end + 7)
    assert events.pieces is not None, "the shop says how many pieces"
    pieces = np.zeros(counts.shape)
    np.add.at(pieces, (user[after], item[after]), events.pieces[after])
    before = known & (events.days >= end - 7) & (events.days < end)
    recent = np.bincount(item[before], minlength=counts.shape[1])

    rng = np.random.default_rng((seed, 6, number))
    customers = np.flatnonzero(pieces.any(axis=1))
    popularity = counts.sum(axis=0)
    drawn = rng.choice(
        counts.shape[1], (len(customers), OTHERS), p=popularity / popularity.sum(dtype=np.float64)
    )
    candidate = pieces[customers] > 0
    np.put_along_axis(candidate, drawn, values=True, axis=1)
    lines, items = np.nonzero(candidate)
    users = customers[lines]
    bought = pieces[users, items]
    plain = (popularity[items], counts.sum(axis=1)[users], counts[users, items], recent[items])
    first = born[np.searchsorted(events.item_ids, week.item_ids)][items]
    return Slates(
        users,
        items,
        np.column_stack([bought > 0, bought >= DOZEN]).astype(np.float64),
        np.log1p(np.column_stack(plain).astype(np.float64)),
        np.flatnonzero(np.diff(lines, prepend=-1)),
        np.where(first == 0, 0, np.where(number - first < 4, 1, 2)),
    )


def positions(ids: NDArray[np.str_], of: NDArray[np.str_]) -> NDArray[np.int64]:
    """Where every one of ``ids`` stands in ``of``, -1 where it does not; both ascending."""
    positions = np.full(len(ids), -1)
    positions[np.searchsorted(ids, of)] = np.arange(len(of))
    return positions


def features(of: Slates, vectors: tuple[Rows, Rows] | None) -> Rows:
    """Features of every candidate: the plain ones, then the item's vector, the user's, and their
    products component by component.
    """
    if vectors is None:
        return of.plain
    v, u = vectors[0][of.items], vectors[1][of.users]
    return np.hstack([of.plain, v, u, u * v])


class Reranker:
    """A network of one hidden layer that scores both labels, trained by Adam on their log loss."""

    def __init__(
        self, x: Rows, labels: Rows, *, seed: int, hidden: int = 32, epochs: int = 15
    ) -> None:
        rng = np.random.default_rng((seed, 7))
        self.mean, self.scale = x.mean(axis=0), x.std(axis=0) + 1e-9
        x = self.scaled(x)
        self.weights = [
            rng.standard_normal((x.shape[1], hidden)) / np.sqrt(x.shape[1]),
            np.zeros(hidden),
            rng.standard_normal((hidden, labels.shape[1])) / np.sqrt(hidden),
            np.log(labels.mean(axis=0) + 1e-6),
        ]
        steps = Adam(self.weights, rate=3e-3)
        for _ in range(epochs):
            for batch in np.array_split(rng.permutation(len(x)), max(1, len(x) // 256)):
                layer = np.tanh(x[batch] @ self.weights[0] + self.weights[1])
                error = (self.probability(layer) - labels[batch]) / len(batch)
                back = error @ self.weights[2].T * (1 - layer**2)
                decay = 1e-4 * self.weights[0]
                gradients = [x[batch].T @ back + decay, back.sum(axis=0)]
                steps.take([*gradients, layer.T @ error, error.sum(axis=0)])

    def scaled(self, x: Rows) -> Rows:
        """Features in the mean and deviation of the training week, cut at 5 of these."""
        return np.asarray(np.clip((x - self.mean) / self.scale, -5, 5))

    def probability(self, layer: Rows) -> Rows:
        """Of either label."""
        return np.asarray(1 / (1 + np.exp(-(layer @ self.weights[2] + self.weights[3]))))

    def scores(self, x: Rows) -> Rows:
        """Of every candidate and label, (n, 2)."""
        layer = np.tanh(self.scaled(x) @ self.weights[0] + self.weights[1])
        return np.asarray(layer @ self.weights[2])


def mean_ndcg(scores: Rows, gains: Rows, starts: NDArray[np.int64]) -> float | None:
    """Mean nDCG of whole slates, over those with a gain; None where there are none."""
    slate = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(scores)))
    sums = []
    for order_by in (scores, gains):
        order = np.lexsort((-order_by, slate))
        place = np.arange(len(scores)) - starts[slate]
        discounted = gains[order] / np.log2(place + 2)
        sums.append(np.add.reduceat(discounted, starts))
    gained, best = sums
    return float(np.mean(gained[best > 0] / best[best > 0])) if best.any() else None
