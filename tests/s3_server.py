"""An S3 server of this machine, for tests: moto's, in a process of its own, on a free port.

``bucket`` is a new bucket of it for one test. The server ends with its standard input, so it never
outlives the tests, however they end. Of conditional requests it does one at a time: moto itself
looks first and writes later, and of eight at once two are told that they made an object.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import pytest

_SERVER = """
import logging, sys, threading
from moto.server import DomainDispatcherApplication, ThreadedMotoServer
logging.getLogger("werkzeug").disabled = True
answer, lock = DomainDispatcherApplication.__call__, threading.Lock()
def one_at_a_time(app, environ, start):
    if not {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & environ.keys():
        return answer(app, environ, start)
    with lock:
        return list(answer(app, environ, start))
DomainDispatcherApplication.__call__ = one_at_a_time
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_KEY, _REGION = "testing", "us-east-1"
_SIGNED = f"AWS4-HMAC-SHA256 Credential={_KEY}/20260101/{_REGION}/s3/aws4_request"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, and what a client needs to reach it."""

    name: str
    endpoint: str

    def url(self, key: str = "") -> str:
        """Of the object, or the prefix, of this name."""
        return f"s3://{self.name}/{key}" if key else f"s3://{self.name}"

    def at(self, endpoint: str) -> Bucket:
        """The same bucket by another address, such as that of a proxy before the server."""
        return replace(self, endpoint=endpoint)

    @property
    def options(self) -> dict[str, str]:
        """What ``storage_options=`` takes."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": _KEY,
            "secret_access_key": _KEY,
            "region": _REGION,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same as the variables that every client of S3 knows."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_DEFAULT_REGION": _REGION,
        }

    @property
    def arguments(self) -> list[str]:
        """The same on the command line."""
        return [f"--storage-option={name}={value}" for name, value in self.options.items()]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of the server."""
    if find_spec("moto") is None or find_spec("flask") is None or find_spec("obstore") is None:
        pytest.skip("an S3 server and a client need moto[server] and obstore: the extra test-s3")
    command = [sys.executable, "-c", _SERVER]
    pipe, silent = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=silent, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "moto's server did not start"
        yield f"http://127.0.0.1:{port}"
        process.stdin.close()
        process.wait(10)


@pytest.fixture
def bucket(s3_server: str) -> Bucket:
    """A new and empty bucket."""
    made = Bucket(f"b-{uuid.uuid4().hex}", s3_server)
    request = urllib.request.Request(f"{s3_server}/{made.name}", method="PUT")
    request.add_header("Authorization", _SIGNED)
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    return made
