"""What `storage.files` does with paths, done with objects: an object appears whole or not at all, and has no folder.

A folder is what keys have in common up to a slash. Listings come in pages of a thousand, a request each.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa

from storage.filesystems import explained, no_bucket, open_filesystem

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

AT_ONCE = 16
"""Objects that are read at once."""
WHOLE = 256 << 10
"""Bytes up to which an object is fetched whole by the first look into it: less than the time of more requests."""


def put(uri: str, data: bytes | memoryview) -> None:
    """Put an object, replacing what was there.

    One request up to 10 MB. A larger one goes in parts that nobody sees before the last is there: those of a process
    that died stay in the bucket, unseen, until its rule for incomplete uploads removes them.
    """
    filesystem, path = open_filesystem(uri)

    def write() -> None:
        try:
            with explained(uri), filesystem.open_output_stream(path, compression=None) as stream:
                stream.write(data)
        except FileNotFoundError:  # nothing else can be missing for an object to be put
            raise no_bucket(uri) from None

    # Closing the stream is what makes the object, however little was written: an interrupt, which only the main
    # thread gets, would leave an empty one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(write).result()


def get(uri: str) -> bytes:
    """All bytes of an object; FileNotFoundError where there is none."""
    with open_object(uri) as file, explained(uri):
        return file.read()


def get_each(uris: Sequence[str]) -> list[bytes]:
    """The bytes of each object, many at once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(get, uris))


def open_object(uri: str) -> pa.NativeFile:
    """An object for random reads, each a request; its size is known."""
    filesystem, path = open_filesystem(uri)
    with explained(uri):
        return filesystem.open_input_file(path)


def open_fetched(uri: str) -> pa.NativeFile:
    """An object for random reads: in memory already where it is small."""
    file = open_object(uri)
    if file.size() > WHOLE:
        return file
    with file, explained(uri):
        return pa.BufferReader(file.read_buffer())


def find(uri: str) -> FileInfo | None:
    """Size and time of an object, or that there is a folder of that name; None for neither."""
    from pyarrow.fs import FileType

    filesystem, path = open_filesystem(uri)
    with explained(uri):
        found = filesystem.get_file_info(path)
    return None if found.type == FileType.NotFound else found


def listing(folder: str, recursive: bool = False) -> list[tuple[str, FileInfo]]:
    """(uri, what is known) of the objects and folders in a folder, sorted; with all below them if `recursive`."""
    from pyarrow.fs import FileSelector

    filesystem, path = open_filesystem(folder)
    with explained(folder):
        found = filesystem.get_file_info(FileSelector(path, recursive=recursive, allow_not_found=True))
    scheme = folder.partition("://")[0]
    return sorted(((f"{scheme}://{info.path}", info) for info in found), key=lambda pair: pair[0])


def folders(folder: str) -> list[str]:
    """Uris of the folders in a folder, sorted."""
    if not folder.startswith("gs:"):
        return [uri for uri, info in listing(folder) if not info.is_file]
    # Google's file system tells only folders that somebody made; those that keys imply are read off the keys.
    start = len(folder.rstrip("/")) + 1
    inside = (uri[start:].partition("/") for uri, info in listing(folder, recursive=True) if info.is_file)
    return sorted({f"{folder.rstrip('/')}/{name}" for name, below, _ in inside if below})


def remove(uri: str) -> None:
    """Remove an object; a missing one is fine."""
    filesystem, path = open_filesystem(uri)
    with suppress(FileNotFoundError), explained(uri):
        filesystem.delete_file(path)


def remove_below(folder: str) -> None:
    """Remove a folder's objects, a thousand a request; first those that say what the others are.

    A crash in between leaves objects that nothing vouches for: a table without its `table.json`, a database without
    its markers.
    """
    for uri, info in listing(folder):
        if info.is_file and info.extension == "json":
            remove(uri)
    filesystem, path = open_filesystem(folder)
    with suppress(FileNotFoundError), explained(folder):
        filesystem.delete_dir(path)
