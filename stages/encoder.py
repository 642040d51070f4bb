"""Encode decoded images for whatever tables lack them: whole images, crops of each view set, feature-space crops.

Everything that needs a model and no Ray: an actor holds one `Encoder`, a test calls it directly.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stages.settings import GuidedView, GuideSettings, ModelSettings, RandomView, ViewSettings
from stages.vision.boxes import draw_cells, feature_windows, guided_boxes, image_rng, random_boxes
from stages.vision.crops import image_tensor
from stages.vision.guides import load_guide
from stages.vision.towers import load_tower
from storage.schemas import fixed_list

FORWARD_BATCH = 256


@dataclass(frozen=True)
class Image:
    """A decoded image: its key and id, RGB pixels uint8 [H, W, 3], and the seconds its decoding took."""

    key: str
    id: str
    pixels: np.ndarray
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class ViewTable:
    """What a view set's table holds: the view, the seed of its draws."""

    view: ViewSettings
    seed: int


class Encoder:
    """A CLIP tower with the guides that the view sets of a job need."""

    def __init__(self, model: ModelSettings, guides: Mapping[str, GuideSettings], precision: str, device: str):
        self.device = device
        self.tower = load_tower(model.name, model.weights, precision=precision, device=device)
        self.guides = {name: self._load_guide(guide) for name, guide in guides.items()}

    def _load_guide(self, guide: GuideSettings) -> Any:
        options = guide.model_dump(exclude={"kind"})
        return load_guide(guide.kind, tower=self.tower, device=self.device, **options)

    @torch.inference_mode()
    def encode(
        self, images: Sequence[Image], lacks: Sequence[set[str]], views: Mapping[str, ViewTable]
    ) -> dict[str, pa.Table]:
        """Rows for the tables that lack them.

        `lacks[i]` names the tables without a row for image i: "whole", or a key of `views`.
        Returns table name -> rows, columns as described in the README's "What lies in the store".
        """
        pixels = [image_tensor(image.pixels).to(self.device) for image in images]
        saliency = self._saliency(pixels, lacks, views)
        tokens, whole, whole_seconds = self._whole(pixels, lacks, views)
        rows: dict[str, pa.Table] = {}
        chosen = [number for number, names in enumerate(lacks) if "whole" in names]
        if chosen:
            rows["whole"] = _whole_rows([images[n] for n in chosen], [whole[n] for n in chosen], whole_seconds)
        for name, table in views.items():
            chosen = [number for number, names in enumerate(lacks) if name in names]
            if chosen:
                rows[name] = self._view_rows(table, chosen, images, pixels, saliency, tokens)
        return rows

    def _saliency(
        self, pixels: Sequence[torch.Tensor], lacks: Sequence[set[str]], views: Mapping[str, ViewTable]
    ) -> dict[tuple[str, int], tuple[np.ndarray, float]]:
        """(guide, image number) -> saliency [G, G] and seconds; one pass an image and guide, for all view sets."""
        found = {}
        for guide_name, guide in self.guides.items():
            users = {name for name, table in views.items() if getattr(table.view, "guide", None) == guide_name}
            chosen = [number for number, names in enumerate(lacks) if names & users]
            if not chosen:
                continue
            start = time.perf_counter()
            grids = guide.saliency([pixels[number] for number in chosen]).cpu().numpy()
            seconds = (time.perf_counter() - start) / len(chosen)
            found.update({(guide_name, n): (grid, seconds) for n, grid in zip(chosen, grids, strict=True)})
        return found

    def _whole(
        self, pixels: Sequence[torch.Tensor], lacks: Sequence[set[str]], views: Mapping[str, ViewTable]
    ) -> tuple[dict[int, torch.Tensor], dict[int, np.ndarray], float]:
        """Tokens before the last block (where feature crops need them) and whole-image features, by image number."""
        cropping = {name for name, table in views.items() if _crops_features(table.view, self.tower)}
        chosen = [number for number, names in enumerate(lacks) if "whole" in names or names & cropping]
        tokens: dict[int, torch.Tensor] = {}
        features: dict[int, np.ndarray] = {}
        start = time.perf_counter()
        for part in _parts(chosen, FORWARD_BATCH):
            batch = torch.cat([self.tower.preprocess(pixels[n]) for n in part])
            if self.tower.can_crop_features:
                entering = self.tower.last_block.tokens(batch)
                encoded = self.tower.last_block.features(entering)
                tokens.update(zip(part, entering, strict=True))
            else:
                encoded = self.tower.encode_images(batch)
            features.update(zip(part, encoded.float().cpu().numpy(), strict=True))
        seconds = (time.perf_counter() - start) / max(1, len(chosen))
        return tokens, features, seconds

    def _view_rows(
        self,
        table: ViewTable,
        chosen: Sequence[int],
        images: Sequence[Image],
        pixels: Sequence[torch.Tensor],
        saliency: Mapping[tuple[str, int], tuple[np.ndarray, float]],
        tokens: Mapping[int, torch.Tensor],
    ) -> pa.Table:
        start, guide_seconds = time.perf_counter(), 0.0
        boxes, windows = [], []
        with_features = _crops_features(table.view, self.tower)
        for number in chosen:
            guide_map, seconds = saliency.get((getattr(table.view, "guide", ""), number), (None, 0.0))
            guide_seconds += seconds
            drawn, window = self._draw(table, images[number], guide_map, with_features)
            boxes.append(drawn)
            windows.append(window)
        raw = self._encode_crops([pixels[number] for number in chosen], boxes)
        columns = {
            "key": pa.array([images[number].key for number in chosen], pa.string()),
            "boxes": fixed_list(np.stack(boxes).astype(np.int32)),
            **_unit_columns("", raw),
        }
        if with_features:
            entering = torch.stack([tokens[number] for number in chosen])
            stacked = np.stack(windows).astype(np.int32)
            cropped = self.tower.last_block.crop_features(entering, torch.from_numpy(stacked))
            columns["windows"] = fixed_list(stacked)
            columns.update(_unit_columns("feature_", cropped.float().cpu().numpy()))
        seconds = (time.perf_counter() - start + guide_seconds) / len(chosen)
        columns["seconds"] = pa.array(np.full(len(chosen), seconds, np.float32))
        return pa.table(columns)

    def _draw(
        self, table: ViewTable, image: Image, saliency: np.ndarray | None, with_features: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Boxes [N, 4] of an image, and windows [N, 4] of its token grid where feature crops are wanted."""
        height, width = image.pixels.shape[:2]
        options = table.view.model_dump()
        rng = image_rng(table.seed, image.id, "raw")
        if isinstance(table.view, RandomView):
            names = ("crops", "min_area", "max_area", "min_aspect", "max_aspect", "scale_mode")
            return random_boxes(width, height, **{name: options[name] for name in names}, rng=rng), None
        names = ("crops", "min_side", "max_side", "top_k", "temperature")
        drawn = {name: options[name] for name in names}
        boxes, _ = guided_boxes(saliency, width, height, **drawn, rng=rng)
        if not with_features:
            return boxes, None
        second = image_rng(table.seed, image.id, "feature")
        cells = draw_cells(
            saliency,
            crops=table.view.crops,
            top_k=table.view.top_k,
            temperature=table.view.temperature,
            rng=second,
        )
        windows = feature_windows(
            cells,
            guide_grid=saliency.shape[0],
            grid=self.tower.grid,
            width=width,
            height=height,
            min_side=table.view.min_side,
            max_side=table.view.max_side,
            frame=table.view.frame,
            rng=second,
        )
        return boxes, windows

    def _encode_crops(self, pixels: Sequence[torch.Tensor], boxes: Sequence[np.ndarray]) -> np.ndarray:
        """Features [B, N, d] (not normalised) of the boxes of each image."""
        count = boxes[0].shape[0]
        images_at_once = max(1, FORWARD_BATCH // count)
        encoded = []
        for part in _parts(range(len(pixels)), images_at_once):
            crops = torch.cat([self.tower.preprocess(pixels[n], boxes[n]) for n in part])
            encoded += [self.tower.encode_images(some) for some in crops.split(FORWARD_BATCH)]
        return torch.cat(encoded).view(len(pixels), count, -1).cpu().numpy()


def _crops_features(view: ViewSettings, tower: Any) -> bool:
    return isinstance(view, GuidedView) and view.feature_crops and tower.can_crop_features


def _whole_rows(images: Sequence[Image], features: Sequence[np.ndarray], seconds: float) -> pa.Table:
    return pa.table(
        {
            "key": pa.array([image.key for image in images], pa.string()),
            "id": pa.array([image.id for image in images], pa.string()),
            "width": pa.array([image.pixels.shape[1] for image in images], pa.int32()),
            "height": pa.array([image.pixels.shape[0] for image in images], pa.int32()),
            **_unit_columns("", np.stack(features)[:, None]),
            "seconds": pa.array([image.decode_seconds + seconds for image in images], pa.float32()),
        }
    )


def _unit_columns(prefix: str, features: np.ndarray) -> dict[str, pa.Array]:
    """Unit features [B, N, d] in fp16 and their norms [B, N] in fp32, as fixed-size lists."""
    norms = np.linalg.norm(features, axis=-1)
    unit = features / np.maximum(norms, 1e-12)[..., None]
    return {
        f"{prefix}vectors": fixed_list(unit.astype(np.float16)),
        f"{prefix}norms": fixed_list(norms.astype(np.float32)),
    }


def _parts(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]
