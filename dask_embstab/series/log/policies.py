"""Which version's run is the next one aligned to?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dask_embstab.series.log.log import Log
from dask_embstab.series.log.versions import Version


class Policy(Protocol):
    """A reference policy: a pure function of the log, so that whatever is rebuilt from the log is
    the same.
    """

    def __call__(self, log: Log) -> Version | None:
        """The version whose run is the reference; None where the run to come is the first."""


def first(log: Log) -> Version | None:
    """The first run, for ever."""
    return log.first


def previous(log: Log) -> Version | None:
    """The run that is live now (Zielnicki & Hsiao, section 3; Maystre et al.): a chain."""
    return log.head


def consensus(log: Log) -> Version | None:
    """The run that is live now stands for all before it: the next one is aligned to the running
    mean kept with it.
    """
    return log.head


POLICIES: Mapping[str, Policy] = {"consensus": consensus, "previous": previous, "first": first}


def reference_in(log: Log, policy: str) -> Version | None:
    """The version to align to, as it is to be read now."""
    reference = POLICIES[policy](log)
    return None if reference is None else log.located(reference)
