"""A picture with boxes drawn on it, as a piece of a page that needs no other file."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from markupsafe import Markup

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f4fc9", "#8a6d00")
"""Colours told apart with any kind of colour vision: Okabe and Ito's without black and yellow, and two more."""


@dataclass(frozen=True)
class Box:
    """A box to draw: x0, y0, x1, y1 in pixels of the upright image, x1 and y1 not included."""

    corners: Sequence[float]
    label: str = ""
    """a few letters written at its upper left corner, such as a number"""
    title: str = ""
    """what a pointer that rests on it reads"""
    colour: str = ""
    """`#rrggbb`; default: that of its place in `COLOURS`, which begin again after the last"""


def picture_with_boxes(data: bytes | OSError, boxes: Sequence[Box], longest_side: int = 640) -> Markup:
    """An `<svg>` of the image, upright as the encoder sees it, at most `longest_side` pixels long, with its boxes.

    `data` is what `storage.blobs.read_blobs` answers: the bytes of an image file, or why there are none. A file that is
    gone or no image becomes a grey card that says so. The image is embedded as JPEG.
    """
    from markupsafe import Markup

    from stages.vision.decode import UnreadableImage, decode_image

    if isinstance(data, OSError):
        return _card(f"cannot be shown: {data.strerror or data}")
    try:
        pixels = decode_image(data)
    except UnreadableImage as error:
        return _card(f"no picture: {error}")
    height, width = pixels.shape[:2]
    drawn = [
        _draw(box, box.colour or COLOURS[place % len(COLOURS)], max(width, height)) for place, box in enumerate(boxes)
    ]
    frame = Markup('<svg class="picture" viewBox="0 0 {0} {1}" width="{2}" height="{3}" role="img">').format(
        width, height, *_fit(width, height, longest_side, grow=True)
    )
    image = Markup('<image href="{}" width="{}" height="{}" preserveAspectRatio="none"/>').format(
        _data_uri(pixels, longest_side), width, height
    )
    return Markup("").join([frame, image, *drawn, Markup("</svg>")])


def _draw(box: Box, colour: str, side: int) -> Markup:
    """A box with a light edge around the coloured one, so that it shows on any picture."""
    from markupsafe import Markup

    x0, y0, x1, y1 = box.corners
    line = Markup(
        '<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{fill}" stroke="{colour}" stroke-width="{thick}"'
        ' vector-effect="non-scaling-stroke"/>'
    )
    place = {"x": x0, "y": y0, "w": x1 - x0, "h": y1 - y0}
    parts = [Markup("<title>{}</title>").format(box.title)] if box.title else []
    parts.append(line.format(**place, fill="none", colour="#ffffff", thick=5))
    parts.append(line.format(**place, fill="transparent", colour=colour, thick=2.5))
    if box.label:
        size = side / 26
        wide = size * (0.62 * len(box.label) + 0.5)
        parts.append(
            Markup('<rect x="{}" y="{}" width="{:.1f}" height="{:.1f}" fill="{}"/>').format(
                x0, y0, wide, size * 1.25, colour
            )
        )
        parts.append(
            Markup('<text x="{:.1f}" y="{:.1f}" font-size="{:.1f}" text-anchor="middle" fill="#fff">{}</text>').format(
                x0 + wide / 2, y0 + size * 0.98, size, box.label
            )
        )
    return Markup("").join([Markup("<g>"), *parts, Markup("</g>")])


def _card(reason: str) -> Markup:
    from markupsafe import Markup

    return Markup('<div class="no-picture">{}</div>').format(reason)


def _fit(width: int, height: int, longest_side: int, *, grow: bool) -> tuple[int, int]:
    """The size at which the longer side has `longest_side` pixels; without `grow` never larger than it is."""
    scale = longest_side / max(width, height)
    scale = scale if grow else min(1.0, scale)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _data_uri(pixels: np.ndarray, longest_side: int) -> str:
    """The pixels uint8 [H, W, 3], no larger than they are drawn on a screen of fine dots, as a JPEG in a data URI."""
    from PIL import Image

    height, width = pixels.shape[:2]
    size = _fit(width, height, 2 * longest_side, grow=False)
    image = Image.fromarray(pixels)
    if size != (width, height):
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
