"""Bounds on the work that an image file may ask for, checked before and while it is decoded.

A few kilobytes can ask a decoder for minutes or gigabytes: thousands of progressive scans, millions of strips, chunks
or runs. No timer helps: a decoder written in C cannot be interrupted from another thread, only killed with its
process. So what costs time is counted instead, which also gives the same verdict on a busy machine as on an idle one.
With the limits below a decode takes seconds at worst, besides what its size in bytes and pixels honestly needs.
"""

from __future__ import annotations

import io
import re
import struct

from PIL import Image

LARGEST_FILE = 1 << 30
"""Bytes of the largest file that is looked at: more than the largest picture needs uncompressed, at 4 bytes a pixel."""
PIXELS_SCANNED = 4_000_000_000
"""Pixels times scans of a JPEG: about five seconds; 22 scans at the pixel limit, where ten are usual."""
STRIPS = 100_000
"""Strips or tiles of a TIFF: at the pixel limit 13,000 rows of one strip each, or 11,000 tiles of 128 x 128, fit."""
RUN_LENGTH_PIXELS = 1 << 24
"""Pixels of a run-length coded BMP, which Pillow expands in Python, one at a time: up to eight seconds."""
FREE_READS = {"BMP": 1 << 21}
"""Reads that a small file may take, by format: a run-length coded BMP is read byte by byte, others by whole pieces."""
USUAL_READS = 20_000
USUAL_PIECE = 1024
"""Bytes of a piece (chunk, strip, block), of which a large file may have as many as fill it."""
READ_AT_ONCE = 1 << 16
"""Pillow reads this much ahead of each strip, whatever its size; only longer reads count as reading the file again."""
TIMES_READ = 16
EXIF_SEGMENTS = 100
"""EXIF blocks of a JPEG, which Pillow joins one by one, copying all before; one is usual, and one more a preview."""

MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # not those without a length: stuffed zeros, TEM, restarts, fills
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
STRIP_OFFSETS, TILE_OFFSETS, STRIP_BYTES, TILE_BYTES, TILE_WIDTH, TILE_LENGTH = 273, 324, 279, 325, 322, 323


class UnreadableImage(ValueError):
    """These bytes are not a picture we can use; the message is a short reason for the `rejects` table."""


class BoundedFile(io.BytesIO):
    """The bytes of an image file; reading them too often raises `UnreadableImage`."""

    def __init__(self, data: bytes):
        super().__init__(data)
        free = FREE_READS.get("BMP" if data[:2] == b"BM" else "", USUAL_READS)
        self.reads_left = free + len(data) // USUAL_PIECE
        self.bytes_left = TIMES_READ * len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.reads_left -= 1
        self.bytes_left -= max(0, len(piece) - READ_AT_ONCE)
        if self.reads_left < 0 or self.bytes_left < 0:
            raise UnreadableImage("it is cut into more small pieces than a picture has")
        return piece


def check_bytes(data: bytes) -> None:
    """What can be said before any decoder sees the file; raises `UnreadableImage`."""
    if not data:
        raise UnreadableImage("the file is empty")
    if len(data) > LARGEST_FILE:
        raise UnreadableImage(f"{len(data)} bytes is more than the limit of {LARGEST_FILE}")
    if data[:2] == b"\xff\xd8" and data.count(b"Exif\0\0") > EXIF_SEGMENTS:
        raise UnreadableImage(f"a JPEG with more than {EXIF_SEGMENTS} blocks of EXIF")
    strips = _strips(data)
    if strips > STRIPS:
        raise UnreadableImage(f"a TIFF of {strips} strips or tiles, more than the limit of {STRIPS}")


def check_header(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """What the header of an opened, not yet decoded `image` asks for; raises `UnreadableImage`."""
    width, height = image.size
    pixels = width * height
    if pixels > max_pixels:
        raise UnreadableImage(f"{width} x {height} pixels is more than the limit of {max_pixels}")
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") * pixels > PIXELS_SCANNED:
        scans = _scans(data)  # exact, where the count above may meet thumbnails and what follows the picture
        if scans * pixels > PIXELS_SCANNED:
            raise UnreadableImage(f"a JPEG of {scans} scans over {width} x {height} pixels, too many to decode")
    if image.format == "TIFF":
        _check_tiff(image.tag_v2, data, max_pixels)
    if image.format == "BMP" and image.tile[0][0] == "bmp_rle" and pixels > RUN_LENGTH_PIXELS:
        raise UnreadableImage(f"a run-length coded BMP of {width} x {height}, more than {RUN_LENGTH_PIXELS} pixels")


def _check_tiff(tags, data: bytes, max_pixels: int) -> None:
    """A tile may be larger than the picture, and strips may overlap: libtiff would make and read them whole."""
    if tags.get(TILE_WIDTH, 0) * tags.get(TILE_LENGTH, 0) > max_pixels:
        raise UnreadableImage(f"a TIFF of tiles of {tags[TILE_WIDTH]} x {tags[TILE_LENGTH]} pixels")
    if any(sum(tags.get(tag, ())) > TIMES_READ * len(data) for tag in (STRIP_BYTES, TILE_BYTES)):
        raise UnreadableImage("a TIFF whose strips or tiles add up to many times the file")


def _scans(data: bytes) -> int:
    """Scans of a JPEG up to its end marker, stepping over the contents of segments as a decoder does."""
    scans, place = 0, 2
    while (marker := MARKER.search(data, place)) and data[marker.end() - 1] != END_OF_IMAGE:
        scans += data[marker.end() - 1] == START_OF_SCAN
        place = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    return scans


def _strips(data: bytes) -> int:
    """Strips or tiles that the first directory of a TIFF declares; 0 for other files.

    Pillow makes an object for each while it opens the file, before anything could be asked of it.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return 0
    try:
        if struct.unpack_from(f"{order}H", data, 2) == (43,):  # BigTIFF
            (start,) = struct.unpack_from(f"{order}Q", data, 8)
            (entries,) = struct.unpack_from(f"{order}Q", data, start)
            first, entry, step = start + 8, f"{order}HHQQ", 20
        else:
            (start,) = struct.unpack_from(f"{order}I", data, 4)
            (entries,) = struct.unpack_from(f"{order}H", data, start)
            first, entry, step = start + 2, f"{order}HHII", 12
        directory = data[first : first + min(entries, 1 << 16) * step]
        found = struct.iter_unpack(entry, directory[: len(directory) // step * step])
        return max((count for tag, _, count, _ in found if tag in (STRIP_OFFSETS, TILE_OFFSETS)), default=0)
    except (struct.error, OverflowError):
        return 0  # the directory lies outside the file, which the decoder will find too
