"""The feature store as an application sees it: open a store, search crops, images, descriptors by text or image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.plan import Plan
from pipeline.record import fingerprints
from pipeline.settings import Job
from stages.settings import ModelSettings
from stages.stage import NotKnownYet, weights_cache
from stages.vision.model_error import ModelError
from stages.weights import load_model, model_weights_id
from storage import files
from storage.records import read_records

TABLES = ("crops", "images", "descriptors")


class StoreError(RuntimeError):
    """A store that cannot answer; the message says why and what would help."""


class FeatureStore:
    """The current LanceDB tables of a store, with the model that made them.

    >>> store = FeatureStore.open("runs/birds")          # doctest: +SKIP
    >>> store.search("a long red beak", k=3)[0]["image"]  # doctest: +SKIP
    'test/Velvet Sandrunner/004.jpg'
    """

    def __init__(self, database: str, model: ModelSettings, weights: str, weights_cache: str):
        """`weights`: the identity of those that made the database (`model_weights_id`)."""
        self.database = database
        self.model = model
        self.weights = weights
        self.weights_cache = weights_cache
        self._tower: Any = None

    @classmethod
    def open(cls, store: str | Path, job: str | None = None) -> FeatureStore:
        """Open the database that the newest completed run (of `job`, if given) left in a folder or `s3://`, `gs://`.

        Raises StoreError where there is none or it is out of reach, and where the model's weights have changed since.
        """
        try:
            records = read_records(str(store))
        except OSError as error:
            raise StoreError(f"{store} cannot be read: {error.strerror or error}") from None
        fitting = [r for r in records if r["database"] and (job is None or r["job"] == job)]
        if not fitting:
            raise StoreError(f"{store} has no completed run{f' of {job}' if job else ''}: run the job first")
        newest = fitting[-1]
        database = os.path.join(str(store), newest["database"])
        if not files.exists(database):
            raise StoreError(f"{database} is gone: run the job again, it is projected from the shards")
        model = ModelSettings.model_validate(newest["settings"]["model"])
        try:
            weights = model_weights_id(model, weights_cache(str(store)))
        except (FileNotFoundError, NotKnownYet) as error:
            raise StoreError(f"the store's model is gone: {error}") from None
        if weights != newest["weights"]:
            raise StoreError(f"the weights of {model.name} are not those that made this store: run the job again")
        return cls(database, model, weights, weights_cache(str(store)))

    @classmethod
    def of_plan(cls, plan: Plan, job: Job) -> tuple[FeatureStore, bool]:
        """The database of a job under its present settings, and whether it is up to date with its images and texts.

        Raises StoreError where these settings were never run to the end.
        """
        projected = plan.of("project")
        if projected.done:
            return cls(projected.tables[0].keeper.uri, job.model, _weights(plan), weights_cache(job.store)), True
        now = _of_features(fingerprints(plan))
        for record in reversed(read_records(job.store)):
            if record["database"] and now and _of_features(record["tables"]) == now:
                database = os.path.join(job.store, record["database"])
                return cls(database, job.model, _weights(plan), weights_cache(job.store)), False
        raise StoreError("these settings were not run to the end yet")

    def search(
        self,
        text: str | None = None,
        *,
        image: str | Path | None = None,
        table: str = "crops",
        k: int = 10,
        class_name: str | None = None,
        split: str | None = None,
    ) -> list[dict[str, Any]]:
        """The k rows of a table most similar to a text or an image file, best first.

        `similarity` is the cosine in -1..1; a crop's `box` is x0, y0, x1, y1 in pixels of its image. Raises StoreError
        for a table that is not there and a model that is not to be had as it was, ValueError for a call that names
        neither or both of text and image.
        """
        from storage.lance import Projection, where_equal

        if (text is None) == (image is None):
            raise ValueError("search for a text or for an image, one of them")
        if table not in TABLES:
            raise ValueError(f"no table is called {table!r}; there are {', '.join(TABLES)}")
        wanted = {"class": class_name, "split": split}
        where = where_equal({name: value for name, value in wanted.items() if value is not None})
        vector = self._encode_text(text) if text is not None else self._encode_image(Path(image))
        try:
            return Projection(self.database).search(table, vector, k=k, where=where)
        except LookupError as error:
            raise StoreError(str(error)) from None

    def _encode_text(self, text: str) -> list[float]:
        return self._load().encode_texts([text])[0].tolist()

    def _encode_image(self, path: Path) -> list[float]:
        import torch

        from stages.vision.crops import image_tensor
        from stages.vision.decode import decode_image

        tower = self._load()
        with torch.inference_mode():
            return tower.encode_images(tower.preprocess(image_tensor(decode_image(path.read_bytes()))))[0].tolist()

    def _load(self) -> Any:
        if self._tower is None:
            try:
                self._tower = load_model(self.model, self.weights_cache, self.weights)
            except ModelError as error:
                raise StoreError(f"the store's model cannot be loaded: {error}") from None
        return self._tower


def _weights(plan: Plan) -> str:
    return plan.of("encode_images").tables[0].ingredients.weights


def _of_features(tables: Mapping[str, str]) -> dict[str, str]:
    """The fingerprints that decide which database shows the tables of a plan or record."""
    return {name: value for name, value in tables.items() if name.startswith(("encode_images/", "encode_text/"))}
