"""Object stores: the file system behind an `s3://` or `gs://` uri, set up from the environment alone.

Credentials, region and endpoint come from the variables that every client of these stores reads, never from a uri or
a job file. What goes wrong is told in one sentence that names the uri and what to set, and never a key or token.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs")
ATTEMPTS = 7
"""How often a request is sent before its failure counts: outages of half a minute go by unnoticed."""
ATTEMPTS_AT_FIRST = 3
"""The same for the first look at a bucket: a wrong endpoint is told in a second or two."""

_PREFIXES = tuple(f"{scheme}://" for scheme in SCHEMES)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_QUERY = re.compile(r"\?[A-Za-z][\w-]*=")
_CONNECT_SECONDS = 10.0

_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist")
_ELSEWHERE = re.compile(r"PermanentRedirect|AuthorizationHeaderMalformed|HTTP status 301")
_DENIED = re.compile(
    r"ACCESS_DENIED|HTTP status 40[13]|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|InvalidAccessKeyId|ExpiredToken|"
    r"EXPIRED_TOKEN|InvalidToken|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|PERMISSION_DENIED|UNAUTHENTICATED|"
    r"[Cc]ould not (?:load|find|create) .*credential"
)
_AWAY = re.compile(r"NETWORK_CONNECTION|REQUEST_TIMEOUT|curlCode|UNAVAILABLE|DEADLINE_EXCEEDED|[Cc]ould not resolve")
_NOISE = re.compile(r"\s*\(Request ID: [^)]*\)|\s*Detail: \[errno \d+\].*")


def is_object_uri(path: str) -> bool:
    """Whether a path is a uri of an object store: `s3://...` or `gs://...`."""
    return path.startswith(_PREFIXES)


def check_uri(uri: str) -> None:
    """Raise ValueError, saying what would be right, for a uri that names no place in an object store."""
    scheme, found, rest = uri.partition("://")
    example = f"{scheme if scheme in SCHEMES else 's3'}://BUCKET/FOLDER"
    if not found or scheme not in SCHEMES:
        raise ValueError(f"{uri!r} is no uri of an object store; {example} and gs://BUCKET/FOLDER are")
    bucket, _, key = rest.partition("/")
    if "@" in bucket:  # what stands there may be a key: it is not repeated
        raise ValueError(f"a uri carries no credentials: write {example} and set them in the environment")
    if _QUERY.search(rest):
        raise ValueError(f"a uri of an object store carries no query: write {example}, set the rest in the environment")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{uri!r} names no bucket: write {example}")
    if any(part in ("", ".", "..") for part in key.rstrip("/").split("/")) and key.rstrip("/"):
        raise ValueError(f"{uri!r} has an empty part, '.' or '..' in its path: write {example}")


def open_filesystem(uri: str, attempts: int = ATTEMPTS) -> tuple[FileSystem, str]:
    """The file system of an object store, and the path `bucket/key` in it.

    One a process and server, safe to use from many threads. ValueError for a uri that `check_uri` refuses, OSError
    where the region of a bucket cannot be found out.
    """
    check_uri(uri)
    scheme, _, path = uri.partition("://")
    path = path.rstrip("/")
    if scheme == "gs":
        return _gcs(os.environ.get("STORAGE_EMULATOR_HOST", "")), path
    return _s3(_endpoint(), _region(uri, path.partition("/")[0]), _key_id(), attempts), path


def lance_options(uri: str) -> dict[str, str]:
    """What LanceDB must be told to reach the same server as `open_filesystem`; credentials it finds itself."""
    check_uri(uri)
    scheme, _, path = uri.partition("://")
    if scheme == "gs":
        server = os.environ.get("STORAGE_EMULATOR_HOST", "")
        if not server:
            return {}
        address = server if "://" in server else f"http://{server}"
        return {"google_base_url": address.rstrip("/"), "google_skip_signature": "true", "allow_http": "true"}
    options = {"region": _region(uri, path.partition("/")[0])}
    if endpoint := _endpoint():
        options |= {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
    return options


def check_bucket(uri: str) -> None:
    """Raise OSError, in a second or two, where the bucket of a uri is missing, closed to us or out of reach."""
    from pyarrow.fs import FileSelector, FileType

    filesystem, path = open_filesystem(uri, ATTEMPTS_AT_FIRST)
    with explained(uri):
        try:
            found = filesystem.get_file_info(path.partition("/")[0]).type
        except OSError as error:
            if not _DENIED.search(str(error)):
                raise
            # Some may list a part of a bucket and not ask about the whole.
            filesystem.get_file_info(FileSelector(path, allow_not_found=True))
            return
    if found == FileType.NotFound:
        raise no_bucket(uri)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what the file system raises about a uri into an OSError that says what to do.

    FileNotFoundError for a missing object or bucket, PermissionError, ConnectionError, else OSError.
    """
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise _explain(error, uri) from None


