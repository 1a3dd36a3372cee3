"""`Stabilizer`: `fit` and its transform as a scikit-learn estimator, for pipelines and grids.

Only this module imports scikit-learn (1.6 or later).
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dask_embstab.api import fit, table
from dask_embstab.core.fit_transform import Keep
from dask_embstab.extras import require_extra
from dask_embstab.passes.fit.options import Balance, Method
from dask_embstab.tables.read.labels import labelled_rows
from dask_embstab.tables.transform import Transform

require_extra("sklearn", "sklearn", what="dask_embstab.sklearn")

from sklearn.base import (  # noqa: E402 (after the error that names the extra)
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_array, check_is_fitted, validate_data  # noqa: E402

__all__ = ["Stabilizer"]

_FLOATS = (np.float64, np.float32)
Array = npt.NDArray[Any]


class Stabilizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Rows of an embedding in the coordinate system of a reference.

    The options are those of `dask_embstab.fit`, and are checked when it is called. A frame whose
    index is no default one meets the reference's rows by these labels, other rows meet by their
    number. For tables beyond memory use `fit` and `apply`.

    Parameters
    ----------
    reference
        The run (or its path) or table of items to align to; None is the identity in geometry mode
        (with ``center``, minus the means), and standardizes in scores mode.
    keep, method, rank, width, balance, center, unit_rows, rotation_only, min_matched
        As `fit` takes them; ``keep="scores"`` needs the ``users`` at `Stabilizer.fit`.

    Attributes
    ----------
    transform_ : Transform
        What `fit` returned; ``transform_.save`` keeps it, ``transform_.transform_users`` is for the
        other table.
    n_features_in_, feature_names_in_
        As scikit-learn defines them.

    Examples
    --------
    >>> from dask_embstab.sklearn import Stabilizer
    >>> rows = tuesday.items.vectors.compute()
    >>> moved = Stabilizer(reference=monday.items.vectors.compute()).fit(rows).transform(rows)
    >>> moved.shape
    (200, 4)
    """

    def __init__(
        self,
        reference: Any = None,
        *,
        keep: Keep | None = None,
        method: Method = "auto",
        rank: int | None = None,
        width: int | None = None,
        balance: Balance | None = None,
        center: bool = False,
        unit_rows: bool = False,
        rotation_only: bool = False,
        min_matched: int | None = None,
    ) -> None:
        self.reference = reference
        self.keep = keep
        self.method = method
        self.rank = rank
        self.width = width
        self.balance = balance
        self.center = center
        self.unit_rows = unit_rows
        self.rotation_only = rotation_only
        self.min_matched = min_matched

    def fit(self, X: Any, y: Any = None, *, users: Any = None) -> Self:
        """Find the transform of the rows X (n, d); ``users`` is the other table, for scores."""
        del y
        rows = validate_data(self, X, dtype=_FLOATS)
        labels = labelled_rows(X, "items", "X").labels if hasattr(X, "index") else None
        options = self.get_params(deep=False)
        self.transform_: Transform = fit(table(rows, ids=labels, name="X"), users, **options)
        return self

    def transform(self, X: Any) -> Array:
        """Rows X (n, d) in the reference's coordinate system, (n, k), in their own float dtype."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=_FLOATS, reset=False)
        return self.transform_.transform_items(rows)

    def inverse_transform(self, X: Any) -> Array:
        """Rows X (n, k) of the reference's coordinate system as this model would have made them."""
        check_is_fitted(self)
        return self.transform_.inverse().transform_items(check_array(X, dtype=_FLOATS))

    @property
    def _n_features_out(self) -> int:
        return self.transform_.width

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
