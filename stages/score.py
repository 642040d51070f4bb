"""score: features x texts -> predictions, all methods in one pass over the features.

Actors hold the texts; one gets a batch of keys, reads the features from the shards and appends predictions. What the
methods of one view set have in common is read once, and worked out once (`Features.shared`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from stages.batches import Batch, batches_of
from stages.class_names import read_class_names
from stages.encode_images import describe_table
from stages.lacking import LackingRows
from stages.methods.stream import StreamMethod
from stages.readings import Reading, Sources, SourcesOfMethods, predictions_table, reading_of
from stages.settings import ScoreSettings
from stages.staff import find_room
from stages.stage import Ingredients, Inputs, Run, Stage, Table, lacking_keys
from stages.streaming import stream
from stages.tune import OF_THE_SEARCH, tuned_title
from storage.fingerprint import digest

IMAGES_A_BATCH = 256
CACHE_BYTES = 1_500_000_000
"""Of support sets, that an actor holds at a time: a thousand classes of 16 shots and nine descriptions are 600 MB."""
IMAGES_WORTH_AN_ACTOR = 64
"""Fewer are not shared out: an actor takes seconds to start, in which another scores them."""


class Score(Stage):
    """Keeps one table a variant of a method and seed: the best classes of every image with logits and probabilities."""

    name: ClassVar[str] = "score"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("encode_images", "encode_text", "build_caches", "tune")

    def __init__(self, seeds: Sequence[int], settings: ScoreSettings):
        self.seeds = seeds
        self.settings = settings

    def tables(self, inputs: Inputs) -> list[Table]:
        """`methods.NAME`; with `.seed.S` where several seeds draw the crops, `.shots.K` and `.draw.D` of a variant."""
        of = SourcesOfMethods(inputs, self.seeds)
        classes = classes_to_predict(self.settings.classes, inputs)
        tuned = {table.name: table for table in inputs.tables("tune")}
        return [
            self._table(one, of, classes, tuned.get(tuned_title(one)), inputs)
            for one in of.all()
            if not isinstance(one.method, StreamMethod)
        ]

    def _table(
        self, sources: Sources, of: SourcesOfMethods, classes: tuple[str, ...], tuned: Table | None, inputs: Inputs
    ) -> Table:
        reading, wholes = reading_of(sources, classes), of.wholes(sources)
        if tuned is not None:
            wholes["tune"] = tuned.fingerprint
            reading = replace(reading, support=tuned.plan.reading.support)
        if self.settings.classes != "all":
            wholes["classes"] = digest(list(classes))
        settings = sources.settings()
        if tuned is not None:
            settings = {key: value for key, value in settings.items() if key not in OF_THE_SEARCH}
        ingredients = Ingredients(
            settings=settings | score_settings(self.settings),
            version=100 * self.version + sources.method.version,
            rows=sources.rows,
            whole=wholes,
        )
        wanted = of.keys("query", sources.rejected)
        return predictions_table(self.name, reading, sources, wanted, ingredients, inputs)

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Score the images that any method lacks. Raises RuntimeError when a batch kills its worker even alone."""
        _tell_of_namesakes(inputs.names, run)
        for together in passes(tables):
            self._compute(together, run)

    def units(self, tables: Sequence[Table]) -> int | None:
        """Distinct images of each pass."""
        return sum(len(lacking_keys(together)) for together in passes(tables))

    def _compute(self, tables: Sequence[Table], run: Run) -> None:
        ray = run.cluster()
        for table in tables:
            table.keeper.create(describe_table(table))
        rows = LackingRows(pa.table({"key": lacking_keys(tables)}), tables)
        readings = {table.name: table.plan[0] for table in tables}
        staff = find_room(ray, self.name, minutes=run.wait_minutes, tell=run.tell)
        pool = staff.size
        actor_class = ray.remote(**pool.resources, max_restarts=0, scheduling_strategy="SPREAD")(_ScoreActor)
        start = partial(actor_class.remote, readings, self.settings, pool.threads, run.id)

        def submit(actor: Any, batch: Batch) -> Any:
            return actor.score.remote(batch.rows)

        size = min(IMAGES_A_BATCH, max(IMAGES_WORTH_AN_ACTOR, -(-len(rows) // pool.actors)))
        staff.most = -(-len(rows) // size)
        seen = [os.path.join(table.keeper.folder, "table.json") for table in tables]
        at_once = 1 if staff.most <= pool.actors else 2  # the first that is ready must not take them all
        for done in stream(ray, batches_of(rows, size), start, submit, staff, in_flight=at_once, seen=seen):
            if done.killer is not None:
                raise RuntimeError(f"score: image {done.killer['key']} {done.reason}")
            run.advance(done.answer, 0)


def passes(tables: Sequence[Table]) -> list[list[Table]]:
    """Tables that are scored in one pass over the features: all, but as many caches as an actor has memory for."""
    found: list[list[Table]] = [[]]
    held = 0
    for table in tables:
        needed = _cache_bytes(table.plan[0])
        if found[-1] and needed and held + needed > CACHE_BYTES:
            found.append([])
            held = 0
        found[-1].append(table)
        held += needed
    return found


def _cache_bytes(reading: Reading) -> int:
    """About what the keys of a few-shot variant take, in float32 of a thousand numbers."""
    if reading.support is None:
        return 0
    texts = max(map(len, reading.prompts.values())) if reading.method.chooses_crops else 1
    return 4096 * len(reading.support.shots) * texts


def score_settings(settings: ScoreSettings) -> dict[str, Any]:
    """What of the settings decides the rows of predictions, in the words of the job file."""
    return {f"score.{key}": value for key, value in settings.model_dump(exclude={"classes"}).items()}


def classes_to_predict(setting: str, inputs: Inputs) -> tuple[str, ...]:
    """The ids of `score.classes`, in the job's order: all, those that label a query image, or those of a file.

    A name in the file stands for every class of that name. Raises ValueError for a name that no class has, and where no
    query image is labelled.
    """
    if setting == "all":
        return inputs.classes
    if setting == "labelled":
        query = pc.equal(inputs.manifest["split"], "query")
        found = set(pc.unique(inputs.manifest["class"].filter(query)).to_pylist()) - {None}
        if not found:
            raise ValueError("score.classes: labelled, but no query image has a label; say all, or name a file")
        return tuple(identity for identity in inputs.classes if identity in found)
    named = read_class_names(setting, key="score.classes").classes
    known = set(inputs.names.values())
    strangers = [identity for identity, name in named.items() if identity not in inputs.names and name not in known]
    if strangers:
        raise ValueError(f"score.classes: {setting} names {', '.join(strangers[:5])}, which is no class of the job")
    spoken = {name for identity, name in named.items() if identity not in inputs.names}
    return tuple(identity for identity, name in inputs.names.items() if identity in named or name in spoken)


def _tell_of_namesakes(names: Mapping[str, str], run: Run) -> None:
    shared = [name for name, count in Counter(names.values()).items() if count > 1]
    if shared:
        run.tell(
            f"{len(shared)} names are those of several classes ({', '.join(shared[:5])}{', ...' * (len(shared) > 5)}): "
            "prompts cannot tell these apart and the first one wins; results also count them as one (merged accuracy)"
        )


class _ScoreActor:
    """Holds every method's texts; scores the images of a batch with each method that lacks them."""

    def __init__(self, readings: dict[str, Reading], settings: ScoreSettings, threads: int, run: str):
        self.readings = readings
        self.settings = settings
        self.threads = threads
        self.run = run
        self.warm: set[str] = set()

    def setup(self) -> None:
        """Read the texts; apart from construction, so that what it raises is told from a death."""
        import torch

        from stages.predictions import prepare_methods
        from storage.shards import ShardTable

        torch.set_num_threads(self.threads)
        self.prepared = prepare_methods(self.readings)
        folders = {(one.whole, one.view, one.folder) for one in self.readings.values()}
        self.tables = {folder: ShardTable(folder) for folder in set(chain(*folders)) - {None}}

    def score(self, rows: list[dict[str, Any]]) -> int:
        """Append predictions for a batch; returns the number of images."""
        from stages.predictions import by_features, load_features, predict_rows

        by_need: dict[tuple[str, ...], list[str]] = {}
        for row in rows:
            by_need.setdefault(tuple(row["lacks"]), []).append(row["key"])
        for names, keys in by_need.items():
            for together in by_features({name: self.readings[name] for name in names}):
                features = load_features([self.readings[name] for name in together], keys, self.tables)
                self._warm_up(together, features)
                for name in together:
                    reading = self.readings[name]
                    predictions = predict_rows(reading, keys, features, self.prepared[name], self.settings)
                    self.tables[reading.folder].append(predictions, self.run)
        return len(rows)

    def _warm_up(self, names: Sequence[str], features: Any) -> None:
        """One image before the clock runs: kernels are compiled, or loaded, when they are first called."""
        from stages.predictions import first_image

        for name in names:
            if name not in self.warm:
                self.readings[name].method.logits(first_image(features), self.prepared[name])
                self.warm.add(name)
