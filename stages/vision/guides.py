"""Where in an image to look: guides, each a small class with one verb, `saliency`.

Every guide sees the whole image squashed to a square, never a centre crop, so that cell (row, column) of
its grid is the same part of the image that `boxes.guided_boxes` cuts out (algorithms.md 8.1-8.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch

from stages.vision.crops import normalize, squash
from stages.vision.dino import load_probe
from stages.vision.low_precision import DTYPES, Precision
from stages.vision.towers import ModelError, Tower

GRID = 14  # cells a side of the guides that look at nothing, as DINO ViT-B/16 has
NORMALIZATIONS = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # what the ABS authors' processor does
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # what DINO was trained with
}
Normalization = Literal["half", "imagenet"]
GuideKind = Literal["clip", "dino", "random", "center"]


class Guide(Protocol):
    """Anything that says where to look."""

    def saliency(self, images: Sequence[torch.Tensor], texts: torch.Tensor | None = None) -> torch.Tensor:
        """B images uint8 `[3, H, W]` of any sizes -> fp32 `[B, G, G]`, not negative, over the whole of each image.

        `texts [M, d]` are unit vectors of the descriptors to look for, for a guide that is led by text; the others
        ignore them.
        """


class UniformGuide:
    """Every cell alike: the random crops that ABS compares itself with."""

    def saliency(self, images: Sequence[torch.Tensor], texts: torch.Tensor | None = None) -> torch.Tensor:
        """Fp32 `[B, 14, 14]`, all 1 / 196."""
        return torch.full((len(images), GRID, GRID), 1 / GRID**2)


class CenterGuide:
    """The middle of the picture: photographers' habit as a guide, a Gaussian of a quarter of the side."""

    def saliency(self, images: Sequence[torch.Tensor], texts: torch.Tensor | None = None) -> torch.Tensor:
        """Fp32 `[B, 14, 14]`, each map sums to 1."""
        bell = torch.exp(-0.5 * ((torch.arange(GRID) - (GRID - 1) / 2) / (GRID / 4)) ** 2)
        grid = torch.outer(bell, bell)
        return (grid / grid.sum()).expand(len(images), -1, -1).clone()


class ClipGuide:
    """The CLS attention of the CLIP tower's own last block."""

    def __init__(self, tower: Tower) -> None:
        if not tower.can_crop_features:
            raise ModelError(f"model {tower.name!r} cannot guide: it has no CLS attention to read; use a dino guide")
        self.tower = tower

    def saliency(self, images: Sequence[torch.Tensor], texts: torch.Tensor | None = None) -> torch.Tensor:
        """Fp32 `[B, G, G]`, mean over heads; with the attention that CLS pays itself each map sums to 1."""
        size, device = self.tower.image_size, self.tower.device
        pixels = torch.stack([squash(image.to(device), size, interpolation="bicubic") for image in images])
        tokens = self.tower.cropper.tokens(normalize(pixels, self.tower.mean, self.tower.std))
        return self.tower.cropper.attention(tokens)


class DinoGuide:
    """The CLS attention of the last block of a timm ViT, DINO ViT-B/16 by default in ABS (algorithms.md 8.1)."""

    def __init__(
        self,
        name: str,
        weights: str | Path | None = None,
        normalization: Normalization = "half",
        device: str | torch.device = "cpu",
        *,
        image_size: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        """`weights`: a local file, or None for timm's download; `image_size`: if not the model's own.

        `precision` is that of all blocks but the last, whose attention is fp32. Raises ModelError.
        """
        if normalization not in NORMALIZATIONS:
            raise ModelError(f"normalization {normalization!r} is not known; it must be 'half' or 'imagenet'")
        self.mean, self.std = NORMALIZATIONS[normalization]
        self.device = torch.device(device)
        self.model = load_probe(name, weights, image_size, precision).to(self.device)
        self.dtype = DTYPES[precision]

    @torch.no_grad()
    def saliency(self, images: Sequence[torch.Tensor], texts: torch.Tensor | None = None) -> torch.Tensor:
        """Fp32 `[B, G, G]`, mean over heads; with CLS and register tokens each map sums to 1."""
        size, _ = self.model.patch_embed.img_size
        pixels = torch.stack([squash(image.to(self.device), size) for image in images])
        return self.model.forward_features(normalize(pixels, self.mean, self.std).to(self.dtype))


def load_guide(
    kind: GuideKind,
    *,
    tower: Tower | None,
    name: str | None = None,
    weights: str | Path | None = None,
    normalization: Normalization = "half",
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
) -> Guide:
    """The guide of a job file: `kind` clip, dino, random or center; raises ModelError.

    A clip guide reads `tower`; a dino guide loads timm's `name` with `weights`, sees pixels under
    `normalization` and runs in `precision`.
    """
    if kind == "random":
        return UniformGuide()
    if kind == "center":
        return CenterGuide()
    if kind == "dino":
        return DinoGuide(name or "vit_base_patch16_224.dino", weights, normalization, device, precision=precision)
    if kind != "clip":
        raise ModelError(f"guide kind {kind!r} is not known; it must be clip, dino, random or center")
    if tower is None:
        raise ModelError("a clip guide reads the job's CLIP model, and none was given")
    return ClipGuide(tower)
