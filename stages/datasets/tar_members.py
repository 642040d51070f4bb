"""The members of a tar by place, so that one of them is read later by a seek."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from stages.dataset import DatasetError


class Member(NamedTuple):
    """A file in a tar: its name (only a name: it touches no file system), where its bytes lie, its header."""

    name: str
    offset: int
    """byte of the tar at which the data begins"""
    size: int
    """bytes"""
    mtime_ns: int
    """modification time from the header, nanoseconds since 1970"""


def read_members(path: str, file: BinaryIO) -> Iterator[Member]:
    """Files of the tar open in `file`, in the order in which their headers lie; soft links and devices are passed over.

    A hard link is one more name for the bytes of an earlier member, as tar writes a file that has two names. Only
    headers are read. Raises DatasetError, naming `path` and the byte, for a tar that is cut off (also one without its
    end mark) or damaged: `tarfile` takes most of these for the end.
    """
    total = os.fstat(file.fileno()).st_size
    start = file.read(6)
    if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start == b"\xfd7zXZ\x00" or start[:4] == b"\x28\xb5\x2f\xfd":
        raise DatasetError(f"dataset.path: {path} is packed; unpack it, since its images are read one by one")
    tar = _OpenTar(file)
    met: dict[str, Member] = {}
    while True:
        header = tar.offset
        try:
            file.seek(header)
            info = tarfile.TarInfo.fromtarfile(tar)
            if info.size < 0:  # a forged size would send the reader backwards, round and round
                raise tarfile.ReadError(f"a member of {info.size} bytes")
            member = Member(info.name, info.offset_data, info.size, round(info.mtime * 1_000_000_000))
        except tarfile.EOFHeaderError:
            return
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError):
            raise DatasetError(
                f"dataset.path: {path} is cut off: it ends at byte {total} without an end mark"
            ) from None
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            cut = " (it is cut off)" if header + tarfile.BLOCKSIZE >= total else ""
            raise DatasetError(f"dataset.path: {path} is damaged at byte {header}{cut}: {error}") from None
        if member.offset + member.size > total and info.isreg():
            raise DatasetError(
                f"dataset.path: {path} is cut off: {member.name!r}, at byte {header}, reaches to byte "
                f"{member.offset + member.size}, the file to {total}"
            )
        if info.islnk() and info.linkname in met:
            earlier = met[info.linkname]
            member = member._replace(offset=earlier.offset, size=earlier.size)
        elif not info.isreg() or info.sparse is not None:
            continue
        met[member.name] = member
        yield member


class _OpenTar:
    """What `TarInfo.fromtarfile` needs of a tar; a `TarFile` would keep every member it has met."""

    encoding = "utf-8"
    errors = "surrogateescape"

    def __init__(self, file: BinaryIO):
        self.fileobj = file
        self.offset = 0
        self.pax_headers: dict[str, str] = {}
