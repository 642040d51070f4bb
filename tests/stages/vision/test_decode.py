"""Decoding: every kind of file becomes the RGB pixels it was built from, upright and over white."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from stages.vision.decode import decode_image

from .image_files import bmp, chunk, encoded, interlaced_png, plain, png, tiff

LEVELS = [0, 257, 128 * 257, 65535, 300, 40_000]  # of 16 bits; the first four are 0, 1, 128, 255 exactly
SIXTEEN = np.array([[level, 65535 - level, 257 * 7] for level in LEVELS])[None]  # [1, 6, 3]


def reds(data: bytes) -> list[int]:
    return decode_image(data)[0, :, 0].tolist()


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


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 2}, {"optimize": True}, {"restart_marker_rows": 1}]
)
def test_jpegs_however_coded_keep_their_colours(options):
    image = np.repeat(np.repeat(np.array([[[200, 30, 90], [10, 240, 120]]], np.uint8), 16, axis=0), 16, axis=1)
    pixels = decode_image(encoded(Image.fromarray(image), "JPEG", quality=95, **options))
    np.testing.assert_allclose(pixels[:, [3, 28]], image[:, [3, 28]], atol=4)


@pytest.mark.parametrize("inks", [(0, 255, 255, 0), (40, 80, 160, 30), (0, 0, 0, 200), (0, 0, 0, 0)])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_the_light_that_its_inks_leave(inks, kind):
    """Pillow writes CMYK JPEGs as Adobe does: inverted, with Adobe's marker."""
    left = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    np.testing.assert_allclose(decode_image(encoded(plain("CMYK", inks), kind))[0, 0], left, atol=3)


def test_ycck_becomes_the_light_that_its_inks_leave():
    """YCCK is written as CMYK whose marker then says otherwise: the first three inks are luma and two chromas."""
    luma, blue, red, black = 100, 90, 170, 40
    # the file holds 255 - ink; luma and chromas are those of 255 - (255 - ink), so their "colour" is the ink itself
    stored = (255 - luma, 255 - blue, 255 - red, black)
    data = bytearray(encoded(plain("CMYK", stored, (16, 16)), "JPEG", quality=98, subsampling=0))
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0, "CMYK"
    data[marker + 11] = 2  # YCCK
    inks = (luma + 1.402 * (red - 128), luma - 0.344 * (blue - 128) - 0.714 * (red - 128), luma + 1.772 * (blue - 128))
    left = [(255 - ink) * (255 - black) / 255 for ink in inks]
    np.testing.assert_allclose(decode_image(bytes(data))[3, 3], left, atol=4)


def test_a_transparent_palette_entry_is_white():
    image = plain("P", 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    for kind in ("PNG", "GIF"):
        assert decode_image(encoded(image, kind))[0, 0].tolist() == [10, 20, 30]
    # a GIF writer drops colours that no pixel has, so its transparent one is the only one
    assert decode_image(encoded(image, "PNG", transparency=1))[0, 0].tolist() == [255, 255, 255]
    assert decode_image(encoded(image, "PNG", transparency=bytes([255, 0])))[0, 0].tolist() == [255, 255, 255]
    assert decode_image(encoded(image, "GIF", transparency=1))[0, 0].tolist() == [255, 255, 255]


def test_a_transparent_colour_is_white_at_every_depth_and_its_neighbours_are_not():
    def key(*levels: int) -> bytes:
        return chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))

    assert reds(encoded(plain(), "PNG", transparency=(200, 30, 90))) == [255] * 6
    assert reds(png(8, 1, 1, 0, [b"\x0f"], key(0))) == [255] * 8
    assert reds(png(4, 1, 2, 0, [b"\x1b"], key(1))) == [0, 255, 170, 255]
    assert reds(png(4, 1, 4, 0, [b"\x01\x2f"], key(2))) == [0, 17, 255, 255]
    assert reds(png(3, 1, 16, 0, [struct.pack(">3H", 0, 257, 514)], key(257))) == [0, 255, 2]
    assert reds(png(2, 1, 16, 2, [struct.pack(">6H", 257, 257, 257, 514, 514, 514)], key(257, 257, 257))) == [255, 2]


