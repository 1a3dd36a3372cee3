"""Either kind of code: fixed beforehand, or fitted once."""

from __future__ import annotations

from dask_embstab.core.codes.code import Code
from dask_embstab.core.codes.product import ProductCode

RowCode = Code | ProductCode
