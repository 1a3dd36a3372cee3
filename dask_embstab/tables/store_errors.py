"""A store failed: is the place out of reach, is something missing to read it, or are the stored
bytes damaged?
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from zarr.errors import MetadataValidationError, UnknownCodecError

from dask_embstab.errors import AccessError, DamageError, EmbstabError, InputError
from dask_embstab.files.remote import failure

_RESTORE = "restore it from its source"
_UNREACHABLE = {
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE}
_CLIENTS = {
    "aiohttp",
    "botocore",
    "aiobotocore",
    "s3fs",
    "gcsfs",
    "adlfs",
    "azure",
    "google",
    "obstore",
    "icechunk",
    "requests",
    "urllib3",
    "httpx",
    "socket",
    "ssl",
}
"""Libraries that speak to a network: what they raise says nothing about the stored bytes."""
_UNSUPPORTED = ("No Zarr data type found", "hunk grid", "codec not available")


def read_error(error: BaseException, what: str, repair: str = _RESTORE) -> EmbstabError:
    """The one clear error that stands for whatever Zarr, a codec or a store raised while ``what``
    was read.
    """
    text, number = _text_of(error), getattr(error, "errno", None)
    assert not isinstance(error, EmbstabError), (
        "what is clear already is raised as it is: no error is its own cause"
    )
    if isinstance(error, PermissionError):
        return AccessError(
            f"{what} must be readable for this user; permission was denied ({error}); allow it, or"
            " copy it"
        )
    libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if (
        isinstance(error, ConnectionError | TimeoutError)
        or number in _UNREACHABLE
        or libraries & _CLIENTS
    ):
        return AccessError(
            f"{what} cannot be reached ({text}); check the address, the network and the credentials"
        )
    if number in _EXHAUSTED:
        return AccessError(
            f"{what} cannot be opened ({text}); allow more open files (ulimit -n), or use fewer"
            " threads"
        )
    if isinstance(error, MemoryError):
        return InputError(
            f"{what} does not fit in memory ({text}); write it again in smaller chunks"
        )
    if isinstance(error, ImportError):
        return InputError(f"{what} needs a library that is not installed ({error}); install it")
    if str(error).startswith("Protocol not known: icechunk+"):
        return InputError(
            f"{what} must be at a place of runs; the URL of an Icechunk repository names a series;"
            " give a version of it (URL@3), or the store of a session with the run"
        )
    if str(error).startswith("Protocol not known"):
        return InputError(
            f"{what} must have an address that fsspec knows ({error}); give a path, or s3://,"
            " gs://, file://"
        )
    # An unknown codec, data type, chunk grid or format; metadata that makes no sense is damage.
    if isinstance(error, MetadataValidationError | UnknownCodecError) or any(
        known in str(error) for known in _UNSUPPORTED
    ):
        return InputError(
            f"{what} must be stored with data types and codecs that this Zarr knows ({text});"
            " install the library that registers them, or write it again, e.g. as float32"
        )
    return DamageError(f"{what} cannot be read ({text}); {repair}")


@contextlib.contextmanager
def reading(what: str, repair: str = _RESTORE) -> Iterator[None]:
    """Whatever is raised in the block becomes what `read_error` makes of it."""
    try:
        yield
    except EmbstabError:
        raise
    except Exception as error:
        raise read_error(error, what, repair) from error


def write_error(error: BaseException, what: str) -> EmbstabError:
    """The one clear error that stands for whatever a store or a disk raised while ``what`` was
    written.
    """
    assert not isinstance(error, EmbstabError), (
        "what is clear already is raised as it is: no error is its own cause"
    )
    return AccessError(
        f"{what} cannot be written ({_text_of(error)}); check that the place can be reached, that"
        " this user may write there, and that it has room; nothing was published"
    )


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Whatever is raised in the block becomes what `write_error` makes of it."""
    try:
        yield
    except EmbstabError:
        raise
    except Exception as error:
        raise write_error(error, what) from error


def _text_of(error: BaseException) -> str:
    if type(error).__module__.startswith("obstore"):
        return failure(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
