"""What every kind of data set answers: its images, one `Entry` each, and what it knows of its classes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO, Literal, NamedTuple

from stages.dataset import DatasetError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
_NEGATIVE = re.compile(r"-0*[1-9][0-9]*")
_DIGITS = 20
_BLOCK = 1 << 20


class Entry(NamedTuple):
    """An image as its data set knows it."""

    id: str
    version: str
    uri: str
    split: Literal["support", "validation", "query"]
    label: str | None
    """its label in the data set's own terms (a folder, a number, a name), None when it has none"""


@dataclass(frozen=True)
class Listing:
    """The images of a data set, to be gone through once, and what the data set says of its classes."""

    entries: Iterable[Entry]
    where: str
    """what messages call the data set: a folder or a file"""
    empty: str
    """what to say where there is no image"""
    noun: Literal["folder", "label"] = "label"
    """what a label is"""
    own: Mapping[str, str] | None = None
    """label -> class name in the data set's order, where it says so itself"""
    alphabetical: bool = False
    """whether the order of the classes is that of their labels, so that a list of names may follow it"""


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its suffix, and not when it is hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def known_label(text: str) -> str | None:
    """A label as it is written; None for a negative number, which is how data sets write that it is not known."""
    return None if _NEGATIVE.fullmatch(text) else text


def is_text(name: str) -> bool:
    """Whether a name is text that UTF-8, and so a table, can hold: file names and JSON may hold half characters."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_text(name: str, key: str) -> None:
    """Raise DatasetError, naming the setting `key`, for a file name that is not UTF-8 text."""
    if not is_text(name):
        raise DatasetError(f"{key}: the name of {os.fsencode(name)!r} is not UTF-8 text; rename it")


def file_version(path: str, how: str) -> str:
    """The version of a local file: size and modification time in ns, or 20 hex digits of its sha256 (`content`).

    What is no file (a pipe, a device) is not opened: it is listed, and rejected when it is read.
    """
    try:
        status = os.stat(path)
        if how == "content" and stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return _content_hash(path, status.st_size, status.st_mtime_ns)
    except OSError:
        try:
            status = os.lstat(path)  # a link to nowhere, a file not ours to read: listed, and rejected when decoded
        except OSError:
            return "missing"
    return f"{status.st_size}-{status.st_mtime_ns}"


@cache  # a run plans about ten times, and each plan reads the manifest anew
def _content_hash(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return stream_version(file, size)


def stream_version(file: BinaryIO, size: int) -> str:
    """`content_version` of the next `size` bytes of a file, however many, in little memory."""
    found = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        found.update(block)
        size -= len(block)
    return found.hexdigest()[:_DIGITS]


def content_version(data: bytes) -> str:
    """The version of an image by its bytes: 20 hex digits of their sha256."""
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
