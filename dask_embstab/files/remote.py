"""Places that a URL names: how an object store, or a file on the web, is reached, and with what.

A place is a path, a URL or a store. A URL to which storage options belong is a `Url`: the same
text, with the options that reach it, which are never shown. `bound` makes them at the edge of a
verb; below it a place is handed on as it is, and `client` reaches it. A new scheme is a line of
``_STORES``; options are spelled in
``remote_options.py``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Self, TypeGuard, TypeVar
from urllib.parse import unquote, urlsplit

from dask_embstab.errors import AccessError, EmbstabError, InputError
from dask_embstab.extras import require_extra
from dask_embstab.files.place import local_path
from dask_embstab.files.remote_options import (
    endpoint_of,
    flat,
    number,
    of_profile,
    of_service,
)
from dask_embstab.repairs import option

StorageOptions = Mapping[str, Any]
"""What reaches the stores of a call: names and values of obstore, or their spellings in fsspec."""
_STORES = {
    "s3": "S3Store",
    "s3a": "S3Store",
    "gs": "GCSStore",
    "gcs": "GCSStore",
    "az": "AzureStore",
    "abfs": "AzureStore",
    "abfss": "AzureStore",
    "http": "HTTPStore",
    "https": "HTTPStore",
}
_CLIENT = {
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_headers",
    "http1_only",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_url",
    "proxy_ca_certificate",
    "proxy_excludes",
    "read_timeout",
    "root_certificate",
    "timeout",
    "user_agent",
}
"""Options of the connection, which all stores have."""
_SLOW = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "10m"}
"""A whole chunk may take long; a byte may not."""
_MAX_RETRIES, _WEB_RETRIES, _RETRY_SECONDS = 10, 2, 180.0
"""Of a bucket, which may slow its clients down for a while; of a file on the web."""
_ENVIRONMENT = ("AWS_", "GOOGLE_", "AZURE_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>(?:\s*<Message>([^<]{1,300})</Message>)?")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_QUOTED = re.compile(r'"[^"]*"')
_SHOWN = 400
PAUSES = (0.1, 0.5, 2.0)
"""Seconds before a request is made again whose answer broke off."""
V = TypeVar("V")


def canonical(url: str) -> str:
    """The same place by one name: ``S3A://b/x/../y%41/`` is ``S3Store://b/yA``."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    return f"{_STORES.get(scheme, scheme)}://{posixpath.normpath(unquote(rest))}"


class Url(str):
    """A URL with the storage options that reach it, which no text shows."""

    __slots__ = ("options",)
    options: dict[str, Any]

    def __new__(cls, url: str, options: StorageOptions | None = None) -> Self:
        """The same text."""
        made = super().__new__(cls, url)
        made.options = dict(options or {})
        return made

    def __truediv__(self, name: str) -> Url:
        """A place below it."""
        return Url(f"{self.rstrip('/')}/{name}", self.options)


def bound(storage_options: StorageOptions | None, *places: Any) -> tuple[Any, ...]:
    """The same places, and every URL among them (or in a dict or list of them) with its options."""
    if storage_options is None:
        return places
    if not isinstance(storage_options, Mapping) or not all(
        isinstance(name, str) for name in storage_options
    ):
        raise InputError(
            f"{option('storage_options')} must be a dict of names and values; a"
            f" {type(storage_options).__name__} came"
        )
    return tuple(_bound(storage_options, place) for place in places)


def _bound(options: StorageOptions, place: Any) -> Any:
    if isinstance(place, str):
        return Url(place, options) if is_url(place) else place
    if isinstance(place, dict):
        return {name: _bound(options, one) for name, one in place.items()}
    if type(place) in (list, tuple):
        return type(place)(_bound(options, one) for one in place)
    return place


def is_url(place: Any) -> TypeGuard[str]:
    """Whether this is a URL of another place than the local file system."""
    return isinstance(place, str) and "://" in place and local_path(place) is None


def is_remote(place: Any) -> TypeGuard[str]:
    """Whether this is a URL that `client` reaches; fsspec knows the others."""
    return isinstance(place, str) and place.partition("://")[0].lower() in _STORES


def require_harmless(place: Any) -> None:
    """Raise where a URL cannot be shown: it holds a password, or a query, which may be one."""
    if not is_url(place):
        return
    parts = urlsplit(place)
    before, _, host = parts.netloc.rpartition("@")
    if ":" in before or (is_remote(place) and (before or parts.query or parts.fragment)):
        raise InputError(
            "URLs are shown and recorded, so they may hold no user, password or query;"
            f" {parts.scheme}://{host}{parts.path} came with one; give credentials as"
            f" {option('storage_options')} or in the environment"
        )


def is_read_only(url: str) -> bool:
    """Whether a place can only be read."""
    return _STORES[url.partition("://")[0].lower()] == "HTTPStore"


def options_of(place: Any) -> dict[str, Any]:
    """The storage options of a place."""
    return dict(getattr(place, "options", {})) if isinstance(place, str) else {}


def client(place: str) -> Any:
    """Obstore's store whose root is this place; it connects when it is used.

    Processes that compute make their own, each with the credentials of its own environment where
    no options name others. Raises `InputError` where the URL or an option is none that it knows.
    """
    require_harmless(place)
    environment = tuple(
        (name, value) for name, value in os.environ.items() if name.upper().startswith(_ENVIRONMENT)
    )
    try:
        return _client(str(place), tuple(sorted(flat(options_of(place)).items())), environment)
    except TypeError as error:
        raise InputError(
            f"values of {option('storage_options')} must be texts, numbers or truth values; one is"
            f" none ({type(error).__name__})"
        ) from None


