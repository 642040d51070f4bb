"""The model that made a store: what people ask for goes through the same towers as what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.query_error import StoreError
from stages.settings import ModelSettings
from stages.stage import NotKnownYet
from stages.vision.model_error import ModelError
from stages.weights import load_model


class StoreModel:
    """A model and the identity of the weights (`model_weights_id`) that a store's vectors were made with.

    It is loaded at the first question, so whoever only reads needs no weights.
    """

    def __init__(self, model: ModelSettings, weights: str, weights_cache: str):
        self.model = model
        self.weights = weights
        self._weights_cache = weights_cache
        self._tower: Any = None

    def encode_text(self, text: str) -> list[float]:
        """The feature [d] of a text, of length 1. Raises StoreError for weights that are gone or not the store's."""
        return self._load().encode_texts([text])[0].tolist()

    def encode_image(self, data: bytes) -> list[float]:
        """The feature [d] of an image file, of length 1. Raises as `encode_text`, and UnreadableImage."""
        import torch

        from stages.vision.crops import image_tensor
        from stages.vision.decode import decode_image

        pixels = image_tensor(decode_image(data))
        tower = self._load()
        with torch.inference_mode():
            return tower.encode_images(tower.preprocess(pixels))[0].tolist()

    def check_made(self, table: str, metadata: Mapping[bytes, bytes] | None) -> None:
        """Raise StoreError where a table's metadata says that another model made its vectors."""
        made_by = {name.decode(): value.decode() for name, value in (metadata or {}).items()}
        weights = made_by.get("weights", self.weights)
        if weights != self.weights:
            former = " ".join(filter(None, [made_by.get("model"), f"(weights {weights})"]))
            raise StoreError(
                f"table {table!r} was made by {former}, the question would go through {told_model(self.model)} "
                f"(weights {self.weights}): their vectors cannot be compared"
            )

    def _load(self) -> Any:
        if self._tower is None:
            try:
                self._tower = load_model(self.model, self._weights_cache, self.weights)
            except (ModelError, NotKnownYet) as error:
                raise StoreError(f"the store's model cannot be loaded: {error}") from None
        return self._tower


def told_model(model: ModelSettings) -> str:
    """A model by its name and, where it has one of its own, its weights."""
    return model.name if model.weights is None else f"{model.name} {model.weights}"
