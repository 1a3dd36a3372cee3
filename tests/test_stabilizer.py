"""`dask_embstab.sklearn.Stabilizer` is an estimator as scikit-learn means it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from oracle import rotation, world
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import dask_embstab as es
from dask_embstab.sklearn import Stabilizer

T, W = world(0)
Q = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
REFERENCE = T @ Q


@parametrize_with_checks([Stabilizer(center=True)])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_it_transforms_as_fit_and_apply_do() -> None:
    estimator = Stabilizer(reference=REFERENCE).fit(T)
    np.testing.assert_allclose(estimator.transform(T), T @ rotation(T, REFERENCE), atol=1e-12)
    np.testing.assert_allclose(estimator.inverse_transform(REFERENCE), T, atol=1e-12)
    expected = es.fit(T, reference=REFERENCE).items
    np.testing.assert_array_equal(estimator.transform_.items, expected)
    single = estimator.transform(T.astype(np.float32))
    assert single.dtype == np.float32


def test_scores_need_users_and_offsets_are_undone() -> None:
    estimator = Stabilizer(keep="scores").fit(T, users=W)
    moved = estimator.transform(T) @ estimator.transform_.transform_users(W).T
    np.testing.assert_allclose(moved, T @ W.T, atol=1e-12)
    with pytest.raises(es.InputError, match="keep='scores' needs users"):
        Stabilizer(keep="scores").fit(T)
    centred = Stabilizer(reference=REFERENCE + 3, center=True).fit(T + 5)
    np.testing.assert_allclose(centred.inverse_transform(centred.transform(T)), T, atol=1e-12)


def test_labelled_rows_meet_by_their_labels() -> None:
    names = [f"i{n}" for n in range(60)]
    shuffled = np.random.default_rng(0).permutation(60)
    reference = pd.DataFrame(REFERENCE, index=names)
    rows = pd.DataFrame(T, index=names, columns=list("abcd")).iloc[shuffled]
    estimator = Stabilizer(reference=reference).set_output(transform="pandas").fit(rows)
    moved = estimator.transform(rows)
    assert list(moved.index) == list(rows.index)
    assert list(moved.columns) == [f"stabilizer{n}" for n in range(4)]
    assert list(estimator.feature_names_in_) == list("abcd")
    np.testing.assert_allclose(moved, REFERENCE[shuffled], atol=1e-12)


def test_clones_pipelines_and_grids(make_run: Any) -> None:
    run = make_run("run", REFERENCE)
    again = clone(Stabilizer(reference=run.path, width=5))
    assert again.get_params()["reference"] == run.path
    assert list(again.fit(T).get_feature_names_out()) == [f"stabilizer{n}" for n in range(5)]
    clone(Stabilizer(reference=run)).fit(T)
    chain = make_pipeline(StandardScaler(), Stabilizer(center=True)).fit(T)
    np.testing.assert_allclose(chain.inverse_transform(chain.transform(T)), T, atol=1e-12)
    grid = GridSearchCV(
        Stabilizer(), {"width": [4, 6]}, scoring=lambda fitted, X: fitted.transform(X).shape[1]
    )
    assert grid.fit(T).best_params_ == {"width": 6}


def test_without_scikit_learn_there_is_one_line_that_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import dask_embstab as es\n"
        "try:\n    import dask_embstab.sklearn\n"
        "except es.InputError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "dask_embstab.sklearn needs the package sklearn, which is not installed; pip install"
        " 'dask_embstab[sklearn]'\n"
    )
