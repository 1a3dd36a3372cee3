"""A proxy before an HTTP server that counts requests and does something to the n-th: fails it,
cuts it off, or delays it.

It speaks HTTP/1.0 with both sides, a connection for each request, so that a cut of one strikes no
other.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Answer = tuple[int, bytes]
"""A status and a body that the proxy answers with in place of the server."""
Act = Answer | str
"""An answer; ``"cut"``, before the server is asked; ``"lost"``: it is asked, and half of its answer
comes through; ``"late"``: it is asked, and its answer comes through once `Faults.go` is set.
"""


def error(status: int, code: str, message: str = "as the test asks") -> Answer:
    """An answer as S3 gives it."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return status, text.encode()


@dataclass(slots=True)
class Faults:
    """What happens to whom: ``strike`` is asked with the number of every request from 1 on, its
    method and its path. Headers that are to ``drop`` do not reach the server; ``signed`` are the
    signatures of all that ever came.
    """

    endpoint: str
    strike: Callable[[int, str, str], Act | None] = field(default=lambda *_: None)
    drop: tuple[str, ...] = ()
    asked: list[tuple[str, str]] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    struck: int = 0
    go: threading.Event = field(default_factory=threading.Event)
    lock: Any = field(default_factory=threading.Lock)

    def after(self, strike: Callable[[int, str, str], Act | None]) -> None:
        """From now on, counting from 1 again."""
        with self.lock:
            self.asked.clear()
            self.strike, self.struck = strike, 0
            self.go.clear()

    def act(self, method: str, path: str) -> Act | None:
        """What happens to this request."""
        with self.lock:
            self.asked.append((method, path))
            act = self.strike(len(self.asked), method, path)
            self.struck += act is not None
            return act


@contextlib.contextmanager
def before(server: str) -> Iterator[Faults]:  # noqa: C901 (a handler with its methods)
    """A proxy before the server at this address, while the block runs."""
    host = urlsplit(server).netloc

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            with contextlib.suppress(OSError):  # the client gave up
                super().handle_one_request()

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

        def forward(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            faults.signed.append(self.headers.get("Authorization") or "")
            act = faults.act(self.command, self.path)
            if act == "cut":
                self.connection.shutdown(2)
                return
            if isinstance(act, tuple):
                self.answer(act[0], {"Content-Type": "application/xml"}, act[1], len(act[1]))
                return
            asked = http.client.HTTPConnection(host, timeout=60)
            dropped = {name.lower() for name in ("Connection", *faults.drop)}
            headers = {k: value for k, value in self.headers.items() if k.lower() not in dropped}
            asked.request(self.command, self.path, body, headers)
            answer = asked.getresponse()
            data = answer.read()
            size = int(answer.headers.get("Content-Length") or len(data))
            asked.close()
            if act == "lost":
                data = data[: len(data) // 2]
                if not data:
                    self.connection.shutdown(2)
                    return
            if act == "late":
                faults.go.wait(60)
            self.answer(answer.status, dict(answer.headers), data, size)

        def answer(self, status: int, headers: dict[str, str], data: bytes, size: int) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name not in ("Connection", "Content-Length", "Transfer-Encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that gave up is no news."""

    with Server(("127.0.0.1", 0), Handler) as proxy:
        faults = Faults(f"http://127.0.0.1:{proxy.server_address[1]}")
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield faults
        finally:
            faults.go.set()
            proxy.shutdown()
            thread.join()
