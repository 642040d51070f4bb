"""Encode decoded images for whatever tables lack them: whole images, crops of each view set, feature-space crops.

Everything that needs a model and no Ray: an actor holds one `Encoder`, a test calls it directly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stages.feature_rows import unit_columns, whole_rows
from stages.forward_batches import ForwardBatches
from stages.phases import Phases
from stages.photograph import Photograph
from stages.settings import DinoGuide, GuidedView, GuideSettings, ModelSettings, ViewSettings
from stages.views import DrawnViews, draw_views, view_pixels
from stages.vision.crops import image_tensor
from stages.vision.feature_crops import why_no_feature_crops
from stages.vision.guides import load_guide
from stages.weights import PlannedWeights, check_unchanged, load_model
from storage.schemas import fixed_list


@dataclass(frozen=True)
class Image:
    """A decoded image with the key of its rows and the id that its random draws depend on."""

    key: str
    id: str
    photograph: Photograph


@dataclass(frozen=True)
class ViewTable:
    """What a view set's table holds: the view, the seed of its draws."""

    view: ViewSettings
    seed: int


class Encoder:
    """A CLIP tower with the guides that the view sets of a job need; threads may share it."""

    def __init__(
        self,
        model: ModelSettings,
        guides: Mapping[str, GuideSettings],
        precision: str,
        device: str,
        weights_cache: str,
        planned: PlannedWeights,
    ):
        """`weights_cache`: that of the store, which notes what public names stand for; `planned`: what must be loaded.

        Raises ModelError.
        """
        self.device = torch.device(device)
        self.batches = ForwardBatches(self.device)
        self.tower = load_model(model, weights_cache, planned.model, precision=precision, device=device)
        for name, guide in guides.items():
            if isinstance(guide, DinoGuide):
                check_unchanged(guide, weights_cache, planned.guides[name])
        self.guides = {name: self._load_guide(guide) for name, guide in guides.items()}

    def _load_guide(self, guide: GuideSettings) -> Any:
        options = guide.model_dump(exclude={"kind"})
        return load_guide(guide.kind, tower=self.tower, precision=self.tower.precision, device=self.device, **options)

    def check(self, views: Mapping[str, ViewTable]) -> list[str]:
        """What a person should know of the view sets with this model: where feature crops were asked for in vain.

        Raises ValueError for a layer that the model does not have.
        """
        wanting = {name for name, table in views.items() if getattr(table.view, "feature_crops", False)}
        why = why_no_feature_crops(self.tower.model.visual)
        for name, table in views.items():
            if _crops_features(table.view, self.tower) and self._layer(table.view) >= self.tower.cropper.layers:
                raise ValueError(
                    f"{name}.layer is {table.view.layer}, but tokens of model {self.tower.name!r} can be cropped "
                    f"before layer 0 to {self.tower.cropper.layers - 1}"
                )
        if not wanting or why is None:
            return []
        return [
            f"{', '.join(sorted(wanting))}: crops in pixels only, for the model's features cannot be cropped: {why}"
        ]

    @torch.no_grad()
    def encode(
        self,
        images: Sequence[Image],
        lacks: Sequence[set[str]],
        views: Mapping[str, ViewTable],
        phases: Phases | None = None,
    ) -> dict[str, pa.Table]:
        """Rows for the tables that lack them.

        `lacks[i]` names the tables without a row for image i: "whole", or a key of `views`. `phases` gets the seconds
        of copy, guide, encode, crop and feature_crop. Returns table name -> rows, columns as described in the README's
        "What lies in the store".
        """
        phases = phases or Phases()
        with phases.measure("copy"):
            pixels = [self._upload(image.photograph) for image in images]
        seen = _Seen(images, lacks, views, pixels, phases)
        saliency = self._saliency(seen)
        tokens, whole, whole_seconds = self._whole(seen)
        rows: dict[str, pa.Table] = {}
        chosen = seen.lacking({"whole"})
        if chosen:
            rows["whole"] = whole_rows([images[n] for n in chosen], np.stack([whole[n] for n in chosen]), whole_seconds)
        for name, table in views.items():
            chosen = seen.lacking({name})
            if chosen:
                rows[name] = self._view_rows(name, table, chosen, seen, saliency, tokens)
        return rows

    def _upload(self, photograph: Photograph) -> dict[str, torch.Tensor]:
        """The pixels uint8 [3, h, w] on the device, by table; tables that share an array share a tensor."""
        tensors: dict[int, torch.Tensor] = {}
        for array in photograph.pixels.values():
            if id(array) not in tensors:
                tensor = image_tensor(array)
                if self.device.type == "cuda":  # from pinned memory a copy runs beside what the device computes
                    tensor = tensor.contiguous().pin_memory().to(self.device, non_blocking=True)
                tensors[id(array)] = tensor
        return {name: tensors[id(array)] for name, array in photograph.pixels.items()}

    def _saliency(self, seen: _Seen) -> dict[tuple[str, int], tuple[np.ndarray, float]]:
        """(guide, image number) -> saliency [G, G] and seconds; one pass an image and guide, for all view sets."""
        found = {}
        for guide_name, guide in self.guides.items():
            users = {name for name, table in seen.views.items() if getattr(table.view, "guide", None) == guide_name}
            chosen = seen.lacking(users)
            start = time.perf_counter()

            def look(part: Sequence[int], guide: Any = guide) -> np.ndarray:
                return guide.saliency([seen.pixels[n]["whole"] for n in part]).cpu().numpy()

            with seen.phases.measure("guide"):
                grids = [grid for grids in self.batches.by_parts(chosen, look) for grid in grids]
            seconds = (time.perf_counter() - start) / max(1, len(chosen))
            found.update({(guide_name, n): (grid, seconds) for n, grid in zip(chosen, grids, strict=True)})
        return found

    def _whole(self, seen: _Seen) -> tuple[dict[tuple[int, int], torch.Tensor], dict[int, np.ndarray], float]:
        """(layer, image number) -> tokens for feature crops, image number -> feature of the whole image, seconds."""
        cropping = {name: table.view for name, table in seen.views.items() if _crops_features(table.view, self.tower)}
        layers = {self._layer(view) for view in cropping.values()}
        chosen = seen.lacking({*cropping, "whole"})
        tokens: dict[tuple[int, int], torch.Tensor] = {}
        features: dict[int, np.ndarray] = {}
        start = time.perf_counter()

        def encode(part: Sequence[int]) -> None:
            with seen.phases.measure("crop"):
                batch = torch.cat([self.tower.preprocess(seen.pixels[n]["whole"]) for n in part])
            with seen.phases.measure("encode"):
                if layers:
                    last = self.tower.cropper.layers - 1
                    entering = self.tower.cropper.tokens_at(batch, [*layers, last])
                    encoded = self.tower.cropper.features(entering[last])
                    tokens.update({(layer, n): entering[layer][i] for layer in layers for i, n in enumerate(part)})
                else:
                    encoded = self.tower.encode_images(batch)
                features.update(zip(part, encoded.cpu().numpy(), strict=True))

        self.batches.by_parts(chosen, encode)
        return tokens, features, (time.perf_counter() - start) / max(1, len(chosen))

    def _layer(self, view: GuidedView) -> int:
        return self.tower.cropper.layers - 1 if view.layer is None else view.layer

    def _view_rows(
        self,
        name: str,
        table: ViewTable,
        chosen: Sequence[int],
        seen: _Seen,
        saliency: Mapping[tuple[str, int], tuple[np.ndarray, float]],
        tokens: Mapping[tuple[int, int], torch.Tensor],
    ) -> pa.Table:
        start, guide_seconds, drawn = time.perf_counter(), 0.0, []
        grid = self.tower.grid if _crops_features(table.view, self.tower) else None
        for number in chosen:
            guide_map, seconds = saliency.get((getattr(table.view, "guide", ""), number), (None, 0.0))
            guide_seconds += seconds
            image = seen.images[number]
            size = image.photograph.width, image.photograph.height
            squashed = self.tower.resize_mode == "squash"
            drawn.append(draw_views(table.view, table.seed, image.id, *size, guide_map, grid, squashed=squashed))
        raw = self._encode_views(name, table.view, chosen, drawn, seen)
        columns = {
            "key": pa.array([seen.images[number].key for number in chosen], pa.string()),
            "boxes": fixed_list(np.stack([views.boxes for views in drawn])),
            **unit_columns("", raw),
        }
        if grid is not None:
            windows = np.stack([views.windows for views in drawn])
            layer = self._layer(table.view)
            entering = [tokens[layer, number] for number in chosen]

            def crop(part: Sequence[int]) -> np.ndarray:
                stacked = torch.stack([entering[place] for place in part])
                return self.tower.cropper.crop_features(stacked, windows[list(part)], layer).cpu().numpy()

            with seen.phases.measure("feature_crop"):
                cropped = np.concatenate(self.batches.by_parts(range(len(chosen)), crop))
            columns["windows"] = fixed_list(windows)
            columns |= unit_columns("feature_", cropped)
        seconds = (time.perf_counter() - start + guide_seconds) / len(chosen)
        columns["seconds"] = pa.array(np.full(len(chosen), seconds, np.float32))
        return pa.table(columns)

    def _encode_views(
        self, name: str, view: ViewSettings, chosen: Sequence[int], drawn: Sequence[DrawnViews], seen: _Seen
    ) -> np.ndarray:
        """Features [B, N, d] (not normalised) of the views of the chosen images."""

        def inputs() -> Iterable[torch.Tensor]:
            for number, views in zip(chosen, drawn, strict=True):
                factor = seen.images[number].photograph.factors[name]
                yield view_pixels(view, views, seen.pixels[number][name], factor, self.tower)

        encoded = self.batches.stream(inputs(), self.tower.encode_images, seen.phases)
        return encoded.view(len(chosen), len(drawn[0].boxes), -1).cpu().numpy()


@dataclass(frozen=True)
class _Seen:
    """A batch on its way through the encoder: `pixels[i]` are those of image i on the device, by table."""

    images: Sequence[Image]
    lacks: Sequence[set[str]]
    views: Mapping[str, ViewTable]
    pixels: Sequence[Mapping[str, torch.Tensor]]
    phases: Phases

    def lacking(self, tables: set[str]) -> list[int]:
        """Numbers of the images that any of these tables lacks."""
        return [number for number, names in enumerate(self.lacks) if names & tables]


def _crops_features(view: ViewSettings, tower: Any) -> bool:
    return isinstance(view, GuidedView) and view.feature_crops and tower.can_crop_features
