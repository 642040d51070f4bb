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
from stages.phases import Phases
from stages.photograph import Photograph
from stages.settings import DinoGuide, GuidedView, GuideSettings, ModelSettings, ViewSettings
from stages.views import DrawnViews, draw_views, view_pixels
from stages.vision.crops import image_tensor
from stages.vision.guides import load_guide
from stages.weights import check_unchanged, load_model
from storage.schemas import fixed_list

FORWARD_BATCH = {"cpu": 64, "cuda": 256}
"""Inputs of one forward pass: enough to be fast, no more, for each takes megabytes of activations."""


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
    ):
        """`weights_cache`: that of the store, which notes what public names stand for. Raises ModelError."""
        self.device = torch.device(device)
        self.forward_batch = FORWARD_BATCH[self.device.type]
        self.tower = load_model(model, weights_cache, precision=precision, device=device)
        self.guides = {name: self._load_guide(guide, weights_cache) for name, guide in guides.items()}

    def _load_guide(self, guide: GuideSettings, weights_cache: str) -> Any:
        if isinstance(guide, DinoGuide):
            check_unchanged(guide, weights_cache)
        options = guide.model_dump(exclude={"kind"})
        return load_guide(guide.kind, tower=self.tower, precision=self.tower.precision, device=self.device, **options)

    def check(self, views: Mapping[str, ViewTable]) -> None:
        """Raise ValueError for a view set that this model cannot serve: a layer that it does not have."""
        for name, table in views.items():
            if _crops_features(table.view, self.tower) and self._layer(table.view) >= self.tower.cropper.layers:
                raise ValueError(
                    f"{name}.layer is {table.view.layer}, but tokens of model {self.tower.name!r} can be cropped "
                    f"before layer 0 to {self.tower.cropper.layers - 1}"
                )

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
            start, grids = time.perf_counter(), []
            with seen.phases.measure("guide"):
                for part in _parts(chosen, self.forward_batch):
                    grids += [*guide.saliency([seen.pixels[number]["whole"] for number in part]).cpu().numpy()]
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
        for part in _parts(chosen, self.forward_batch):
            with seen.phases.measure("crop"):
                batch = torch.cat([self.tower.preprocess(seen.pixels[n]["whole"]) for n in part])
            with seen.phases.measure("encode"):
                if layers:
                    last = self.tower.cropper.layers - 1
                    entering = self.tower.cropper.tokens_at(batch, [*layers, last])
                    encoded = self.tower.cropper.features(entering[last])
                    tokens |= {(layer, n): entering[layer][i] for layer in layers for i, n in enumerate(part)}
                else:
                    encoded = self.tower.encode_images(batch)
                features.update(zip(part, encoded.cpu().numpy(), strict=True))
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
            with seen.phases.measure("feature_crop"):
                layer = self._layer(table.view)
                entering = torch.stack([tokens[layer, number] for number in chosen])
                cropped = self.tower.cropper.crop_features(entering, windows, layer).cpu().numpy()
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
                size = seen.images[number].photograph
                yield view_pixels(view, views, seen.pixels[number][name], size.width, size.height, self.tower)

        encoded = self._encode_stream(inputs(), seen.phases)
        return encoded.view(len(chosen), len(drawn[0].boxes), -1).cpu().numpy()

    def _encode_stream(self, inputs: Iterable[torch.Tensor], phases: Phases) -> torch.Tensor:
        """Features [K, d] of a stream of normalised inputs [n, 3, S, S], encoded in full batches whatever n is."""
        encoded: list[torch.Tensor] = []
        held: list[torch.Tensor] = []
        stream = iter(inputs)
        while True:
            with phases.measure("crop"):
                arrived = next(stream, None)
                held += [] if arrived is None else [arrived]
                batch = torch.cat(held) if arrived is None or sum(map(len, held)) >= self.forward_batch else None
            if batch is None:
                continue
            full = len(batch) if arrived is None else len(batch) // self.forward_batch * self.forward_batch
            with phases.measure("encode"):
                encoded += self._forward(batch[:full])
            if arrived is None:
                return torch.cat(encoded)
            held = [batch[full:]]

    def _forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Encode inputs [K, 3, S, S] in parts, which are halved, for good, when they do not fit the GPU's memory."""
        encoded, start = [], 0
        while start < len(inputs):
            part = inputs[start : start + self.forward_batch]
            try:
                encoded.append(self.tower.encode_images(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.forward_batch = len(part) // 2
                continue
            start += len(part)
        return encoded


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


def _parts(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]
