"""Servers of this machine that speak enough of Google Cloud Storage and of Azure Blob Storage for
tests: objects in memory, with their conditional requests, listings, uploads in parts and removals.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import re
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.sax.saxutils import escape, unescape

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """One content of an object."""

    data: bytes
    generation: int
    changed: dt.datetime
    known: Headers = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    """A request of either service; objects are by bucket (or container) and key."""

    protocol_version, wbufsize = "HTTP/1.1", -1
    disable_nagle_algorithm = True
    server: Any
    prefix: str
    cut: str | None = None

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def handle_any(self) -> None:
        """One request after another."""
        parts = urllib.parse.urlsplit(self.path)
        self.asked = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        self.key = urllib.parse.unquote(parts.path).strip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.body = self.server.garble(self.key, body)
        with self.server.lock:
            self.server.asked.append((self.command, self.path, dict(self.headers)))
            refused = self.server.refuse(self.command, self.key)
            if isinstance(refused, tuple):
                self.answer(*refused)
                return
            self.cut = refused
            if refused != "cut":
                getattr(self, f"on_{self.command.lower()}")()
            if refused is not None:
                self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def answer(self, status: int, data: bytes = b"", **headers: str) -> None:
        """Send it."""
        if self.cut is not None:
            return
        self.send_response(status)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def described(self, stored: Stored) -> Headers:
        """Headers of an object."""
        return {
            "ETag": f'"{stored.generation}"',
            "Last-Modified": f"{stored.changed:%a, %d %b %Y %H:%M:%S GMT}",
            f"{self.prefix}generation": str(stored.generation),
            **stored.known,
        }

    def on_get(self) -> None:
        """An object, or a part of it."""
        stored = self.server.objects.get(self.key)
        if stored is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        wanted = self.headers.get("x-ms-range") or self.headers.get("Range")
        if wanted is None:
            self.answer(200, stored.data, **self.described(stored))
            return
        first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted).groups()  # type: ignore[union-attr]
        size = len(stored.data)
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= size:
            self.answer(416, b"<Error><Code>InvalidRange</Code></Error>")
            return
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        self.answer(206, stored.data[start:stop], **self.described(stored), **headers)

    def on_head(self) -> None:
        """The headers of an object."""
        if (stored := self.server.objects.get(self.key)) is None:
            self.answer(404)
            return
        self.answer(200, **self.described(stored) | {"Content-Length": str(len(stored.data))})

    def on_delete(self) -> None:
        """Remove it."""
        gone = self.server.objects.pop(self.key, None) is None
        self.answer(404 if gone else 202 if self.prefix == "x-ms-" else 204)

    def store(self, data: bytes) -> None:
        """Keep an object."""
        known = {name: v for name, v in self.headers.items() if name.lower().startswith(self.meta)}
        self.server.generation += 1
        stored = Stored(data, self.server.generation, dt.datetime.now(dt.UTC), known)
        self.server.objects[self.key] = stored
        self.answer(201 if self.prefix == "x-ms-" else 200, **self.described(stored))

    @property
    def standing(self) -> Stored | None:
        """The object that was asked for."""
        stored: Stored | None = self.server.objects.get(self.key)
        return stored

    @property
    def meta(self) -> str:
        """What metadata of users begins with."""
        return f"{self.prefix}meta-"

    def below(self, bucket: str) -> tuple[list[tuple[str, Stored]], list[str]]:
        """What lies below the prefix that was asked for, and folders where there is a delimiter."""
        start, keys, folders = self.asked.get("prefix", ""), [], dict[str, None]()
        for key, one in sorted(self.server.objects.items()):
            name = key.removeprefix(f"{bucket}/")
            if not key.startswith(f"{bucket}/{start}"):
                continue
            folder, slash, _ = name[len(start) :].partition("/")
            if slash and "delimiter" in self.asked:
                folders[f"{start}{folder}/"] = None
            else:
                keys.append((name, one))
        return keys, list(folders)


class Google(Handler):
    """The XML interface of Google Cloud Storage."""

    prefix = "x-goog-"

    def is_met(self) -> bool:
        """Whether what stands there is what the request wants to."""
        wanted, stands = self.headers.get("x-goog-if-generation-match"), self.standing
        return wanted is None or int(wanted) == (0 if stands is None else stands.generation)

    def on_get(self) -> None:
        """An object, or a listing."""
        if "list-type" not in self.asked:
            super().on_get()
            return
        found, folders = self.below(self.key)
        text = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(one.data)}</Size>"
            f"<LastModified>{one.changed:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f'<ETag>"{one.generation}"</ETag></Contents>'
            for name, one in found
        ) + "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders
        )
        self.answer(200, f"<ListBucketResult>{text}</ListBucketResult>".encode())

    def on_put(self) -> None:
        """An object under a condition, or a part of one."""
        if "uploadId" in self.asked:
            self.server.parts[self.asked["uploadId"], int(self.asked["partNumber"])] = self.body
            self.answer(200, ETag=f'"{self.asked["partNumber"]}"')
            return
        if self.is_met():
            self.store(self.body)
        else:
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")

    def on_post(self) -> None:
        """Begin or end an upload in parts."""
        if "uploads" in self.asked:
            self.server.generation += 1
            text = f"<UploadId>{self.server.generation}</UploadId>"
            text = f"<InitiateMultipartUploadResult>{text}</InitiateMultipartUploadResult>"
            self.answer(200, text.encode())
            return
        upload, parts = self.asked["uploadId"], self.server.parts
        numbers = map(int, re.findall(rb"<PartNumber>(\d+)</PartNumber>", self.body))
        self.body = b"".join(parts.pop((upload, number)) for number in numbers)
        self.server.generation += 1
        stored = Stored(self.body, self.server.generation, dt.datetime.now(dt.UTC))
        self.server.objects[self.key] = stored
        text = "<CompleteMultipartUploadResult><ETag>&quot;1&quot;</ETag>"
        text += "</CompleteMultipartUploadResult>"
        self.answer(200, text.encode(), **self.described(stored))


class Amazon(Google):
    """S3, whose listings and uploads in parts Google has too."""

    prefix = "x-amz-"

    def is_met(self) -> bool:
        """Whether what stands there is what the request wants to."""
        wanted, stands = self.headers.get("If-Match"), self.standing
        if self.headers.get("If-None-Match") == "*":
            return stands is None
        return wanted is None or (stands is not None and wanted == f'"{stands.generation}"')

    def on_put(self) -> None:
        """An object, or a part of one, if it came as it was sent."""
        digest = hashlib.sha256(self.body)
        signed = self.headers.get("x-amz-content-sha256")
        kept = self.headers.get("x-amz-checksum-sha256")
        if signed not in ("UNSIGNED-PAYLOAD", digest.hexdigest()):
            self.answer(400, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>")
        elif kept not in (None, base64.b64encode(digest.digest()).decode()):
            self.answer(400, b"<Error><Code>BadDigest</Code></Error>")
        else:
            super().on_put()

    def on_delete(self) -> None:
        """Remove it, if it is there."""
        self.server.objects.pop(self.key, None)
        self.answer(204)

    def on_post(self) -> None:
        """Many removals, or an upload in parts."""
        if "delete" not in self.asked:
            super().on_post()
            return
        gone = re.findall(r"<Key>([^<]+)</Key>", self.body.decode())
        for key in gone:
            self.server.objects.pop(f"{self.key}/{unescape(key)}", None)
        text = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in gone)
        self.answer(200, f"<DeleteResult>{text}</DeleteResult>".encode())


class Azure(Handler):
    """Azure Blob Storage."""

    prefix = "x-ms-"

    def on_get(self) -> None:
        """A blob, or a listing."""
        if self.asked.get("comp") != "list":
            super().on_get()
            return
        found, folders = self.below(self.key)
        text = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties>"
            f"<Last-Modified>{one.changed:%a, %d %b %Y %H:%M:%S GMT}</Last-Modified>"
            f"<Content-Length>{len(one.data)}</Content-Length><Etag>{one.generation}</Etag>"
            "<Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
            for name, one in found
        ) + "".join(f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>" for name in folders)
        text = f"<EnumerationResults><Blobs>{text}</Blobs><NextMarker /></EnumerationResults>"
        self.answer(200, text.encode())

    def on_put(self) -> None:
        """A blob under a condition, a block, or a list of blocks."""
        parts, kind = self.server.parts, self.asked.get("comp")
        if kind == "block":
            parts[self.key, self.asked["blockid"]] = self.body
            self.answer(201)
            return
        if kind == "blocklist":
            ids = re.findall(r"<(?:Uncommitted|Latest)>([^<]+)<", self.body.decode())
            self.store(b"".join(parts.pop((self.key, one)) for one in ids))
            return
        stands, wanted = self.server.objects.get(self.key), self.headers.get("If-Match")
        if self.headers.get("If-None-Match") == "*" and stands is not None:
            self.answer(409, b"<Error><Code>BlobAlreadyExists</Code></Error>")
        elif wanted is not None and (stands is None or wanted.strip('"') != str(stands.generation)):
            self.answer(412, b"<Error><Code>ConditionNotMet</Code></Error>")
        else:
            self.store(self.body)

    def on_post(self) -> None:
        """Many removals."""
        gone = re.findall(r"DELETE /([^ ?]+)", self.body.decode())
        answers = []
        for number, path in enumerate(gone):
            stood = self.server.objects.pop(urllib.parse.unquote(path), None) is not None
            status = "202 Accepted" if stood else "404 Not Found"
            answers.append(
                f"--batch\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                f"HTTP/1.1 {status}\r\nx-ms-request-id: 1\r\n\r\n"
            )
        text = "".join(answers) + "--batch--\r\n"
        self.answer(202, text.encode(), Content_Type="multipart/mixed; boundary=batch")


@contextlib.contextmanager
def serving(kind: type[Handler]) -> Iterator[Any]:
    """Such a server while the block runs: its ``endpoint``, ``objects``, and what was ``asked``;
    ``refuse`` may answer a request in its place, have it ``"cut"`` before it is done, or its answer
    ``"lost"``; ``garble`` changes bodies on their way.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as made:
        server: Any = made
        server.daemon_threads, server.lock = True, threading.Lock()
        server.objects, server.parts, server.asked = {}, {}, []
        server.generation, server.refuse = 1000, lambda *_: None
        server.garble = lambda _, body: body
        server.endpoint = f"http://127.0.0.1:{made.server_address[1]}"
        thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            made.shutdown()
            thread.join()
