"""The ASGI application of ``embstab serve``: `answers` over HTTP, on Starlette.

POST /transform, /lookup and /search take a JSON object; GET /version, /health and /metrics take
nothing. Tokens, limits and status codes are here, what is answered is not.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dask_embstab.errors import (
    AccessError,
    DamageError,
    EmbstabError,
    IdError,
    SpaceError,
)
from dask_embstab.serving.answers import answer
from dask_embstab.serving.live import Live

_STATUS: tuple[tuple[type[EmbstabError], int], ...] = (
    (SpaceError, 409),
    (IdError, 404),
    (DamageError, 500),
    (AccessError, 503),
)
_POSTED = ("transform", "lookup", "search")
_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(slots=True)
class Served:
    """Counts of one process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    within: Counter[float] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, what: str, status: int, seconds: float) -> None:
        """One request more."""
        with self.lock:
            self.requests[what, status] += 1
            self.seconds += seconds
            for bucket in _BUCKETS:
                self.within[bucket] += seconds <= bucket

    def text(self, live: Live) -> str:
        """The Prometheus text format."""
        with self.lock:
            total = sum(self.requests.values())
            lines = ["# TYPE embstab_serve_requests_total counter"]
            lines += [
                f'embstab_serve_requests_total{{path="{what}",status="{status}"}} {count}'
                for (what, status), count in sorted(self.requests.items())
            ]
            lines += ["# TYPE embstab_serve_seconds histogram"]
            lines += [
                f'embstab_serve_seconds_bucket{{le="{bucket}"}} {self.within[bucket]}'
                for bucket in _BUCKETS
            ]
            lines += [
                f'embstab_serve_seconds_bucket{{le="+Inf"}} {total}',
                f"embstab_serve_seconds_sum {self.seconds}",
                f"embstab_serve_seconds_count {total}",
            ]
        lines += [
            "# TYPE embstab_serve_version gauge",
            f"embstab_serve_version {live.now().version}",
        ]
        lines += ["# TYPE embstab_serve_reloads_total counter"]
        lines += [f"embstab_serve_reloads_total {live.reloads}"]
        lines += ["# TYPE embstab_serve_stale gauge"]
        lines += [f"embstab_serve_stale {int(live.error is not None)}"]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Service:
    """The endpoints; ``token`` is what every request but /health must carry (None: nothing), and
    ``most_bytes`` the longest body.
    """

    live: Live
    token: str | None
    most_bytes: int
    served: Served = field(default_factory=Served)

    async def ask(self, request: Request) -> Response:
        """One of `answers`, found in a thread."""
        started, what = time.perf_counter(), request.url.path.strip("/")
        response = self._refused(request)
        if response is None:
            data = await self._body(request)
            if data is None:
                limit = f"a request has at most {self.most_bytes} bytes; send fewer rows"
                response = JSONResponse({"error": limit}, 413)
            else:
                response = JSONResponse(*await run_in_threadpool(_response, self.live, what, data))
        self.served.add(what, response.status_code, time.perf_counter() - started)
        return response

    async def health(self, _: Request) -> Response:
        """Whether the newest version is what is served."""
        head = await run_in_threadpool(self.live.now)
        state = "ok" if self.live.error is None else "stale"
        return JSONResponse({"status": state, "version": head.version, "error": self.live.error})

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        text = await run_in_threadpool(self.served.text, self.live)
        return self._refused(request) or PlainTextResponse(text)

    def _refused(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "").encode("latin-1")  # as ASGI decodes it
        if self.token is None or hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            return None
        return JSONResponse({"error": "the request carries no token, or another"}, 401)

    async def _body(self, request: Request) -> bytes | None:
        """The body, read no further than the limit; None beyond it."""
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > self.most_bytes:
                return None
        return bytes(data)


def application(service: Service) -> Starlette:
    """The ASGI application."""
    asked = [Route(f"/{what}", service.ask, methods=["POST"]) for what in _POSTED]
    read_only = [
        Route("/version", service.ask),
        Route("/health", service.health),
        Route("/metrics", service.metrics),
    ]
    return Starlette(routes=[*asked, *read_only])


def _response(live: Live, what: str, data: bytes) -> tuple[dict[str, Any], int]:
    try:
        asked = json.loads(data or b"{}", parse_constant=_no_number)
        return answer(live, what, asked), 200
    except EmbstabError as error:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
        return {"error": str(error)}, status
    except (ValueError, RecursionError) as error:
        return {"error": f"the request is no JSON: {error}"}, 400


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")
