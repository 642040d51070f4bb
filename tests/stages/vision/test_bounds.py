"""Hostile and damaged files: a short reason, whatever they are, and no more work than their size deserves."""

from __future__ import annotations

import contextlib
import struct
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.vision import bounds
from stages.vision.bounds import UnreadableImage
from stages.vision.decode import decode_image

from .image_files import bmp, chunk, encoded, interlaced_png, many_scans, plain, png, tiff

TEXTURE = Image.effect_noise((24, 16), 60)
PIXEL = {256: [1], 257: [1], 258: [8], 262: [1], 277: [1], 278: [1]}


def bomb(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, [])


def gif_comment(blocks: int) -> bytes:
    data = encoded(plain(), "GIF")
    place = 13 + 3 * (2 << (data[10] & 7))
    return data[:place] + b"\x21\xfe" + b"\x01a" * blocks + b"\0" + data[place:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is a text, not a picture", "not an image"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (encoded(plain(size=(99, 99)), "JPEG")[:-400], "truncated or damaged"),
        (encoded(Image.effect_noise((64, 64), 50), "PNG")[:900], "truncated or damaged"),
        (bomb(16_000, 16_000), "decompression bomb"),
        (bomb(60_000, 60_000), "decompression bomb"),
        (bomb(0, 7), "not an image"),
    ],
)
def test_bad_files_say_what_is_wrong_with_them(data, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImage, match=reason):
            decode_image(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_file_of_any_kind_that_ends_early_is_refused(kind, share):
    data = encoded(Image.effect_noise((60, 40), 60).convert("RGB"), kind)
    with pytest.raises(UnreadableImage):
        decode_image(data[: int(len(data) * share)])


def test_the_pixel_limit_is_a_setting_and_counts_what_the_header_says():
    with pytest.raises(UnreadableImage, match="6 x 4 pixels is more than the limit of 20"):
        decode_image(encoded(plain(), "PNG"), max_pixels=20)
    lying = bytearray(encoded(plain(), "BMP"))
    lying[18:26] = struct.pack("<II", 6_000, 4_000)
    with pytest.raises(UnreadableImage, match="truncated or damaged"):
        decode_image(bytes(lying))


def test_a_jpeg_of_thousands_of_scans_is_refused_and_one_of_usual_scans_is_not(monkeypatch):
    with pytest.raises(UnreadableImage, match="a JPEG of 2010 scans over 2000 x 1500 pixels"):
        decode_image(many_scans(2000, 1500, 2000))
    monkeypatch.setattr(bounds, "PIXELS_SCANNED", 12 * 64)
    assert decode_image(many_scans(8, 8, 2)).shape == (8, 8, 3)  # ten scans of Pillow's and two of ours
    with pytest.raises(UnreadableImage, match="a JPEG of 13 scans"):
        decode_image(many_scans(8, 8, 3))


def test_scans_are_counted_in_the_picture_alone(monkeypatch):
    """Thumbnails, other segments and what follows the end of the picture may hold the bytes of a scan."""
    monkeypatch.setattr(bounds, "PIXELS_SCANNED", 24)
    data = encoded(plain(), "JPEG", comment=b"\xff\xda" * 50) + b"\xff\xda" * 50
    assert decode_image(data).shape == (4, 6, 3)


@pytest.mark.parametrize(
    "data",
    [
        png(1, 1, 8, 0, [b"\0"], chunk(b"fiEl", b"") * 30_000),
        gif_comment(30_000),
        encoded(plain(), "JPEG").replace(b"\xff\xdb", b"\xff\xe5\0\2" * 30_000 + b"\xff\xdb", 1),
        tiff(PIXEL | {257: [30_000]}, [b"\0"] * 30_000),
    ],
    ids=["png chunks", "gif blocks", "jpeg segments", "tiff strips"],
)
def test_files_of_very_many_pieces_are_refused(data):
    with pytest.raises(UnreadableImage, match="cut into more small pieces than a picture has"):
        decode_image(data)


def test_a_large_file_of_pieces_of_a_usual_size_is_read(monkeypatch):
    monkeypatch.setattr(bounds, "USUAL_READS", 100)
    rows = 1000
    strips = [bytes([row % 256]) * 1100 for row in range(rows)]
    data = tiff({256: [1100], 257: [rows], 258: [8], 262: [1], 277: [1], 278: [1]}, strips)
    assert decode_image(data)[:, 0, 0].tolist() == [row % 256 for row in range(rows)]
    with pytest.raises(UnreadableImage, match="small pieces"):
        decode_image(tiff(PIXEL | {257: [rows]}, [b"\0"] * rows))


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_that_declares_a_hundred_thousand_strips_is_refused_before_it_is_opened(big):
    declared = 200_000
    if big:
        entry = struct.pack("<HHQQ", 273, 3, declared, 0)
        data = b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, 1) + entry
    else:
        data = b"MM" + struct.pack(">HIHHHII", 42, 8, 1, 273, 3, declared, 0)
    with pytest.raises(UnreadableImage, match="a TIFF of 200000 strips or tiles, more than the limit of 100000"):
        decode_image(data + bytes(declared))