@pytest.mark.parametrize(("bits", "row"), [(1, b"\x50"), (2, b"\x11"), (4, b"\x01\x01"), (8, b"\0\1\0\1")])
def test_palettes_of_every_depth_give_their_colours(bits, row):
    palette = chunk(b"PLTE", bytes([1, 2, 3, 200, 100, 50]))
    assert decode_image(png(4, 1, bits, 3, [row], palette))[0, 1].tolist() == [200, 100, 50]
    assert reds(png(4, 1, bits, 3, [row], palette)) == [1, 200, 1, 200]


def test_interlaced_pngs_are_put_together():
    grey = np.arange(9 * 11, dtype=np.uint8).reshape(9, 11)
    assert (decode_image(interlaced_png(grey)) == grey[..., None]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind):
    grey = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    pixels = decode_image(encoded(Image.fromarray(grey), kind))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (pixels == pixels[..., :1]).all()


def test_sixteen_bit_grey_of_either_byte_order_is_the_same():
    tags = {256: [4], 257: [1], 258: [16], 262: [1], 277: [1], 278: [1]}
    for order in "<>":
        assert reds(tiff(tags, [struct.pack(f"{order}4H", 0, 257, 128 * 257, 65535)], order)) == [0, 1, 128, 255]


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colours_keep_their_upper_byte(channels):
    opaque = np.concatenate([SIXTEEN, np.full((1, 6, 1), 65535)], axis=2)[..., :channels]
    by_png = decode_image(png(6, 1, 16, {3: 2, 4: 6}[channels], [opaque.astype(">u2").tobytes()]))
    assert (by_png == SIXTEEN >> 8).all()
    tags = {256: [6], 257: [1], 258: [16] * channels, 262: [2], 277: [channels], 278: [1]}
    tags |= {338: [2]} if channels == 4 else {}
    for order in "<>":
        assert (decode_image(tiff(tags, [opaque.astype(f"{order}u2").tobytes()], order)) == SIXTEEN >> 8).all()


def test_sixteen_bit_grey_with_alpha_lies_over_white():
    row = struct.pack(">4H", 0, 51 * 257, 65535, 0)  # black at one fifth, white that cannot be seen
    assert reds(png(2, 1, 16, 4, [row])) == [204, 255]


def test_wide_tiffs_take_the_smallest_usual_range_that_holds_them():
    def decoded(values, dtype):
        return reds(encoded(Image.fromarray(np.array([values], dtype=dtype)), "TIFF"))

    assert decoded([0.0, 0.2, 1.0, np.nan], np.float32) == [0, 51, 255, 0]
    assert decoded([0.0, 51.0, 255.0], np.float32) == [0, 51, 255]
    assert decoded([-np.inf, 0.2, 1.0, np.inf], np.float32) == [0, 51, 255, 255]
    assert decoded([np.nan, np.nan], np.float32) == [0, 0]
    assert decoded([-5, 257, 65535], np.int32) == [0, 1, 255]
    assert decoded([0, 1_000_000], np.int32) == [0, 255]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "1"])
def test_tiffs_however_packed_keep_their_pixels(compression, mode):
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8)).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert (decode_image(encoded(image, "TIFF", compression=compression)) == expected).all()
    assert (decode_image(encoded(image, "TIFF", compression=compression, big_tiff=True)) == expected).all()


def test_tiffs_in_tiles_planes_and_strips_are_put_together():
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, (32, 48, 3), np.uint8)
    tags = {256: [48], 257: [32], 258: [8, 8, 8], 262: [2], 277: [3]}
    tiles = [image[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16, 32)]
    assert (decode_image(tiff(tags | {322: [16], 323: [16]}, tiles)) == image).all()
    strips = [image[y : y + 10].tobytes() for y in range(0, 32, 10)]
    assert (decode_image(tiff(tags | {278: [10]}, strips)) == image).all()
    planes = [image[..., channel].tobytes() for channel in range(3)]
    assert (decode_image(tiff(tags | {278: [32], 284: [2]}, planes)) == image).all()


