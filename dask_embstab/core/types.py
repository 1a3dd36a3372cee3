"""Array types by the shape of what they hold; every small matrix of this library is float64."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float64]
"""A small float64 matrix, mostly (d, d)."""
Vector: TypeAlias = npt.NDArray[np.float64]
"""A float64 vector, mostly (d,)."""
Rows: TypeAlias = npt.NDArray[Any]
"""Row vectors as they are stored: (n, d) of float16, float32 or float64."""
RowNumbers: TypeAlias = npt.NDArray[np.int64]
"""Row numbers in a table, (n,); -1 stands for no row."""

EPS = float(np.finfo(np.float64).eps)
"""Unit of float64 rounding, 2.2e-16."""
