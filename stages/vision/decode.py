"""Bytes of an image file -> RGB pixels, or one short reason why not.

Everything that makes photographs differ (palette, alpha, grey, CMYK, 16 bit, EXIF rotation, first frames)
ends here: what leaves this module is always upright uint8 RGB, converted before any crop or resize
(algorithms.md 0.4, item 1).
"""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image

from stages.vision.bounds import BoundedFile, UnreadableImage, check_bytes, check_header

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")  # a closed list: other Pillow readers start programs (EPS)
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


DETAIL = 2
"""Pixels that a reduced picture keeps, along each side, for one pixel of the smallest crop at the encoder's size."""
SHORT_GREYS = {"L;2": 85, "L;4": 17}
"""Pillow spreads PNG greys of 2 and 4 bits over 0..255 by these factors, but not the one that is transparent."""


def decode_image(data: bytes, *, max_pixels: int = 178_956_970) -> np.ndarray:
    """Decode one image file into uint8 RGB `[H, W, 3]`, upright, transparency over white, first frame of several.

    The format is told by the content, not by a name. `max_pixels` is the largest width x height that is decoded (the
    default is Pillow's own limit, which stays in force); it is checked on the header, before any pixel is read. Other
    bounds on the work are those of `stages.vision.bounds`. Of 16-bit colours the upper byte is taken (within one level
    of rounding), 16-bit greys are rounded; CMYK in a JPEG is inverted, as Adobe writes it. Raises `UnreadableImage`,
    and nothing else, for empty, truncated, damaged, foreign or oversized data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_bytes(data)
            with Image.open(BoundedFile(data), formats=FORMATS) as image:
                check_header(image, data, max_pixels)
                _mend_transparency(image)
                image.load()
                return np.asarray(_to_rgb(_upright(image)))
        except UnreadableImage:
            raise
        except Image.UnidentifiedImageError:
            raise UnreadableImage("not an image (JPEG, PNG, WebP, TIFF, BMP and GIF are read)") from None
        except Image.DecompressionBombError:
            raise UnreadableImage("the header asks for too many pixels (decompression bomb)") from None
        except MemoryError:
            raise UnreadableImage("not enough memory to decode it") from None
        except Exception as error:
            # Pillow's readers answer damaged bytes with OSError, SyntaxError, struct.error, KeyError and others;
            # one damaged file must become one rejected row, so this boundary catches them all.
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise UnreadableImage(f"truncated or damaged: {reason}") from None


def reduce_image(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Average `pixels` uint8 `[H, W, 3]` over boxes of `factor x factor` -> uint8 `[ceil(H/f), ceil(W/f), 3]`.

    Whole numbers within 2/3 of the average (Pillow's arithmetic); boxes that the right or lower edge cuts average what
    is left of them. Factor 1 gives `pixels` itself. Raises ValueError for a factor below 1.
    """
    if factor < 1:
        raise ValueError(f"the factor is a whole number from 1, not {factor}")
    if factor == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).reduce(factor))


def reduction(width: int, height: int, smallest_side: float, size: int) -> int:
    """The largest whole factor by which a `width x height` picture may shrink before crops are cut from it, >= 1.

    The smallest crop, `smallest_side` pixels long (its share times the shorter side), keeps at least `DETAIL` pixels
    for each of the `size` that the encoder sees. On photographs, crops cut after reducing are then within 8 of 255
    levels of those cut at full size for 99.9 % of values, 13 at most and 0.9 on average, where the corners of the box
    are multiples of the factor. Elsewhere rounding them moves a box by up to a quarter of an output pixel, which
    changes more: within 32 levels for 99.9 %, 65 at most, 2.3 on average.
    """
    return max(1, int(min(smallest_side, width, height) / (DETAIL * size)))


def _mend_transparency(image: Image.Image) -> None:
    """Bring the transparent colour of a PNG to the scale of its decoded pixels, where Pillow leaves it unscaled."""
    transparent = image.info.get("transparency")
    if image.format != "PNG" or transparent is None:
        return
    layout = image.tile[0][3] if image.tile else ""
    if layout in SHORT_GREYS:
        image.info["transparency"] = transparent * SHORT_GREYS[layout]
    elif layout == "RGB;16B":
        image.info["transparency"] = tuple(level >> 8 for level in transparent)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; broken EXIF beside good pixels is no reason to lose the picture."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except Exception:
        return image  # EXIF is parsed by the same fragile readers as above
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        wide = np.asarray(image)
        grey = _to_eight_bits(wide)
        if "transparency" in image.info:  # PNG, 16 bits
            grey[wide == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        picture = Image.new("RGB", layer.size, "white")
        picture.paste(layer, mask=layer.getchannel("A"))
        return picture
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(grey: np.ndarray) -> np.ndarray:
    """Scale wide grey values `[H, W]` to 0..255 by the range of their type, where Pillow would clip at 255.

    16-bit integers use 0..65535. 32-bit integers and floats carry no range in the file: the smallest usual
    one that holds their largest finite value is taken (floats 0..1, 0..255; both 0..65535), else that value itself
    is white. Not-a-number is black, the infinities are black and white.
    """
    if grey.dtype.kind == "f":
        usual = (1.0, 255.0, 65535.0)
        peak = float(np.max(grey, initial=0.0, where=np.isfinite(grey)))
    else:
        usual = (65535.0,)
        peak = float(grey.max(initial=0))
    white = next((full for full in usual if peak <= full), peak)
    shares = np.clip(np.nan_to_num(grey / white, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    return np.rint(shares * 255.0).astype(np.uint8)
