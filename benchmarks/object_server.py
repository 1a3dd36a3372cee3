"""An S3 server of known rate and latency, in memory, for benchmarks: what a client does is compared
under the same network, not with some service of the day.

    with object_server(latency=0.02, rate=200e6) as endpoint: ...

It runs in a process of its own, a thread per connection, and ends with its standard input. It
speaks what clients need to read and write objects: GET and HEAD with ranges, PUT, multipart
uploads, ListObjectsV2, DELETE; signatures are not looked at. ``rate`` (bytes a second, each way) is
shared by all connections; every request waits ``latency`` seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

_BLOCK = 256 << 10
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Objects:
    """What all connections share: objects, uploads, and the link."""

    def __init__(self, latency: float, rate: float) -> None:
        self.latency, self.rate = latency, rate
        self.objects: dict[str, tuple[bytes | bytearray, str]] = {}
        self.uploads: dict[str, dict[int, bytearray]] = {}
        self.lock = threading.Lock()
        self.free = {"in": 0.0, "out": 0.0}
        self.number = 0

    def store(self, key: str, data: bytes | bytearray) -> str:
        """Store an object; its entity tag."""
        with self.lock:
            self.number += 1
            tag = f'"{self.number}"'
            self.objects[key] = data, tag
        return tag

    def wait(self, way: str, n_bytes: int) -> None:
        """Until the link has carried so many bytes more."""
        if not self.rate:
            return
        with self.lock:
            now = time.perf_counter()
            self.free[way] = max(now, self.free[way]) + n_bytes / self.rate
            until = self.free[way]
        if (left := until - now) > 0:
            time.sleep(left)


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    server: Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer requests until the client closes."""
        with contextlib.suppress(ConnectionError):
            while line := self.rfile.readline():
                method, target, _ = line.decode().split()
                headers = {}
                while header := self.rfile.readline().decode().rstrip("\r\n"):
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                path, _, query = target.partition("?")
                asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
                if headers.get("expect") == "100-continue":
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = self.body(int(headers.get("content-length", 0)))
                time.sleep(self.server.held.latency)
                key = urllib.parse.unquote(path).strip("/")
                getattr(self, method.lower())(key, asked, headers, body)

    def body(self, n_bytes: int) -> bytearray:
        """What comes with a request."""
        data = bytearray(n_bytes)
        view, done = memoryview(data), 0
        while done < n_bytes:
            got = self.rfile.readinto(view[done : done + _BLOCK])
            self.server.held.wait("in", got)
            done += got
        return data

    def answer(self, status: str, data: bytes | memoryview = b"", **headers: object) -> None:
        """Send a status, headers (``_`` stands for ``-``) and a body."""
        length = headers.pop("Content_Length", len(data))
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        for at in range(0, len(data), _BLOCK):
            part = data[at : at + _BLOCK]
            self.server.held.wait("out", len(part))
            self.connection.sendall(part)

    def get(self, key: str, asked: dict[str, str], headers: dict[str, str], _: object) -> None:
        """An object, a range of it, or a listing."""
        if "list-type" in asked:
            self.listing(key, asked)
            return
        held = self.server.held.objects.get(key)
        if held is None:
            self.answer("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>")
            return
        data, tag = memoryview(held[0]), held[1]
        common = {
            "ETag": tag,
            "Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            "Accept_Ranges": "bytes",
        }
        if (wanted := _RANGE.fullmatch(headers.get("range", ""))) is None:
            self.answer("200 OK", data, **common)
            return
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(int(last) + 1 if first and last else len(data), len(data))
        if start >= len(data):
            self.answer("416 Range Not Satisfiable", Content_Range=f"bytes */{len(data)}")
            return
        common["Content_Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        self.answer("206 Partial Content", data[start:stop], **common)

    def head(self, key: str, _: object, __: object, ___: object) -> None:
        """What is known of an object."""
        held = self.server.held.objects.get(key)
        if held is None:
            self.answer("404 Not Found")
            return
        modified = "Thu, 01 Jan 2026 00:00:00 GMT"
        size = len(held[0])
        self.answer("200 OK", ETag=held[1], Last_Modified=modified, Content_Length=size)

    def put(self, key: str, asked: dict[str, str], _: object, body: bytearray) -> None:
        """An object, or a part of an upload."""
        if "uploadId" in asked:
            number = int(asked["partNumber"])
            self.server.held.uploads[asked["uploadId"]][number] = body
            self.answer("200 OK", ETag=f'"part-{number}"')
            return
        self.answer("200 OK", ETag=self.server.held.store(key, body))

    def post(self, key: str, asked: dict[str, str], _: object, __: object) -> None:
        """Begin or complete an upload."""
        held = self.server.held
        bucket, _, name = key.partition("/")
        if "uploads" in asked:
            with held.lock:
                held.number += 1
                number = str(held.number)
            held.uploads[number] = {}
            text = (
                f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(name)}</Key>"
                f"<UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
            )
        else:
            parts = held.uploads.pop(asked["uploadId"])
            tag = held.store(key, bytearray().join(parts[number] for number in sorted(parts)))
            text = (
                f"<CompleteMultipartUploadResult><Key>{escape(name)}</Key>"
                f"<ETag>{escape(tag)}</ETag></CompleteMultipartUploadResult>"
            )
        self.answer("200 OK", text.encode(), Content_Type="application/xml")

    def delete(self, key: str, asked: dict[str, str], _: object, __: object) -> None:
        """Forget an object or an upload."""
        if "uploadId" in asked:
            self.server.held.uploads.pop(asked["uploadId"], None)
        else:
            self.server.held.objects.pop(key, None)
        self.answer("204 No Content")

    def listing(self, bucket: str, asked: dict[str, str]) -> None:
        """Keys of a prefix; names up to the delimiter once."""
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        keys = sorted(key[len(bucket) + 1 :] for key in list(self.server.held.objects))
        objects, folders = [], dict[str, None]()
        for key in (key for key in keys if key.startswith(prefix)):
            name, closed, _ = (
                key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            )
            if closed:
                folders[f"{prefix}{name}{delimiter}"] = None
            else:
                data, tag = self.server.held.objects[f"{bucket}/{key}"]
                objects.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
                    f"<ETag>{escape(tag)}</ETag>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
        common = [
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in folders
        ]
        text = (
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(objects)}</KeyCount><IsTruncated>false</IsTruncated>"
            f"{''.join(objects)}{''.join(common)}</ListBucketResult>"
        )
        self.answer("200 OK", text.encode(), Content_Type="application/xml")


class Server(socketserver.ThreadingTCPServer):
    """A thread per connection of this machine."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, held: Objects) -> None:
        self.held = held
        super().__init__(("127.0.0.1", 0), Handler)


@contextlib.contextmanager
def object_server(*, latency: float = 0.0, rate: float = 0.0) -> Iterator[str]:
    """The address of a new and empty server; ``rate`` 0 is as fast as this machine is."""
    command = [sys.executable, str(Path(__file__)), str(latency), str(rate)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the server did not start")
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stdin.close()
            process.wait(10)


def main() -> None:
    """Serve until the standard input ends."""
    options = argparse.ArgumentParser()
    options.add_argument("latency", type=float)
    options.add_argument("rate", type=float)
    given = options.parse_args()
    with Server(Objects(given.latency, given.rate)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
