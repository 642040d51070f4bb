"""Decoding: every kind of file becomes upright RGB, everything else one kind of error."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.vision.decode import UnreadableImage, decode_image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(mode: str = "RGB", colour=(200, 30, 90), size=(6, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_every_format_is_read(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode_image(encoded(plain(), kind, **options))
    assert pixels.shape == (4, 6, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[0, 0], (200, 30, 90), atol=3 if kind == "JPEG" else 0)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("LA", (0, 51), (204, 204, 204)),  # black at one fifth over white
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb_over_white(mode, colour, expected):
    assert decode_image(encoded(plain(mode, colour), "PNG"))[0, 0].tolist() == list(expected)


def test_a_transparent_palette_entry_is_white():
    image = plain("P", 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    assert decode_image(encoded(image, "PNG"))[0, 0].tolist() == [10, 20, 30]
    assert decode_image(encoded(image, "PNG", transparency=1))[0, 0].tolist() == [255, 255, 255]
    assert decode_image(encoded(image, "PNG", transparency=bytes([255, 0])))[0, 0].tolist() == [255, 255, 255]


def test_a_transparent_rgb_colour_is_white():
    data = encoded(plain(), "PNG", transparency=(200, 30, 90))
    assert decode_image(data)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind):
    grey = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    pixels = decode_image(encoded(Image.fromarray(grey), kind))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (pixels == pixels[..., :1]).all()


def test_wide_tiffs_take_the_smallest_usual_range_that_holds_them():
    def decoded(values, dtype):
        return decode_image(encoded(Image.fromarray(np.array([values], dtype=dtype)), "TIFF"))[0, :, 0].tolist()

    assert decoded([0.0, 0.2, 1.0, np.nan], np.float32) == [0, 51, 255, 0]
    assert decoded([0.0, 51.0, 255.0], np.float32) == [0, 51, 255]
    assert decoded([-5, 257, 65535], np.int32) == [0, 1, 255]
    assert decoded([0, 1_000_000], np.int32) == [0, 255]


def test_cmyk_jpegs_become_rgb():
    pixels = decode_image(encoded(plain("CMYK", (0, 255, 255, 0)), "JPEG"))
    np.testing.assert_allclose(pixels[0, 0], (255, 0, 0), atol=6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(orientation, kind):
    corners = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    stored = {
        1: corners,
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.T,
        6: np.rot90(corners, 1),
        7: corners[::-1, ::-1].T,
        8: np.rot90(corners, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
    assert decode_image(encoded(image, kind, exif=exif))[..., 0].tolist() == corners.tolist()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_taken(kind):
    frames = [plain(colour=(250, 0, 0)), plain(colour=(0, 250, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert pixels[0, 0].tolist() == [250, 0, 0]


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is this large, and holds no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is a text, not a picture", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(plain(size=(99, 99)), "JPEG")[:-400], "truncated or damaged"),
        (encoded(Image.effect_noise((64, 64), 50), "PNG")[:900], "truncated or damaged"),
        (bomb(16_000, 16_000), "decompression bomb"),
        (bomb(60_000, 60_000), "decompression bomb"),
    ],
)
def test_bad_files_say_what_is_wrong_with_them(data, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImage, match=reason):
            decode_image(data)


def test_the_pixel_limit_is_a_setting():
    with pytest.raises(UnreadableImage, match="6 x 4 pixels is more than the limit of 20"):
        decode_image(encoded(plain(), "PNG"), max_pixels=20)


SAMPLES = [
    encoded(Image.effect_noise((24, 16), 60).convert(mode), kind)
    for kind, mode in [
        ("JPEG", "RGB"),
        ("PNG", "RGBA"),
        ("GIF", "P"),
        ("WEBP", "RGB"),
        ("TIFF", "RGB"),
        ("BMP", "RGB"),
    ]
]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=12),
    st.integers(0, 1 << 16),
)
def test_damaged_bytes_give_pixels_or_one_kind_of_error(data, changes, end):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(data)] = value
    kept = end % len(data) + 1 if end % 3 == 0 else len(data)
    with contextlib.suppress(UnreadableImage):
        pixels = decode_image(bytes(damaged[:kept]), max_pixels=1 << 22)
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.dtype == np.uint8
