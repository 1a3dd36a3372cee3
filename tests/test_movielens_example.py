"""The example on MovieLens ratings, on a log of its form that the test makes."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import movielens_series
import numpy as np
import pytest


def log(place: Path, form: str) -> Path:
    """Eighty users who rate forty movies over 100 days, in the form of a release."""
    rng, between = np.random.default_rng(0), {"tab": "\t", "csv": ",", "dat": "::"}[form]
    lines = (
        ["userId,movieId,rating,timestamp"]
        if form == "csv"
        else ["user\tmovie\tscore\ttid"] * (form == "tab")
    )
    for user in range(80):
        for movie in rng.choice(40, 25, replace=False):
            seconds = 874_724_710 + int(rng.integers(0, 100 * 86_400))
            lines.append(between.join(map(str, (user, movie, 3, seconds))))
    place.write_text("\n".join(lines) + "\n")
    return place


@pytest.mark.parametrize("form", ["tab", "csv", "dat"])
def test_every_form_of_the_log_is_read(tmp_path: Path, form: str) -> None:
    events = movielens_series.read_ratings(log(tmp_path / "log", form))
    assert (len(events.days), len(events.user_ids), len(events.item_ids)) == (2000, 80, 40)
    sizes = [step.interactions.sum() for step in movielens_series.steps(events, 20)]
    assert len(sizes) == 3
    assert sizes == sorted(sizes)


def test_a_long_log_begins_with_more_days_and_ends_after_some_steps(tmp_path: Path) -> None:
    events = movielens_series.read_ratings(log(tmp_path / "log", "csv"))
    steps = list(movielens_series.steps(events, 10, first_days=50, most=3))
    days = [date.fromisoformat(step.name).toordinal() + 1 - events.days.min() for step in steps]
    assert days == [50, 60, 70]
