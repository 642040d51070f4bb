"""Where a model's tokens lie on an image: windows of tokens as boxes of pixels, told without the model's weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import open_clip
import torch

from stages.vision.downloads import download_config
from stages.vision.model_error import ModelError
from stages.vision.names import FOLDER, HUB
from stages.vision.token_towers import token_tower


@dataclass(frozen=True)
class TokenFrame:
    """`grid` tokens a side cover the central square of an image, or, `squashed`, the whole of it."""

    grid: int
    squashed: bool

    def boxes(self, windows: np.ndarray, width: int, height: int) -> np.ndarray:
        """`windows` int `[N, 4]` (r0, c0, r1, c1; ends excluded) as boxes int32 `[N, 4]` (x0, y0, x1, y1).

        In pixels of the image, edges to the nearest one; the model's resizing and centre crop round too, by less than
        a pixel of its input.
        """
        spans = np.array([width, height]) if self.squashed else np.full(2, min(width, height))
        starts = (np.array([width, height]) - spans) / 2
        corners = np.asarray(windows).reshape(-1, 2, 2)[..., ::-1]
        return np.rint(starts + corners * spans / self.grid).astype(np.int32).reshape(-1, 4)


def read_token_frame(name: str, weights: str | None) -> TokenFrame:
    """The frame of a model that `load_tower` accepts; its architecture is built without memory for weights.

    Raises ModelError for a model whose tokens cannot be cropped, or whose configuration cannot be read.
    """
    try:
        known = name if not name.startswith(HUB) else FOLDER + str(download_config(name).parent)
        with torch.device("meta"), _without_warnings():
            model = open_clip.create_model(known, load_weights=False, pretrained_text=False, device="meta")
    except Exception as error:  # whatever open_clip, timm and the hub raise, as in `load_tower`
        raise ModelError(f"model {name!r}: its configuration cannot be read ({error})") from error
    tower = token_tower(model.visual)
    if isinstance(tower, str):
        raise ModelError(f"model {name!r} has no feature crops: {tower}")
    tag = {} if name.startswith((HUB, FOLDER)) or not weights else open_clip.get_pretrained_cfg(name, weights)
    mode = (tag or model.visual.preprocess_cfg).get("resize_mode", "shortest")
    return TokenFrame(tower.grid, squashed=mode == "squash")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """open_clip warns that a model has no weights; nobody asks this one for a feature."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
