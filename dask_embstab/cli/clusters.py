"""``--cluster dask.yaml``: a cluster that one command starts and ends, by a class of Dask's own.

The file names the class and its arguments, and how many workers it shall have:

    class: dask_jobqueue.SLURMCluster
    arguments: {cores: 4, memory: 16GiB, walltime: "02:00:00"}
    adapt: {minimum: 1, maximum: 20}

Only classes of clusters in the packages of `PACKAGES` are made, whatever the file says.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from dask_embstab.arguments import shown
from dask_embstab.errors import InputError
from dask_embstab.extras import require_extra
from dask_embstab.files.place import local_path
from dask_embstab.files.regular import read_regular

PACKAGES = {
    "distributed": "",
    "dask_jobqueue": "jobqueue",
    "dask_kubernetes": "kubernetes",
    "coiled": "coiled",
}
"""Packages whose clusters are started, and the extra that brings each."""
_MOST_BYTES = 1 << 20
_WAIT = 300.0


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """What the file says. ``scale`` is a number of workers, or ``adapt`` the least and the most of
    them; ``wait`` are the seconds that the first worker may take.
    """

    path: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    scale: int | None = None
    adapt: Mapping[str, Any] | None = None
    wait: float = _WAIT


def read_cluster_file(place: Any) -> ClusterFile:
    """The file, checked; nothing is imported but the reader of YAML."""
    import yaml

    path = local_path(place)
    if path is None:
        raise InputError(f"a cluster is described in a local file; {shown(place)} came")
    try:
        text = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise InputError(
            f"a cluster is described by a file; {path} cannot be read ({error.strerror})"
        ) from error
    try:
        values = yaml.safe_load(text)
    except Exception as error:  # also what makes dates and numbers of its values raises
        raise InputError(f"{path} is no YAML ({' '.join(str(error).split())})") from error
    known = {"class", "arguments", "scale", "adapt", "wait"}
    if not isinstance(values, dict) or not {"class"} <= values.keys() <= known:
        raise InputError(
            f"a cluster is described by class, arguments, scale or adapt, and wait; {path} has"
            f" {shown(values)}"
        )
    name, arguments = values["class"], values.get("arguments") or {}
    scale, adapt, wait = values.get("scale"), values.get("adapt"), values.get("wait", _WAIT)
    if not isinstance(name, str) or name.partition(".")[0] not in PACKAGES or "." not in name:
        raise InputError(
            f"the class of a cluster is one of {', '.join(PACKAGES)}, such as"
            f" distributed.LocalCluster; {path} has {shown(name)}"
        )
    are_named = all(isinstance(one, dict | None) for one in (arguments, adapt))
    if not are_named or not all(isinstance(key, str) for key in (*arguments, *(adapt or ()))):
        raise InputError(f"arguments and adapt of {path} must be names and values")
    least, most = (adapt or {}).get("minimum", 0), (adapt or {}).get("maximum", math.inf)
    if not all(type(one) is int or one == math.inf for one in (least, most)) or not (
        0 <= least <= most > 0
    ):
        raise InputError(
            f"minimum and maximum of adapt are numbers of workers, from 0 and from 1 on, and the"
            f" first is at most the second; {path} has {shown(adapt)}"
        )
    if scale is not None and (type(scale) is not int or scale < 1 or adapt is not None):
        raise InputError(
            f"scale is a number of workers, from 1 on, and stands without adapt; {path} has"
            f" {shown(scale)}"
        )
    if type(wait) not in (int, float) or not 0 < wait < 1e6:
        raise InputError(f"wait is a number of seconds above 0; {path} has {shown(wait)}")
    return ClusterFile(str(path), name, arguments, scale, adapt, wait)


@contextlib.contextmanager
def started(file: ClusterFile) -> Iterator[Any]:
    """The cluster with its first worker, until the block ends."""
    from distributed import Client

    made = _class_of(file)
    with _one_error(file, "started with its arguments"):
        cluster = made(**file.arguments)
    with cluster, Client(cluster, set_as_default=False) as client:
        with _one_error(file, "scaled as it says"):
            if file.adapt is not None:
                cluster.adapt(**file.adapt)
            elif file.scale is not None:
                cluster.scale(file.scale)
        try:
            client.wait_for_workers(file.scale or 1, timeout=file.wait)
        except TimeoutError:
            raise InputError(
                f"{file.scale or 1} workers of {file.path} were waited for; after {file.wait} s"
                f" there are {len(client.nthreads())}; raise wait, or see why they do not start"
            ) from None
        with client.as_current():
            yield client


@contextlib.contextmanager
def _one_error(file: ClusterFile, what: str) -> Iterator[None]:
    """Whatever the class raises is one error."""
    try:
        yield
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise InputError(
            f"{file.name} of {file.path} could not be {what} ({type(error).__name__}: {why})"
        ) from error


def _class_of(file: ClusterFile) -> type[Any]:
    """The class that is named: a cluster of Dask's, of one of the known packages."""
    from distributed.deploy.cluster import Cluster

    package = file.name.partition(".")[0]
    if extra := PACKAGES[package]:
        require_extra(package, extra, what=f"{file.name} of {file.path}")
    module, _, name = file.name.rpartition(".")
    try:
        cluster = getattr(import_module(module), name, None)
    except ImportError:
        cluster = None
    if (
        not isinstance(cluster, type)
        or not issubclass(cluster, Cluster)
        or cluster.__module__.partition(".")[0] not in PACKAGES
    ):
        raise InputError(
            f"the class of a cluster is one of {', '.join(PACKAGES)}, such as"
            f" distributed.LocalCluster; {file.name} of {file.path} is none"
        )
    return cluster
