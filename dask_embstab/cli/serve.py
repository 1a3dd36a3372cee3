"""``embstab serve``: the vectors of a series over HTTP."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from typing import Any

from dask_embstab.cli.common import argument, command
from dask_embstab.cli.options import given, options
from dask_embstab.cli.streams import say

_MOST_PORT = 65535


@command(argument("series"), *options("serve"))
def serve(series: str, **chosen: Any) -> dict[str, Any]:
    """Serve SERIES over HTTP until it is interrupted (exit 0): transform, lookup and search, always
    of its newest version.

    Other hosts reach it (--host) only with a token, in the variable EMBSTAB_TOKEN.
    """
    from dask_embstab.errors import InputError
    from dask_embstab.extras import require_extra
    from dask_embstab.passes.engine.memory import bytes_of
    from dask_embstab.repairs import option
    from dask_embstab.serving.live import Live

    asked = given(chosen)
    host, port = asked.get("host", "127.0.0.1"), asked.get("port", 8765)
    if not 0 <= port <= _MOST_PORT:
        raise InputError(f"{option('port')} must be from 0 to {_MOST_PORT}; it is {port}")
    token = os.environ.get("EMBSTAB_TOKEN") or None
    if token is None and not _is_loopback(host):
        raise InputError(
            f"{option('host')} {host} lets other hosts in, which must carry a token; set"
            " EMBSTAB_TOKEN, or serve 127.0.0.1"
        )
    most = bytes_of(asked.get("most_bytes", "8MB"), option("most_bytes"))
    uvicorn = require_extra("uvicorn", "serve", what="the service")
    require_extra("starlette", "serve", what="the service")
    from dask_embstab.serving.app import Service, application

    with Live(series, every=asked.get("every", 1.0)) as live:
        app = application(Service(live, token, most))
        config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
        listening = config.bind_socket()
        listening.listen()  # from here on requests wait, so the address can be told
        port = listening.getsockname()[1]
        say(f"version {live.now().version} of {series} at http://{host}:{port}")
        # It finishes what it is asked, then raises the signal that ended it once more.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
        return {"series": series, "version": live.now().version, "reloads": live.reloads}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