@lru_cache(maxsize=64)
def _client(url: str, options: tuple[tuple[str, Any], ...], _environment: Any) -> Any:
    """The same client for the same place, so that its connections are used again."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if not parts.netloc:
        raise InputError(f"a URL must name a bucket or a host; {url} names none")
    store = require_extra("obstore.store", "s3", what=f"reaching {url}")
    config = of_service(_STORES[scheme], dict(options))
    connection = _SLOW | {name: config.pop(name) for name in _CLIENT & config.keys()}
    if scheme == "http" or endpoint_of(config).startswith("http://"):
        connection["allow_http"] = True
    most = _WEB_RETRIES if _STORES[scheme] == "HTTPStore" else _MAX_RETRIES
    retries = {
        "max_retries": int(number(config.pop("max_retries", most), "max_retries")),
        "retry_timeout": dt.timedelta(
            seconds=number(config.pop("retry_timeout", _RETRY_SECONDS), "retry_timeout")
        ),
    }
    address = f"{'gs' if scheme == 'gcs' else scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    more = {} if _STORES[scheme] == "HTTPStore" else {"config": config}
    if config and not more:
        raise InputError(
            f"{option('storage_options')} of {url} are those of the connection alone"
            f" ({', '.join(sorted(_CLIENT))}); {', '.join(sorted(config))} came"
        )
    try:
        provider = of_profile(config) if _STORES[scheme] == "S3Store" else {}
        return getattr(store, _STORES[scheme]).from_url(
            address, client_options=connection, retry_config=retries, **more, **provider
        )
    except EmbstabError:
        raise
    except Exception as error:  # noqa: BLE001 (ValueError, and whatever obstore or botocore raise)
        raise InputError(
            f"{url} and its {option('storage_options')} ({', '.join(sorted(config)) or 'none'})"
            f" must be what obstore knows: {_QUOTED.sub('what came', failure(error))}"
        ) from None


def read_remote(place: str, n_bytes: int | None = None) -> bytes:
    """All bytes of one object, or the first of them; FileNotFoundError where there is none."""
    with _one_object(place) as (store, name):
        if store is None:
            import fsspec

            with fsspec.open(place, "rb", **options_of(place)) as file:
                return bytes(file.read(-1 if n_bytes is None else n_bytes))
        if n_bytes is not None:
            size = store.head(name)["size"]
            return bytes(store.get_range(name, start=0, end=min(size, n_bytes)) if size else b"")
        return bytes(store.get(name).bytes())


def small_file(place: str | os.PathLike[str]) -> Any:
    """What NumPy and pandas read of a file: its path, or at a URL all of its bytes."""
    return io.BytesIO(read_remote(place)) if is_url(place) else place


def write_remote(place: str, data: bytes) -> None:
    """Put one object, whole or not at all, over what stood there."""
    require_writable(place)
    with _one_object(place) as (store, name):
        if store is None:
            import fsspec

            with fsspec.open(place, "wb", **options_of(place)) as file:
                file.write(data)
        else:
            store.put(name, data)


def require_writable(place: str) -> None:
    """Raise where a URL is one that nobody can write to."""
    require_harmless(place)
    if is_remote(place) and is_read_only(place):
        raise InputError(f"a place on the web can only be read; {place} is one; choose another")


@contextlib.contextmanager
def _one_object(place: str) -> Iterator[tuple[Any, str]]:
    """The store above an object (None where fsspec knows it) and the object's name in it; whatever
    it raises is one clear error.
    """
    require_harmless(place)
    above, _, name = place.rstrip("/").rpartition("/")
    if not name or above.endswith(("/", ":")):
        raise InputError(f"a file must be named by a URL; {place} names none")
    store = client(Url(above, options_of(place))) if is_remote(place) else None
    try:
        yield store, name
    except EmbstabError:
        raise
    except Exception as error:
        if is_missing_object(error):
            raise
        raise unreached(error, place) from None


def is_missing_object(error: BaseException) -> bool:
    """Whether an object is missing, and not because its bucket is."""
    text = str(error)
    return isinstance(error, FileNotFoundError) and not any(code in text for code in _NO_BUCKET)


def is_broken_off(error: BaseException) -> bool:
    """Whether an answer broke off in its midst, after which obstore does not ask again by itself,
    as it does where none came or one that says so.
    """
    return "body" in failure(error)


def again(ask: Callable[[], V], *, after: Callable[[BaseException], bool] = is_broken_off) -> V:
    """What ``ask`` gives; it is asked again, with pauses, after such failures."""
    for pause in PAUSES:
        try:
            return ask()
        except EmbstabError:
            raise
        except Exception as error:
            if is_missing_object(error) or not after(error):
                raise
        time.sleep(pause)
    return ask()


def unreached(error: BaseException, what: str, done: str = "reached") -> AccessError:
    """The one clear error that stands for whatever a request raised."""
    return AccessError(
        f"{what} cannot be {done} ({failure(error)}); check the address, the network and the"
        " credentials"
    )


def failure(error: BaseException) -> str:
    """What a store said of a request, in one line, and not what it was asked with."""
    text = str(error).partition("\n\nDebug source")[0]
    if match := _CODE.search(str(error)):
        return ": ".join(part for part in match.groups() if part)
    return " ".join(text.split())[:_SHOWN] or type(error).__name__