def _explain(error: Exception, uri: str) -> OSError:
    text = str(error)
    if _NO_BUCKET.search(text):
        return no_bucket(uri)
    if isinstance(error, FileNotFoundError) or "No such directory" in text:
        return FileNotFoundError(errno.ENOENT, "there is no such object", uri)
    if _ELSEWHERE.search(text):
        return OSError(errno.EREMOTE, "the bucket lies in another region: set AWS_REGION to that, or unset it", uri)
    if _DENIED.search(text):
        return PermissionError(errno.EACCES, f"access is denied: {_credentials(uri)}", uri)
    if _AWAY.search(text):
        return ConnectionError(errno.EHOSTUNREACH, f"{_server(uri)} does not answer: {_plain(text)}", uri)
    return OSError(errno.EIO, _plain(text), uri)


def no_bucket(uri: str) -> FileNotFoundError:
    """What to say of a uri whose bucket is missing."""
    bucket = uri.partition("://")[2].partition("/")[0]
    return FileNotFoundError(errno.ENOENT, f"there is no bucket {bucket!r} at {_server(uri)}: make it first", uri)


def _credentials(uri: str) -> str:
    """Which credentials were used, as far as the environment tells, and what to set."""
    if uri.startswith("gs:"):
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            return "the account of GOOGLE_APPLICATION_CREDENTIALS may not do this here"
        return "set GOOGLE_APPLICATION_CREDENTIALS to the file of an account that may do this"
    if _key_id():
        return "the credentials in AWS_ACCESS_KEY_ID are wrong, have expired, or may not do this here"
    return (
        "AWS_ACCESS_KEY_ID is not set, nor does a role of this machine help; set it and AWS_SECRET_ACCESS_KEY (with "
        "AWS_SESSION_TOKEN for those that expire)"
    )


def _server(uri: str) -> str:
    if uri.startswith("gs:"):
        return os.environ.get("STORAGE_EMULATOR_HOST") or "Google Cloud Storage"
    return _endpoint() or "Amazon S3 (no AWS_ENDPOINT_URL is set)"


def _plain(text: str) -> str:
    """The message of a file system in one line, with nothing in it that the environment keeps secret."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if secret := os.environ.get(name):
            text = text.replace(secret, f"[{name}]")
    return " ".join(_NOISE.sub("", text).split())


def _endpoint() -> str:
    """`http(s)://host:port` of a server that is not Amazon's; empty where none is named."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return (named if "://" in named or not named else f"https://{named}").rstrip("/")


def _key_id() -> str:
    return os.environ.get("AWS_ACCESS_KEY_ID", "")


def _region(uri: str, bucket: str) -> str:
    """The region that the environment names; else that of the bucket, or any for a server that is not Amazon's."""
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if named or _endpoint():
        return named or "us-east-1"
    with explained(uri):
        return _region_of(bucket)


@lru_cache
def _region_of(bucket: str) -> str:
    from pyarrow.fs import resolve_s3_region

    return resolve_s3_region(bucket)


@lru_cache
def _s3(endpoint: str, region: str, key_id: str, attempts: int) -> FileSystem:
    """`key_id` only tells file systems apart: the SDK reads credentials, and renews those of a role, itself."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    scheme, _, host = endpoint.partition("://")
    server = {"scheme": scheme, "endpoint_override": host} if endpoint else {}
    return S3FileSystem(
        region=region,
        connect_timeout=_CONNECT_SECONDS,
        allow_delayed_open=True,  # a small object is one request, and one in many parts appears when all are there
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
        **server,
    )


@lru_cache
def _gcs(server: str) -> FileSystem:
    from pyarrow.fs import GcsFileSystem

    patience = timedelta(seconds=30)
    if not server:
        return GcsFileSystem(retry_time_limit=patience)
    scheme, found, host = server.rstrip("/").partition("://")
    return GcsFileSystem(
        anonymous=True,
        scheme=scheme if found else "http",
        endpoint_override=host if found else scheme,
        retry_time_limit=patience,
    )
