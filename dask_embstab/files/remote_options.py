"""Names and values of storage options: whichever way they are spelled, as a service has them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.extras import require_extra

_SPELLINGS = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "anon": "skip_signature",
    "endpoint_url": "endpoint",
    "region_name": "region",
}
"""As s3fs calls them."""
_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_AWS_NAMED = {"access_key_id", "secret_access_key", "skip_signature", "web_identity_token_file"}
_ENDPOINT = re.compile(r"((aws|azure|google)_)?(endpoint|endpoint_url|base_url)")


def of_service(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Options of one of obstore's stores, with the checksum of uploads that it shall keep.

    Amazon's own S3 compares the SHA-256 of each object with what came, and keeps it; other servers
    are asked for that by the option alone. The signature of a request needs it anyway.
    """
    if kind == "GCSStore" and "endpoint" in config:
        config["base_url"] = config.pop("endpoint")
    if kind == "S3Store":
        named = "checksum_algorithm", "aws_checksum_algorithm"
        given = [value for name in named if (value := config.pop(name, None)) is not None]
        given += [value] if (value := os.environ.get("AWS_CHECKSUM_ALGORITHM")) else []
        asked = str(given[0]) if given else "" if endpoint_of(config) else "SHA256"
        if asked.lower() not in ("", "none"):
            config["checksum_algorithm"] = asked
    return config


def of_profile(config: dict[str, Any]) -> dict[str, Any]:
    """What gives the credentials of an AWS profile, which obstore's own chain does not read: of the
    one that is named, or of the default one where nothing else names credentials.
    """
    asked = config.pop("profile", None)
    named = asked or os.environ.get("AWS_PROFILE")
    given = _AWS_NAMED & {name.removeprefix("aws_") for name in config}
    if given or (not asked and "AWS_ACCESS_KEY_ID" in os.environ):
        return {}
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    if not named and (not Path(file).expanduser().exists() or find_spec("boto3") is None):
        return {}
    boto3 = require_extra("boto3", "aws", what=f"the AWS profile {named}")
    provider = require_extra("obstore.auth.boto3", "aws", what=f"the AWS profile {named}")
    session = boto3.Session(profile_name=named)
    return {"credential_provider": provider.Boto3CredentialProvider(session)}


def endpoint_of(config: Mapping[str, Any]) -> str:
    """The address of the service where it is not its own."""
    named = (name for name in config if _ENDPOINT.fullmatch(name))
    given = next((config[name] for name in named), None)
    return str(given or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or "")


def flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values of obstore, whichever way they were spelled; dicts within (``client_kwargs``
    of s3fs) say the same as what is in them.
    """
    made: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and name != "default_headers":
            made |= flat(value)
        elif value is not None:
            made[_SPELLINGS.get(name, name)] = value
    return made


def number(value: Any, name: str) -> float:
    """A number, or seconds with a unit."""
    match = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", str(value))
    if match is None or match[2] not in _SECONDS:
        raise InputError(f"the storage option {name} must be a number such as 10 or 30s")
    return float(match[1]) * _SECONDS[match[2]]
