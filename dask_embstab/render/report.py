"""A report: plain values, and the page that shows them."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from dask_embstab.display import Displayed
from dask_embstab.files.atomic import write_whole
from dask_embstab.render.figures import plain
from dask_embstab.render.html import Html, Section, Verdict, content, page, style_sheet
from dask_embstab.render.pair_page import pair_sections, pair_verdict
from dask_embstab.render.run_page import run_sections, run_verdict
from dask_embstab.render.series_page import series_sections, series_verdict

_PAGES = {
    "series": (series_verdict, series_sections),
    "runs": (pair_verdict, pair_sections),
    "run": (run_verdict, run_sections),
}
_TITLES = {"series": "Series", "runs": "Two runs:", "run": "Stabilized run"}


class Report(Displayed):
    """How a series, two runs or a stabilized run are doing: it shows itself in a notebook.

    Equal values give an equal page, byte for byte; no row of a table is in it.

    Examples
    --------
    >>> import numpy as np
    >>> import dask_embstab as es
    >>> rows = np.random.default_rng(0).normal(size=(50, 4))
    >>> report = es.report(rows, rows)
    >>> report.to_dict()["well"]
    True
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values: dict[str, Any] = plain(values)

    def _facts(self) -> Mapping[str, object]:
        return {
            self._values["kind"]: self._values["name"],
            "well": self.well,
            "verdict": self.verdict,
        }

    @property
    def well(self) -> bool:
        """Whether all is well."""
        return bool(self._values["well"])

    @property
    def verdict(self) -> str:
        """The same in one line."""
        return _PAGES[self._values["kind"]][0](self._values).line

    @property
    def html(self) -> Html:
        """The whole page, as one document."""
        return page(self._title, *self._parts())

    def save(self, path: str | os.PathLike[str], *, sync: bool = True) -> None:
        """Write the page at ``path``, over what stood there, whole or not at all.

        With ``sync`` it is on the disk when the call returns.

        Examples
        --------
        >>> series.report().save(folder / "report.html")
        >>> (folder / "report.html").read_text()[:15]
        '<!DOCTYPE html>'
        """
        data = self.html.encode()
        write_whole(path, lambda file: file.write(data), sync=sync)

    def to_dict(self) -> dict[str, Any]:
        """Every number of the page as plain values, as ``embstab report --json`` prints them.

        Examples
        --------
        >>> series.report().to_dict()["kind"]
        'series'
        """
        return copy.deepcopy(self._values)

    def _repr_html_(self) -> str:
        """The page in a notebook."""
        # Ids of elements must be unique in the notebook, which may show several reports.
        own = hashlib.sha256(json.dumps(self._values).encode()).hexdigest()[:8]
        return style_sheet() + content(self._title, *self._parts(f"e{own}-"))

    @property
    def _title(self) -> str:
        return f"{_TITLES[self._values['kind']]} {self._values['name']}"

    def _parts(self, prefix: str = "f") -> tuple[tuple[Section, ...], Verdict]:
        """What is below the title; ids of elements begin with ``prefix``."""
        verdict, sections = _PAGES[self._values["kind"]]
        return sections(self._values, prefix), verdict(self._values)
