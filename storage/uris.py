"""What a blob is called: one line of text that says where its bytes lie, whatever holds them.

    /photos/it's a jay #1?.jpg                                              a local file, exactly as it is called
    tar:/data/birds-000.tar?member=wren/a%20b.jpg&offset=1536&size=20431    a member of a tar, by place
    parquet:/data/birds.parquet?column=image&group=3&row=17                 a cell: row 17 of row group 3
    s3://bucket/a b#1.jpg, gs://bucket/a.jpg                                an object, exactly as it is called
    https://host/a.jpg?size=2                                               whatever fsspec opens, as it stands
    file:///photos/a%20b.jpg                                                a local file, percent-encoded

In `tar:` and `parquet:` every byte but letters, digits and `_.-~/` is percent-encoded (UTF-8), so a name with
spaces, quotes, `?`, `&`, `#` or a line break comes back as it was. A path is never escaped, and one that begins like a
scheme is written from the root or with `./` before it. The member's name is there for people: only offset and size
are read, so a name such as `../../etc/passwd` leads nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

_TAR = re.compile(r"tar:(?P<path>[^?&]+)\?member=(?P<member>[^?&]*)&offset=(?P<offset>[0-9]+)&size=(?P<size>[0-9]+)")
_PARQUET = re.compile(
    r"parquet:(?P<path>[^?&]+)\?column=(?P<column>[^?&]*)&group=(?P<group>[0-9]+)&row=(?P<row>[0-9]+)"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


_quoted_path = lru_cache(maxsize=64)(quote)  # thousands of members have the path of one tar


@dataclass(frozen=True)
class LocalFile:
    """A file by its path."""

    path: str


@dataclass(frozen=True)
class TarMember:
    """`size` bytes from `offset` of the tar at `path`."""

    path: str
    member: str
    offset: int
    size: int


@dataclass(frozen=True)
class ParquetCell:
    """Row `row` (from 0, counted inside the row group) of a column with bytes, or with a struct `{bytes, ...}`."""

    path: str
    column: str
    group: int
    row: int


@dataclass(frozen=True)
class RemoteFile:
    """An object of an object store, or what fsspec opens."""

    url: str


Place = LocalFile | TarMember | ParquetCell | RemoteFile


def format_uri(place: Place) -> str:
    """The uri of a place; `parse_uri` gives the place back."""
    if isinstance(place, TarMember):
        return f"tar:{_quoted_path(place.path)}?member={quote(place.member)}&offset={place.offset}&size={place.size}"
    if isinstance(place, ParquetCell):
        return f"parquet:{_quoted_path(place.path)}?column={quote(place.column)}&group={place.group}&row={place.row}"
    return place.path if isinstance(place, LocalFile) else place.url


def place_order(uri: str) -> tuple[str, int, int]:
    """A sort key by which blobs of one tar or row group lie side by side, as they do in their file.

    `("", 0, 0)` for every other uri, so that a stable sort leaves plain files in their order.
    """
    if uri.startswith(("tar:", "parquet:")):
        place = parse_uri(uri)
        if isinstance(place, TarMember):
            return place.path, place.offset, 0
        if isinstance(place, ParquetCell):
            return place.path, place.group, place.row
    return "", 0, 0


def parse_uri(uri: str) -> Place:
    """The place that a uri names. ValueError for a `tar:` or `parquet:` uri, or a `file:` one, that names none."""
    if found := _TAR.fullmatch(uri):
        return TarMember(unquote(found["path"]), unquote(found["member"]), int(found["offset"]), int(found["size"]))
    if found := _PARQUET.fullmatch(uri):
        return ParquetCell(unquote(found["path"]), unquote(found["column"]), int(found["group"]), int(found["row"]))
    if uri.startswith(("tar:", "parquet:")):
        raise ValueError(
            f"{uri!r} is no uri of a tar's member (tar:PATH?member=M&offset=O&size=S) nor of a Parquet cell "
            "(parquet:PATH?column=C&group=G&row=R)"
        )
    if uri.lower().startswith("file://"):
        parts = urlsplit(uri, allow_fragments=False)
        if parts.netloc not in ("", "localhost") or parts.query or not parts.path.startswith("/"):
            raise ValueError(f"{uri!r} is no uri of a local file (file:///PATH, with ? as %3F)")
        return LocalFile(unquote(parts.path))
    return RemoteFile(uri) if _SCHEME.match(uri) else LocalFile(uri)
