"""Crops in feature space: a window of CLIP's tokens, enlarged, through the layers that remain (ABS; algorithms.md 8.3).

A layer is a block of the tower, counted from 0, or the attention pooling after its blocks (SigLIP, CoCa, Perception
Encoder), which is then the last layer: it reads tokens through one query as a block does through CLS. A window's tokens
are enlarged to the whole grid before layer `layer`; the prefix tokens (CLS, registers) stay as they are. Of the last
layer only the row that becomes the feature is computed.

Letters as in algorithms.md: B images, N windows, G grid side, P = G * G patches, R prefix tokens, D width, h heads, d
joint dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import numpy as np
import torch
from torch import nn

from stages.vision.low_precision import DTYPES, Precision, lower
from stages.vision.one_row import FoldedRow, FullRow, enlarged_parts, folds
from stages.vision.token_towers import token_tower
from stages.vision.turned_row import TurnedRow
from stages.vision.windows import check_windows, resizers, span_table

WORKING_SET = 1 << 24  # numbers in the largest intermediate tensor of the folded forms, 64 MB


def why_no_feature_crops(visual: nn.Module) -> str | None:
    """The reason why this image tower's tokens cannot be cropped, or None if they can."""
    found = token_tower(visual)
    return found if isinstance(found, str) else None


class FeatureCropper:
    """Tokens, attention and feature crops of one image tower; raises ValueError for a tower that it cannot serve.

    It reads the tower's own parameters and holds none. With a `precision` below fp32 it lowers those of all layers but
    the last, in place; the last layer's large products run at that precision too, its scores, softmax and results in
    fp32. `grid` is G, `layers` how many layers read tokens.
    """

    def __init__(self, visual: nn.Module, precision: Precision = "fp32") -> None:
        tower = token_tower(visual)
        if isinstance(tower, str):
            raise ValueError(f"this model has no feature crops: {tower}; use raw crops with it")
        self.tower = tower
        self.dtype = DTYPES[precision]
        if precision != "fp32":
            lower(visual, self.dtype, keep=tower.exact())
        self.grid: int = tower.grid
        self.layers: int = tower.layers

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """The tokens that enter the last layer, fp32 `[B, R + P, D]`, of normalised `pixels [B, 3, S, S]`."""
        last = self.layers - 1
        return self.tokens_at(pixels, [last])[last]

    @torch.no_grad()
    def tokens_at(self, pixels: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Layer -> the tokens that enter it, fp32 `[B, R + P, D]`, for several layers in one pass over `pixels`."""
        wanted = {self._checked(layer) for layer in layers}
        found = {}
        tokens = self.tower.enter(pixels.to(self.dtype))
        for layer in range(max(wanted) + 1):
            if layer in wanted:
                found[layer] = tokens.float()
            if layer < max(wanted):
                tokens = self.tower.through(tokens, layer)
        return found

    @torch.no_grad()
    def features(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the tower gives for the whole images: fp32 `[B, d]`, not normalised, from `tokens` of the last layer."""
        _, heard = self._row.whole(tokens)
        return self.tower.finish(self.tower.last.close(tokens[:, 0], heard))

    @torch.no_grad()
    def attention(self, tokens: torch.Tensor) -> torch.Tensor:
        """The last layer's attention on the patches, mean over heads: fp32 `[B, G, G]`, from `tokens` that enter it.

        CLS's attention, or that of the pooling query; with the share of the prefix tokens each map sums to 1.
        """
        attention, _ = self._row.whole(tokens)
        return attention[:, :, -(self.grid**2) :].mean(dim=1).unflatten(-1, (self.grid, self.grid))

    @torch.no_grad()
    def crop_features(
        self, tokens: torch.Tensor, windows: torch.Tensor | np.ndarray, layer: int | None = None
    ) -> torch.Tensor:
        """Features fp32 `[B, N, d]`, not normalised, of `windows [B, N, 4]` (r0, c0, r1, c1) of `tokens [B, R + P, D]`.

        `tokens` are those that enter `layer`, by default the last. A window's tokens are resized to G x G as
        F.interpolate(mode="bicubic", align_corners=False) does and pass the layers from there with the unchanged
        prefix tokens; an enlarged window is a whole grid, so rotary positions are the whole grid's. Raises ValueError
        for a window that is empty or leaves the grid, and for a layer that the tower does not have.
        """
        layer = self.layers - 1 if layer is None else self._checked(layer)
        places = check_windows(windows, len(tokens), self.grid).to(tokens.device)
        if places.shape[1] == 0:
            return self.features(tokens)[:, None][:, :0]
        if layer < self.layers - 1:
            return self._through_the_rest(tokens, places, layer)
        together = max(1, WORKING_SET // (places.shape[1] * self.grid**3 * self.tower.last.heads))
        parts = zip(tokens.split(together), places.split(together), strict=True)
        heard = torch.cat([self._row.crops(part, *resizers(self._table, place)) for part, place in parts])
        cls = tokens[:, 0].repeat_interleave(places.shape[1], dim=0)
        with self._arithmetic():
            features = self.tower.finish(self.tower.last.close(cls, heard.flatten(0, 1)))
        return features.float().unflatten(0, places.shape[:2])

    def _through_the_rest(self, tokens: torch.Tensor, windows: torch.Tensor, layer: int) -> torch.Tensor:
        """Crops before a layer that is not the last: every layer between takes the enlarged tokens whole."""
        features = []
        for crops in enlarged_parts(tokens, *resizers(self._table, windows)):
            crops = crops.to(self.dtype)
            for between in range(layer, self.layers - 1):
                crops = self.tower.through(crops, between)
            features.append(self.features(crops.float()))
        return torch.cat(features).unflatten(0, windows.shape[:2])

    def _arithmetic(self) -> AbstractContextManager[object]:
        """That of the last layer's large products."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._table.device.type, dtype=self.dtype)

    @cached_property
    def _row(self) -> FoldedRow | FullRow:
        last, patches, turns = self.tower.last, self.grid**2, self.tower.turns()
        turn, turn_back = turns or (None, None)
        if not folds(last):
            return FullRow(last, self._arithmetic, patches, turn)
        if turn is None:
            return FoldedRow(last, self._arithmetic)
        return TurnedRow(last, self._arithmetic, patches=patches, turn=turn, turn_back=turn_back)

    @cached_property
    def _table(self) -> torch.Tensor:
        (weight, _), _ = self.tower.last.projections()
        return span_table(self.grid).to(weight.device)

    def _checked(self, layer: int) -> int:
        if not 0 <= layer < self.layers:
            raise ValueError(
                f"layer {layer} is not one of this model's: crops are made before layer 0 to {self.layers - 1}"
            )
        return layer
