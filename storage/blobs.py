"""Read blobs, many at a time: local files, members of tars, cells of Parquet files, objects, whatever fsspec opens.

The uris of a batch are grouped by what holds them, so a tar is opened once and a row group is read once. What goes
wrong with one blob is told in its place and costs no other.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa

from storage.filesystems import explained, is_object_uri
from storage.objects import open_object
from storage.uris import LocalFile, ParquetCell, Place, RemoteFile, TarMember, parse_uri

REMOTE_READS = 16
"""Remote files that are read at once."""
LARGEST = 1 << 30
"""Bytes of the largest blob that is read, by default."""

P = TypeVar("P", TarMember, ParquetCell, RemoteFile)


def read_blobs(uris: Sequence[str], largest: int = LARGEST) -> list[bytes | OSError]:
    """The bytes of each uri, in order, or an OSError that says why there are none (`storage.uris` has the grammar).

    A blob of more than `largest` bytes is not handed out: one could fill the memory. Its size is asked for first where
    that costs nothing; what a server sends is cut off there.
    """
    places: list[Place | OSError] = [_place(uri) for uri in uris]
    found: dict[Place, bytes | OSError] = {}
    for place in places:
        if isinstance(place, LocalFile) and place not in found:
            found[place] = _read_file(place.path, largest)
    for path, members in _by(places, TarMember, lambda place: place.path):
        found |= _read_members(path, members, largest)
    for (path, column, group), cells in _by(places, ParquetCell, lambda place: (place.path, place.column, place.group)):
        found |= _read_cells(path, column, group, cells, largest)
    remote = [place for _, group in _by(places, RemoteFile, lambda place: place.url) for place in group[:1]]
    if remote:
        with ThreadPoolExecutor(min(len(remote), REMOTE_READS)) as threads:
            found |= zip(remote, threads.map(lambda place: _read_remote(place, largest), remote), strict=True)
    return [place if isinstance(place, OSError) else found[place] for place in places]


def _place(uri: str) -> Place | OSError:
    try:
        return parse_uri(uri)
    except ValueError as error:
        return OSError(str(error))


def _by(places: Iterable[Place | OSError], kind: type[P], key: Callable[[P], object]) -> list[tuple]:
    """(key, places of that key) for the places of one kind."""
    groups: dict[object, list[P]] = {}
    for place in places:
        if isinstance(place, kind):
            groups.setdefault(key(place), []).append(place)
    return list(groups.items())


def _read_file(path: str, largest: int) -> bytes | OSError:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return OSError(f"{path} is no file")
        if status.st_size > largest:
            return _too_large(status.st_size, largest)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        return error
    except ValueError as error:  # a path with a null byte
        return OSError(str(error))


def _too_large(size: int | None, largest: int) -> OSError:
    """`size` is None where nobody said it and reading ended at `largest`."""
    return OSError(f"it has {'' if size is None else f'{size:,} bytes, '}more than the {largest:,} that are read")


def _read_members(path: str, members: Sequence[TarMember], largest: int) -> dict[Place, bytes | OSError]:
    """Members in the order in which they lie, from a tar that is opened once."""
    found: dict[Place, bytes | OSError] = {}
    try:
        with open(path, "rb") as file:
            for member in sorted(set(members), key=lambda member: member.offset):
                if member.size > largest:
                    found[member] = _too_large(member.size, largest)
                    continue
                file.seek(member.offset)
                data = file.read(member.size)
                short = OSError(
                    f"{path} ends inside the member at byte {member.offset}: it was cut since it was listed"
                )
                found[member] = data if len(data) == member.size else short
    except (OSError, ValueError, OverflowError) as error:
        reason = error if isinstance(error, OSError) else OSError(f"{path}: {error}")
        return {member: found.get(member, reason) for member in members}
    return found


def _read_cells(
    path: str, column: str, group: int, cells: Sequence[ParquetCell], largest: int
) -> dict[Place, bytes | OSError]:
    try:
        status = os.stat(path)
        values = _read_row_group(path, status.st_size, status.st_mtime_ns, column, group)
    except OSError as error:  # pyarrow's own OSErrors among them
        return dict.fromkeys(cells, error)
    except (ValueError, KeyError, IndexError) as error:  # pa.ArrowInvalid is a ValueError
        return dict.fromkeys(cells, OSError(f"row group {group} of {path} cannot be read: {error}"))
    found: dict[Place, bytes | OSError] = {}
    for cell in cells:
        value = values[cell.row] if cell.row < len(values) else None
        data = value.as_buffer() if isinstance(value, pa.BinaryScalar) else None  # no copy yet
        if data is None:
            found[cell] = OSError(f"row {cell.row} of group {group} of {path} has no bytes")
        else:
            found[cell] = data.to_pybytes() if data.size <= largest else _too_large(data.size, largest)
    return found


@lru_cache(maxsize=1)  # the batches of a job follow one another through a row group, which may hold a thousand images
def _read_row_group(path: str, size: int, mtime_ns: int, column: str, group: int) -> pa.ChunkedArray:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        kind = file.schema_arrow.field(column).type
        if pa.types.is_struct(kind):
            return pc.struct_field(file.read_row_group(group, [f"{column}.bytes"]).column(column), "bytes")
        return file.read_row_group(group, [column]).column(column)


def _read_remote(place: RemoteFile, largest: int) -> bytes | OSError:
    return _read_object(place.url, largest) if is_object_uri(place.url) else _read_by_fsspec(place, largest)


def _read_object(uri: str, largest: int) -> bytes | OSError:
    try:
        with open_object(uri) as file, explained(uri):
            return file.read() if file.size() <= largest else _too_large(file.size(), largest)
    except OSError as error:
        return error
    except ValueError as error:  # a uri that carries a query, or names no object
        return OSError(str(error))


def _read_by_fsspec(place: RemoteFile, largest: int) -> bytes | OSError:
    from fsspec.asyn import sync
    from fsspec.core import url_to_fs
    from fsspec.implementations.http import HTTPFileSystem

    try:
        file_system, path = url_to_fs(place.url)
        if isinstance(file_system, HTTPFileSystem):
            return sync(file_system.loop, _download, file_system, path, largest)
        data = file_system.cat_file(path, start=0, end=largest + 1)
        return data if len(data) <= largest else _too_large(None, largest)
    except OSError as error:
        return error
    except Exception as error:  # every protocol has errors of its own, and none may cost the rest of the batch
        return OSError(f"{place.url}: {type(error).__name__}: {error}")


async def _download(file_system: Any, url: str, largest: int) -> bytes | OSError:
    """What a web server answers, in one request and block by block: it may ignore a range, and say a wrong size."""
    session = await file_system.set_session()
    async with session.get(file_system.encode_url(url), **file_system.kwargs) as answer:
        if answer.status == 404:
            raise FileNotFoundError(errno.ENOENT, "the server has no such file", url)
        answer.raise_for_status()
        if answer.content_length is not None and answer.content_length > largest:
            return _too_large(answer.content_length, largest)
        data = bytearray()
        async for block in answer.content.iter_any():
            data += block
            if len(data) > largest:
                return _too_large(None, largest)
        return bytes(data)