def test_tiffs_whose_tiles_are_absurd_or_overlap_are_refused():
    with pytest.raises(UnreadableImage, match="tiles of 60000 x 60000"):
        decode_image(tiff(PIXEL | {322: [60_000], 323: [60_000]}, [b"\0"]))
    data = bytearray(tiff(PIXEL | {257: [50], 259: [5]}, [b"\0\0\0\0"] * 50))
    sizes = data.index(struct.pack("<HH", 279, 3))
    place = struct.unpack_from("<I", data, sizes + 8)[0]
    data[place : place + 100] = struct.pack("<H", 60_000) * 50
    with pytest.raises(UnreadableImage, match="add up to many times the file"):
        decode_image(bytes(data))


def test_run_length_bmps_are_read_up_to_a_size():
    with pytest.raises(UnreadableImage, match="run-length coded BMP of 5000 x 5000"):
        decode_image(bmp(5000, 5000, 8, [(0, 0, 0)], b"\0\1", method=1))


def test_a_jpeg_of_hundreds_of_exif_blocks_is_refused_and_one_of_two_is_read():
    def with_blocks(count: int) -> bytes:
        block = b"\xff\xe1\0\x0eExif\0\0abcdef"
        return encoded(plain(), "JPEG").replace(b"\xff\xdb", block * count + b"\xff\xdb", 1)

    assert decode_image(with_blocks(2)).shape == (4, 6, 3)
    with pytest.raises(UnreadableImage, match="more than 100 blocks of EXIF"):
        decode_image(with_blocks(300))


def test_files_that_are_too_long_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(bounds, "LARGEST_FILE", 50)
    with pytest.raises(UnreadableImage, match="bytes is more than the limit of 50"):
        decode_image(encoded(plain(), "PNG"))


SAMPLES = [
    encoded(TEXTURE.convert(mode), kind, **options)
    for kind, mode, options in [
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("JPEG", "L", {"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "I;16", {}),
        ("GIF", "P", {"transparency": 3, "save_all": True, "append_images": [TEXTURE]}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True, "save_all": True, "append_images": [TEXTURE.convert("RGBA")]}),
        ("TIFF", "RGB", {}),
        ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
        ("TIFF", "F", {}),
        ("TIFF", "P", {"compression": "tiff_adobe_deflate", "save_all": True, "append_images": [TEXTURE]}),
        ("BMP", "RGB", {}),
        ("BMP", "1", {}),
    ]
] + [
    interlaced_png(np.asarray(TEXTURE)),
    bmp(8, 2, 8, [(1, 2, 3), (9, 8, 7)], b"\x03\x01\x00\x00\x00\x02\x01\x01\x04\x00\x00\x01", method=1),
    tiff({256: [24], 257: [16], 258: [8], 262: [1], 277: [1], 322: [16], 323: [16]}, [bytes(256)] * 2),
]


def pixels_or_one_error(data: bytes) -> None:
    with contextlib.suppress(UnreadableImage):
        pixels = decode_image(data, max_pixels=1 << 22)
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.dtype == np.uint8


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=4)), max_size=8),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=12)), max_size=2),
    st.integers(0, 1 << 16),
)
def test_damaged_bytes_give_pixels_or_one_kind_of_error(data, changes, insertions, end):
    damaged = bytearray(data)
    for place, values in changes:
        at = place % len(data)
        damaged[at : at + len(values)] = values
    for place, values in insertions:
        at = place % len(damaged)
        damaged[at:at] = values
    pixels_or_one_error(bytes(damaged[: end % len(damaged) + 1 if end % 3 == 0 else len(damaged)]))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"II+\0"]),
    st.binary(max_size=300),
)
@example(b"RIFF\x24\0\0\0WEBPVP8 ", bytes(24))
def test_random_bytes_behind_any_signature_give_pixels_or_one_kind_of_error(start, rest):
    pixels_or_one_error(start + rest)
