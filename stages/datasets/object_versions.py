"""Versions of images in object stores: size and time, asked for in few requests.

A folder of which many images are wanted is listed, a thousand a request; of others each image is asked about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

from stages.dataset import DatasetError
from stages.datasets.listing import content_version
from storage import objects
from storage.blobs import read_blobs

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

WORTH_LISTING = 10
"""Images of one folder that are asked about before the folder is listed."""
_HASHED_AT_ONCE = 64

_known: dict[str, str] = {}
"""uri -> version: a run plans about ten times, and asks its servers once"""
_asked_about: Counter[str] = Counter()
"""folder -> how many of its images were wanted so far"""


def object_versions(uris: Sequence[str]) -> list[str]:
    """The version of each object, as its store tells it; `missing` where it tells none.

    Raises DatasetError where a store does not answer: then nobody knows which images are there.
    """
    unknown = [uri for uri in dict.fromkeys(uris) if uri not in _known]
    _asked_about.update(_folder(uri) for uri in unknown)
    try:
        left = []
        for uri in unknown:
            listed = _listed(_folder(uri)) if _asked_about[_folder(uri)] >= WORTH_LISTING else None
            if listed is None:
                left.append(uri)
            else:
                _known[uri] = listed.get(uri, "missing")
        with ThreadPoolExecutor(objects.AT_ONCE) as threads:
            answers = list(threads.map(_ask, left))
        denied = [answer for answer in answers if isinstance(answer, OSError)]
        if denied and len(denied) == len(answers):
            raise denied[0]
        for uri, answer in zip(left, answers, strict=True):
            _known[uri] = answer if isinstance(answer, str) else "missing"  # listed, and rejected when it is read
    except OSError as error:
        raise DatasetError(f"dataset: {error}") from None
    return [_known[uri] for uri in uris]


def version_told(info: FileInfo) -> str:
    """Size and time of an object, in whole seconds, since a store may tell fractions in listings alone."""
    return f"{info.size}-{info.mtime_ns // 1_000_000_000}"


def content_versions(told: Sequence[tuple[str, str]]) -> list[str]:
    """A hash of the bytes of each object of (uri, version told), `missing` for one that cannot be read.

    Each is read once a process for the version told.
    """
    unknown = [pair for pair in dict.fromkeys(told) if pair not in _hashes]
    for start in range(0, len(unknown), _HASHED_AT_ONCE):
        part = unknown[start : start + _HASHED_AT_ONCE]
        for pair, blob in zip(part, read_blobs([uri for uri, _ in part]), strict=True):
            _hashes[pair] = content_version(blob) if isinstance(blob, bytes) else "missing"
    return [_hashes[pair] for pair in told]


_hashes: dict[tuple[str, str], str] = {}


def _folder(uri: str) -> str:
    return uri.rpartition("/")[0]


@lru_cache
def _listed(folder: str) -> dict[str, str] | None:
    """uri -> version of a folder's objects; None for a folder that we may not list."""
    try:
        found = objects.listing(folder)
    except (PermissionError, ValueError):
        return None
    return {uri: version_told(info) for uri, info in found if info.is_file}


def _ask(uri: str) -> str | OSError:
    try:
        found = objects.find(uri)
    except PermissionError as error:
        return error
    except ValueError:
        return "missing"
    return version_told(found) if found is not None and found.is_file else "missing"
