"""Bytes of an image file -> RGB pixels, or one short reason why not.

Everything that makes photographs differ (palette, alpha, grey, CMYK, 16 bit, EXIF rotation, first frames)
ends here: what leaves this module is always upright uint8 RGB, converted before any crop or resize
(algorithms.md 0.4, item 1).
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "GIF",
)  # a closed list: other Pillow readers start programs (EPS)
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


class UnreadableImage(ValueError):
    """These bytes are not a picture we can use; the message is a short reason for the `rejects` table."""


def decode_image(data: bytes, *, max_pixels: int = 178_956_970) -> np.ndarray:
    """Decode one image file into uint8 RGB `[H, W, 3]`, upright, transparency over white, first frame of several.

    `max_pixels` is the largest width x height that is decoded (the default is Pillow's own limit, which stays
    in force); it is checked on the header, before any
    pixel is read. Raises `UnreadableImage`, and nothing else, for empty, truncated, damaged, foreign or
    oversized data.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise UnreadableImage(f"{width} x {height} pixels is more than the limit of {max_pixels}")
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


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; broken EXIF beside good pixels is no reason to lose the picture."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except Exception:
        return image  # EXIF is parsed by the same fragile readers as above
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(grey: np.ndarray) -> np.ndarray:
    """Scale wide grey values `[H, W]` to 0..255 by the range of their type, where Pillow would clip at 255.

    16-bit integers use 0..65535. 32-bit integers and floats carry no range in the file: the smallest usual
    one that holds their largest value is taken (floats 0..1, 0..255; both 0..65535), else that value itself
    is white.
    """
    values = np.nan_to_num(grey.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(values.max(initial=0.0))
    usual = (1.0, 255.0, 65535.0) if grey.dtype.kind == "f" else (65535.0,)
    white = next((full for full in usual if peak <= full), peak)
    return np.rint(np.clip(values / white, 0.0, 1.0) * 255.0).astype(np.uint8)
