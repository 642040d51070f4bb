"""Small pictures of crops, cut out of their images, as pieces of a page that needs no other file."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence


def cut_thumbnails(data: bytes | OSError, boxes: Sequence[Sequence[int]], longest_side: int = 96) -> list[str | None]:
    """A `data:` address of a JPEG for each box, x0, y0, x1, y1 in pixels of the upright image.

    `data` is what `storage.blobs.read_blobs` answers. None for all where there is no image to cut from.
    """
    from PIL import Image

    from stages.vision.decode import UnreadableImage, decode_image

    if isinstance(data, OSError):
        return [None] * len(boxes)
    try:
        image = Image.fromarray(decode_image(data))
    except UnreadableImage:
        return [None] * len(boxes)
    found: list[str | None] = []
    for box in boxes:
        piece, file = image.crop(tuple(box)), io.BytesIO()
        piece.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        piece.save(file, "JPEG", quality=80)
        found.append(f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}")
    return found
