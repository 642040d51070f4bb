"""Image files written by hand, where the decoder's own library cannot write them or must not be trusted to."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
"""The passes of an interlaced PNG: first column, first row, step of columns, step of rows."""


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(mode: str = "RGB", colour=(200, 30, 90), size=(6, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, bits: int, colour: int, rows: list[bytes], *more: bytes, interlaced=False) -> bytes:
    """A PNG of packed rows; `more` are chunks before the pixels. Colour 0 is grey, 2 RGB, 3 palette, 4 and 6 alpha."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def interlaced_png(grey: np.ndarray) -> bytes:
    height, width = grey.shape
    rows = [row.tobytes() for x, y, right, down in ADAM7 for row in grey[y::down, x::right] if row.size]
    return png(width, height, 8, 0, rows, interlaced=True)


def tiff(entries: dict[int, list[int]], pieces: list[bytes], order: str = "<") -> bytes:
    """A TIFF of these tags and uncompressed strips, or tiles where the tags give a tile's width (322)."""
    offsets, sizes = (324, 325) if 322 in entries else (273, 279)
    entries = {259: [1]} | entries | {sizes: [len(piece) for piece in pieces]}
    place = 8 + 2 + 12 * (len(entries) + 1) + 4
    starts = []
    for piece in pieces:
        starts.append(place)
        place += len(piece)
    entries[offsets] = starts
    directory, behind = b"", b""
    for tag, values in sorted(entries.items()):
        kind, letter = (3, "H") if max(values) < 1 << 16 else (4, "I")
        body = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(body) > 4:
            body, behind = struct.pack(f"{order}I", place + len(behind)), behind + body
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(entries))
    return head + directory + bytes(4) + b"".join(pieces) + behind


def bmp(width: int, height: int, bits: int, palette: list[tuple[int, int, int]], body: bytes, method: int = 0) -> bytes:
    """A BMP of packed rows from the lowest up, each padded to four bytes; method 1 is run-length coding."""
    colours = b"".join(bytes([blue, green, red, 0]) for red, green, blue in palette)
    start = 14 + 40 + len(colours)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, method, 0, 0, 0, len(palette), 0)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + info + colours + body


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG that repeats its last, nearly empty, scan."""
    data = encoded(Image.new("RGB", (width, height), (9, 99, 199)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]
