"""score: features x texts -> predictions, all methods in one pass over the features.

Actors hold the texts; one gets a batch of keys, reads the features from the shards and appends predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from stages.encode_images import describe_table, view_title
from stages.encode_text import prompts_by_method, text_key
from stages.methods.method import Method
from stages.pool_size import pool_size
from stages.settings import DescriptorSettings, ScoreSettings
from stages.stage import Ingredients, Inputs, Run, Stage, Table
from stages.streaming import Batch, batches_of, stream
from storage.fingerprint import digest

IMAGES_A_BATCH = 256


@dataclass(frozen=True)
class Reading:
    """What one method reads: its texts by class, and the folders of the tables of features."""

    method: Method
    prompts: dict[str, list[str]]
    texts: str
    whole: str
    view: str | None
    folder: str


class Score(Stage):
    """Keeps one table a method and seed: the best classes of every image with logits and probabilities."""

    name: ClassVar[str] = "score"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("encode_images", "encode_text")

    def __init__(
        self,
        methods: Sequence[Method],
        sets: Mapping[str, DescriptorSettings],
        seeds: Sequence[int],
        settings: ScoreSettings,
    ):
        self.methods = methods
        self.sets = sets
        self.seeds = seeds
        self.settings = settings

    def tables(self, inputs: Inputs) -> list[Table]:
        """`methods.NAME`, or `methods.NAME.seed.S` where several seeds draw the crops that the method reads."""
        encoded = {table.name: table for table in inputs.tables("encode_images")}
        (texts,) = inputs.tables("encode_text")
        prompts = prompts_by_method(self.methods, self.sets, inputs)
        tables = []
        for method in self.methods:
            view_set = getattr(method, "views", None)
            for seed in self.seeds if view_set is not None else self.seeds[:1]:
                view = None if view_set is None else encoded[view_title(view_set, seed, self.seeds)]
                chosen = prompts[method.row_name]
                tables.append(self._table(method, seed, chosen, texts, encoded["whole"], view, inputs))
        return tables

    def _table(
        self,
        method: Method,
        seed: int,
        prompts: dict[str, list[str]],
        texts: Table,
        whole: Table,
        view: Table | None,
        inputs: Inputs,
    ) -> Table:
        settings = method.model_dump(exclude={"label", "views", "descriptors"})
        rows = {"whole": whole.fingerprint} | ({} if view is None else {"view": view.fingerprint})
        of_classes = [[name, [text_key(text) for text in texts]] for name, texts in prompts.items()]
        ingredients = Ingredients(
            settings={f"methods.{key}": value for key, value in settings.items()}
            | {"score.top_k": self.settings.top_k},
            version=100 * self.version + method.version,
            rows=rows,
            whole={"texts": digest(of_classes), "encode_text": texts.fingerprint},
        )
        keeper = inputs.shard_table(self.name, ingredients)
        reading = Reading(
            method=method,
            prompts=prompts,
            texts=texts.keeper.folder,
            whole=whole.keeper.folder,
            view=None if view is None else view.keeper.folder,
            folder=keeper.folder,
        )
        refused = whole.rejected | (set() if view is None else view.rejected)
        wanted = [key for key in whole.wanted if key not in refused] if refused else whole.wanted
        seeded = view is not None and len(self.seeds) > 1
        title = f"methods.{method.row_name}" + (f".seed.{seed}" if seeded else "")
        return Table(self.name, title, ingredients, wanted, keeper, plan=(reading, seed))

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Score the images that any method lacks. Raises RuntimeError when a batch kills its worker even alone."""
        ray = run.cluster()
        lacks: dict[str, list[str]] = {}
        for table in tables:
            table.keeper.create(describe_table(table))
            for key in table.missing:
                lacks.setdefault(key, []).append(table.name)
        rows = [{"key": key, "lacks": names} for key, names in lacks.items()]
        readings = {table.name: table.plan[0] for table in tables}
        pool = pool_size(ray)
        actor_class = ray.remote(**pool.resources, max_restarts=0)(_ScoreActor)
        start = partial(actor_class.remote, readings, self.settings.top_k, pool.threads, run.id)

        def submit(actor: Any, batch: Batch) -> Any:
            return actor.score.remote(batch.rows)

        actors = min(pool.actors, -(-len(rows) // IMAGES_A_BATCH))
        for done in stream(ray, batches_of(rows, IMAGES_A_BATCH), start, submit, actors=actors):
            if done.killer is not None:
                raise RuntimeError(f"score: image {done.killer['key']} {done.reason}")
            run.advance(done.answer, 0)


class _ScoreActor:
    """Holds every method's texts; scores the images of a batch with each method that lacks them."""

    def __init__(self, readings: dict[str, Reading], top_k: int, threads: int, run: str):
        self.readings = readings
        self.top_k = top_k
        self.threads = threads
        self.run = run

    def setup(self) -> None:
        """Read the texts; apart from construction, so that what it raises is told from a death."""
        import torch

        from storage.shards import ShardTable

        torch.set_num_threads(self.threads)
        self.texts = {name: load_texts(reading) for name, reading in self.readings.items()}
        folders = {reading.whole for reading in self.readings.values()} | {
            reading.view for reading in self.readings.values() if reading.view is not None
        }
        self.tables = {folder: ShardTable(folder) for folder in folders}

    def score(self, rows: list[dict[str, Any]]) -> int:
        """Append predictions for a batch; returns the number of images."""
        from storage.shards import ShardTable

        by_need: dict[tuple[str, ...], list[str]] = {}
        for row in rows:
            by_need.setdefault(tuple(row["lacks"]), []).append(row["key"])
        for names, keys in by_need.items():
            for name in names:
                reading = self.readings[name]
                features = load_features(reading, keys, self.tables)
                predictions = predict_rows(reading, keys, features, self.texts[name], self.top_k)
                ShardTable(reading.folder).append(predictions, self.run)
        return len(rows)


def load_texts(reading: Reading) -> Any:
    """The method's texts as `Texts`: vectors [C, M, d] padded, mask [C, M], logit scale."""
    import torch

    from stages.methods.method import Texts
    from storage.schemas import to_numpy
    from storage.shards import ShardTable

    distinct = list(dict.fromkeys(text_key(text) for texts in reading.prompts.values() for text in texts))
    rows = ShardTable(reading.texts).read(keys=distinct)
    vectors = torch.from_numpy(to_numpy(rows["vector"], (-1,)).copy())
    place = {key: number for number, key in enumerate(distinct)}
    longest = max(len(texts) for texts in reading.prompts.values())
    index = torch.zeros(len(reading.prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(reading.prompts), longest, dtype=torch.bool)
    for number, texts in enumerate(reading.prompts.values()):
        index[number, : len(texts)] = torch.tensor([place[text_key(text)] for text in texts])
        mask[number, : len(texts)] = True
    padded = vectors[index] * mask.unsqueeze(-1)
    return Texts(padded, mask, float(rows["logit_scale"][0].as_py()))


def load_features(reading: Reading, keys: Sequence[str], tables: Mapping[str, Any]) -> Any:
    """Features of these images as `Features`: unit rows in fp32 (they are stored in fp16 and normalised again)."""
    import torch

    from stages.methods.method import Features
    from storage.schemas import to_numpy

    def unit(rows: pa.Table, vectors: str, norms: str) -> torch.Tensor:
        count = rows.schema.field(norms).type.list_size
        stored = to_numpy(rows[vectors], (count, -1)).astype("float32")
        return torch.nn.functional.normalize(torch.from_numpy(stored), dim=-1)

    whole = unit(tables[reading.whole].read(keys=keys, columns=["vectors", "norms"]), "vectors", "norms")[:, 0]
    if reading.view is None:
        return Features(whole)
    columns = ["vectors", "norms"]
    has_feature_crops = "feature_vectors" in tables[reading.view].columns()
    if has_feature_crops and reading.method.reads_feature_crops:
        columns += ["feature_vectors", "feature_norms"]
    rows = tables[reading.view].read(keys=keys, columns=columns)
    crops = unit(rows, "feature_vectors", "feature_norms") if "feature_vectors" in columns else None
    return Features(whole, unit(rows, "vectors", "norms"), crops)


def predict_rows(reading: Reading, keys: Sequence[str], features: Any, texts: Any, top_k: int) -> pa.Table:
    """Predictions of one method: the `top_k` best classes, best first, with logits and probabilities."""
    import time

    import torch

    from stages.matching.ranking import best_classes

    start = time.perf_counter()
    with torch.inference_mode():
        logits = reading.method.logits(features, texts).float()
        probabilities = torch.softmax(logits * reading.method.probability_scale(features), dim=1)
        entropy = torch.special.entr(probabilities).sum(1)
        values, best = best_classes(logits, min(max(top_k, 2), logits.shape[1]))
    seconds = (time.perf_counter() - start) / len(keys)
    margin = values[:, 0] - values[:, 1] if values.shape[1] > 1 else torch.zeros(len(keys))
    values, best = values[:, :top_k], best[:, :top_k]
    names = list(reading.prompts)
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "classes": pa.array([[names[i] for i in row] for row in best.tolist()], pa.list_(pa.string())),
            "logits": pa.array(values.tolist(), pa.list_(pa.float32())),
            "probabilities": pa.array(probabilities.gather(1, best).tolist(), pa.list_(pa.float32())),
            "margin": pa.array(margin.tolist(), pa.float32()),
            "entropy": pa.array(entropy.tolist(), pa.float32()),
            "seconds": pa.array([seconds] * len(keys), pa.float32()),
        }
    )
