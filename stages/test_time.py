"""test_time: the query images as a stream -> predictions of the methods that learn from it.

What an image is predicted as depends on those that came before it, so a table is made as a whole, by one worker; each
variant and seed has one of its own. Features are stored, so a run that was stopped replays the stream to the same end.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from stages.actor_pool import seen_first
from stages.encode_images import describe_table
from stages.methods.method import Method
from stages.methods.stream import StreamMethod
from stages.readings import Reading, Sources, SourcesOfMethods, predictions_table, reading_of
from stages.score import classes_to_predict, score_settings
from stages.settings import ScoreSettings
from stages.stage import Ingredients, Inputs, Run, Stage, Table
from stages.tune import cpus_each
from storage.column_digest import digest_columns
from storage.fingerprint import digest

if TYPE_CHECKING:
    from stages.methods.method import Features

IMAGES_AT_ONCE = 256
ROWS_A_SHARD = 2000


class AtTestTime(Stage):
    """Keeps one table a variant of a test-time method, with rows as those of score."""

    name: ClassVar[str] = "test_time"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("encode_images", "encode_text")

    def __init__(self, methods: Sequence[Method], seeds: Sequence[int], settings: ScoreSettings):
        self.methods = methods
        self.seeds = seeds
        self.settings = settings

    def tables(self, inputs: Inputs) -> list[Table]:
        """Named as those of score; another image, or one less, is another stream and so another table."""
        if not any(isinstance(method, StreamMethod) for method in self.methods):
            return []
        of = SourcesOfMethods(inputs, self.seeds)
        classes = classes_to_predict(self.settings.classes, inputs)
        return [self._table(one, of, classes, inputs) for one in of.all() if isinstance(one.method, StreamMethod)]

    def _table(self, sources: Sources, of: SourcesOfMethods, classes: tuple[str, ...], inputs: Inputs) -> Table:
        wanted = of.keys("query", sources.rejected)
        wholes = of.wholes(sources) | sources.rows | {"stream": digest_columns([wanted])}
        if self.settings.classes != "all":
            wholes["classes"] = digest(list(classes))
        ingredients = Ingredients(
            settings=sources.settings() | score_settings(self.settings),
            version=100 * self.version + sources.method.version,
            whole=wholes,
        )
        return predictions_table(self.name, reading_of(sources, classes), sources, wanted, ingredients, inputs)

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Replay each stream in a Ray task of its own, as many at once as there is room for."""
        ray = run.cluster()
        task = ray.remote(num_cpus=cpus_each(ray, len(tables)), max_retries=3)(seen_first)
        images = inputs.manifest.select(["key", "id"])
        waiting = {}
        for table in tables:
            table.keeper.create(describe_table(table))
            stream = images.filter(pc.is_in(images["key"], value_set=table.wanted))
            seen = os.path.join(table.keeper.folder, "table.json")
            waiting[task.remote(seen, _replay_and_append, table.plan[0], stream, self.settings, run.id)] = len(stream)
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            ray.get(done)
            run.advance(waiting.pop(done), 0)

    def units(self, tables: Sequence[Table]) -> int | None:
        """Images, as often as they come by."""
        return sum(len(table.wanted) for table in tables)


def stream_order(method: StreamMethod, ids: Sequence[str]) -> list[int]:
    """Which image comes first, second, ...: in the order of a hash of seed and id, or of the ids themselves."""
    if method.order == "listed":
        return sorted(range(len(ids)), key=ids.__getitem__)
    salt = f"stream {method.only_seed()} ".encode()
    draws = [hashlib.blake2b(salt + one.encode(), digest_size=16).digest() for one in ids]
    return sorted(range(len(ids)), key=draws.__getitem__)


def _replay_and_append(reading: Reading, stream: pa.Table, settings: ScoreSettings, run: str) -> None:
    """Predict a whole stream, then append all of it; shards that a run before left are the same and stay."""
    from stages.predictions import rows_of_logits, with_seconds
    from storage.shards import ShardTable

    keys, start = stream["key"].to_pylist(), time.perf_counter()
    logits = replay_stream(reading, keys, stream["id"].to_pylist())
    seconds, table = (time.perf_counter() - start) / max(1, len(keys)), ShardTable(reading.folder)
    for first in range(0, len(keys), ROWS_A_SHARD):
        some = slice(first, first + ROWS_A_SHARD)
        table.append(with_seconds(rows_of_logits(reading, keys[some], logits[some], 1.0, settings), seconds), run)


def replay_stream(reading: Reading, keys: Sequence[str], ids: Sequence[str]) -> Any:
    """Adapted logits [T, C] of these images, in their order. Of classes that may not be predicted the stream knows
    nothing: their logits are NaN."""
    import torch

    from stages.predictions import load_features, load_texts
    from storage.shards import ShardTable

    method = reading.method
    tables = {folder: ShardTable(folder) for folder in (reading.whole, reading.view) if folder is not None}

    def blocks() -> Iterator[Features]:
        for start in range(0, len(keys), IMAGES_AT_ONCE):
            yield load_features([reading], keys[start : start + IMAGES_AT_ONCE], tables)

    every = list(reading.prompts)
    place = {name: number for number, name in enumerate(every)}
    allowed = [place[name] for name in reading.classes]
    classes = torch.tensor([(reading.tied or range(len(every)))[number] for number in allowed])
    with torch.inference_mode():
        prepared = method.prepare(load_texts(reading.prompts, reading.texts))
        order = torch.tensor(stream_order(method, ids), dtype=torch.int64)
        adapted = method.adapted(blocks, prepared, order, classes)
        if len(allowed) == len(every):
            return adapted
        logits = torch.full((len(keys), len(every)), torch.nan)
        logits[:, allowed] = adapted
        return logits
