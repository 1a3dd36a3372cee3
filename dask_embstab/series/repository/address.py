"""Which Icechunk repository does ``icechunk+s3://bucket/prefix`` name, and can a series live there?

Icechunk reaches its stores by itself. Options have the names that they have for every other URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from dask_embstab.errors import InputError
from dask_embstab.extras import require_extra
from dask_embstab.files.remote import (
    Url,
    is_read_only,
    is_remote,
    options_of,
    require_harmless,
)
from dask_embstab.files.remote_options import flat, number
from dask_embstab.repairs import option

SCHEME = "icechunk+"
_ON_OBJECTS = re.compile(
    r"(?:<icechunk\.Storage>\s*type: |ObjectStorage\(backend=)?(S3|Gcs|GCS|Azure|Tigris|R2)"
)
"""How Icechunk 1 and 2 show a storage that creates and replaces objects under conditions."""
_BUCKET = re.compile(r"\b(?:bucket|container)[:=] ?([^,)\s]+)")
_PREFIX = re.compile(r"\bprefix[:=] ?([^,)\s]+)")
_SCHEMES = {"Gcs": "gs", "GCS": "gs", "Azure": "az"}
_S3 = {
    "region": "region",
    "default_region": "region",
    "endpoint": "endpoint_url",
    "allow_http": "allow_http",
    "access_key_id": "access_key_id",
    "secret_access_key": "secret_access_key",
    "session_token": "session_token",
    "skip_signature": "anonymous",
    "requester_pays": "requester_pays",
}
_GCS = {
    "service_account": "service_account_file",
    "service_account_path": "service_account_file",
    "service_account_key": "service_account_key",
    "application_credentials": "application_credentials",
    "skip_signature": "anonymous",
}
_AZURE = {
    "account_name": "account",
    "account_key": "access_key",
    "access_key": "access_key",
    "sas_key": "sas_token",
    "sas_token": "sas_token",
    "bearer_token": "bearer_token",
}
_PREFIXES = ("aws_", "google_", "azure_storage_", "azure_")


def icechunk() -> Any:
    """The package."""
    return require_extra("icechunk", "icechunk", what="a series in an Icechunk repository")


def is_repository_url(place: Any) -> TypeGuard[str]:
    """Whether this is a URL of an Icechunk repository."""
    return isinstance(place, str) and place.lower().startswith(SCHEME)


def repository_at(url: str, *, make: bool = False) -> Any:
    """The repository at such a URL, made where there is none if it may be; FileNotFoundError
    where there is none.

    Raises `InputError` where no series can live there, or an option is none that is known.
    """
    inside = Url(url[len(SCHEME) :], options_of(url))
    if not is_remote(inside) or is_read_only(inside):
        raise InputError(
            f"{SCHEME} must be followed by the URL of an object store (s3://, gs://, az://), since"
            f" {_WHY}; {url} came; put the series there, or into a plain folder"
        )
    if not urlsplit(inside).netloc:
        raise InputError(f"a URL must name a bucket or a container; {url} names none")
    require_harmless(inside)
    api, options = icechunk(), flat(options_of(inside))
    config, tries = api.RepositoryConfig.default(), options.pop("max_retries", None)
    if tries is not None:
        retries = api.StorageRetriesSettings(max_tries=int(number(tries, "max_retries")) + 1)
        config.storage = api.StorageSettings(retries=retries)
    storage = storage_of(inside, options)
    if make:
        return api.Repository.open_or_create(storage, config=config)
    if not api.Repository.exists(storage):
        raise FileNotFoundError(url)
    return api.Repository.open(storage, config=config)


_WHY = (
    "commits are safe there alone: on a local disk Icechunk 2.3.0 lost 7 to 11 of 32 acknowledged"
    " commits"
)


def require_on_objects(repository: Any) -> str:
    """A name for a repository that was handed in; `InputError` where it lies on a local disk, in
    memory, or on something else without conditional writes.
    """
    shown = repr(repository.storage).strip()
    match = _ON_OBJECTS.match(shown)
    if match is None:
        raise InputError(
            f"a series can lie in an Icechunk repository on an object store, since {_WHY}; this one"
            f" has the storage {' '.join(shown.split())}; put the series onto an object store, or"
            " into a plain folder"
        )
    parts = [part[1] for look in (_BUCKET, _PREFIX) if (part := look.search(shown))]
    return f"{SCHEME}{_SCHEMES.get(match[1], 's3')}://{'/'.join(parts)}"


def storage_of(url: Url, options: Mapping[str, Any]) -> Any:
    """What Icechunk reaches the place by; `InputError` where it does not know an option."""
    api, parts = icechunk(), urlsplit(url)
    place: dict[str, Any] = {"prefix": parts.path.strip("/") or None}
    if parts.scheme.lower() in ("s3", "s3a"):
        given = _named(url, options, _S3)
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        endpoint = given.setdefault("endpoint_url", _environment(*names))
        given.setdefault("region", _environment("AWS_REGION", "AWS_DEFAULT_REGION"))
        if endpoint is not None:
            given["allow_http"] = endpoint.startswith("http://")
            given["force_path_style"] = True
        chain = not given.keys() & {"access_key_id", "anonymous"}
        return api.s3_storage(bucket=parts.netloc, **place, **given, from_env=chain or None)
    if parts.scheme.lower() in ("gs", "gcs"):
        given = _named(url, options, _GCS)
        return api.gcs_storage(bucket=parts.netloc, **place, **given, from_env=not given or None)
    given = _named(url, options, _AZURE)
    account = given.pop("account", None) or _environment("AZURE_STORAGE_ACCOUNT_NAME")
    if account is None:
        raise InputError(f"{url} needs {option('storage_options')} with the account_name")
    return api.azure_storage(
        account=account, container=parts.netloc, **place, **given, from_env=not given or None
    )


def _named(url: Url, options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The same options by the names that Icechunk gives them."""
    given = {}
    for name, value in options.items():
        bare = next((name[len(p) :] for p in _PREFIXES if name.startswith(p)), name)
        if bare not in known:
            raise InputError(
                f"{option('storage_options')} of {url} can be {', '.join(sorted(known))} and"
                f" max_retries, which Icechunk knows; {name} came"
            )
        flag = known[bare] in ("allow_http", "anonymous", "requester_pays")
        given[known[bare]] = str(value).lower() in ("true", "1") if flag else str(value)
    return given


def _environment(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)
