"""How the objects of the library print: one short line, and a small table in a notebook."""

from __future__ import annotations

import html
from abc import abstractmethod
from collections.abc import Mapping

from dask_embstab.repairs import printable

_LONGEST = 120


class Displayed:
    """An object that prints as its class and a few facts; what it holds is neither read nor written
    out.
    """

    __slots__ = ()

    @abstractmethod
    def _facts(self) -> Mapping[str, object]:
        """What to show, by name, in order; None is left out."""

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self._shown().items())
        return f"{type(self).__name__}({facts})"

    def _repr_html_(self) -> str:
        """The same as a table."""
        lines = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self._shown().items()
        )
        return f"<strong>{type(self).__name__}</strong><table>{lines}</table>"

    def _shown(self) -> dict[str, str]:
        facts = {
            name: printable(str(value))
            for name, value in self._facts().items()
            if value is not None
        }
        return {
            name: text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
            for name, text in facts.items()
        }