def test_tiff_greys_and_palettes_mean_what_their_tags_say():
    tags = {256: [3], 257: [1], 258: [8], 277: [1], 278: [1]}
    assert reds(tiff(tags | {262: [0]}, [b"\x00\x0a\xff"])) == [255, 245, 0], "white is zero"
    red = [257 * level for level in range(256)]
    colours = tags | {262: [3], 320: red + red[::-1] + [0] * 256}
    assert decode_image(tiff(colours, [b"\x00\x0a\xff"]))[0].tolist() == [[0, 255, 0], [10, 245, 0], [255, 0, 0]]
    alpha = tags | {258: [8, 8], 277: [2], 262: [1]}
    assert reds(tiff(alpha | {338: [2]}, [bytes([100, 51, 0, 0, 9, 255])])) == [224, 255, 9]
    premultiplied = [bytes([20, 51, 0, 0, 9, 255])]  # 20 of 51 is 100 of 255
    assert reds(tiff(alpha | {338: [1]}, premultiplied)) == [224, 255, 9]


@pytest.mark.parametrize(("bits", "body"), [(1, b"\x60\0\0\0"), (4, b"\x01\x10\0\0"), (8, b"\0\1\1\0")])
def test_bmp_palettes_of_every_depth_give_their_colours(bits, body):
    assert decode_image(bmp(4, 1, bits, [(1, 2, 3), (200, 100, 50)], body))[0, :2].tolist() == [
        [1, 2, 3],
        [200, 100, 50],
    ]
    assert reds(bmp(4, 1, bits, [(1, 2, 3), (200, 100, 50)], body)) == [1, 200, 200, 1]


def test_bmps_of_24_and_32_bits_and_run_lengths():
    assert decode_image(bmp(1, 2, 24, [], b"\3\2\1\0\6\5\4\0"))[:, 0].tolist() == [[4, 5, 6], [1, 2, 3]], "lowest first"
    assert decode_image(bmp(1, 1, 32, [], b"\3\2\1\0"))[0, 0].tolist() == [1, 2, 3], "the fourth byte is no alpha"
    runs = b"\x03\x01\x01\x00\x00\x00" + b"\x04\x00" + b"\x00\x01"  # row, end of line, row, end
    assert decode_image(bmp(4, 2, 8, [(1, 2, 3), (200, 100, 50)], runs, method=1))[..., 0].tolist() == [
        [1, 1, 1, 1],
        [200, 200, 200, 1],
    ]


def test_webp_with_and_without_loss_and_alpha():
    np.testing.assert_allclose(
        decode_image(encoded(plain(size=(32, 32)), "WEBP", quality=95))[9, 9], (200, 30, 90), atol=6
    )
    seen = decode_image(encoded(plain("RGBA", (255, 0, 0, 51)), "WEBP", lossless=True))
    assert seen[0, 0].tolist() == [255, 204, 204]


CORNERS = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
STORED = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.T,
    6: np.rot90(CORNERS, 1),
    7: CORNERS[::-1, ::-1].T,
    8: np.rot90(CORNERS, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_applied_once(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.kron(STORED[orientation], np.ones((8, 8), np.uint8))  # JPEG blocks of one colour
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode_image(encoded(Image.fromarray(stored).convert("RGB"), kind, exif=exif, **options))
    np.testing.assert_allclose(pixels[4::8, 4::8, 0], CORNERS, atol=2 if kind == "JPEG" else 0)


def test_broken_exif_beside_good_pixels_does_no_harm():
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"no exif at all"):
        assert decode_image(encoded(plain(), "JPEG", exif=exif)).shape == (4, 6, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_taken(kind):
    frames = [plain(colour=(250, 0, 0)), plain(colour=(0, 250, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert pixels[0, 0].tolist() == [250, 0, 0]
