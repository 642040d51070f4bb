"""evaluate: predictions x labels -> accuracy with its interval, calibration, classes, confusions, time; comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from stages import comparisons
from stages.encode_images import describe_table
from stages.settings import EvaluateSettings
from stages.stage import Ingredients, Inputs, Run, Stage, Table
from stages.statistics import bootstrap_interval, calibration_error
from storage.column_digest import digest_columns
from storage.fingerprint import digest, digest_pairs
from storage.shards import ShardTable

CONFUSIONS = 20
COMPARISONS = "comparisons"

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key", "method", "split")]
    + [(name, pa.int64()) for name in ("seed", "shots", "draw")]
    + [(name, pa.float64()) for name in ("accuracy", "low", "high", "confidence", "top_5", "mean_per_class")]
    + [(name, pa.float64()) for name in ("merged_accuracy", "mean_confidence", "calibration_error")]
    + [(name, pa.int64()) for name in ("images", "classes", "forward_passes")]
    + [(f"{name}seconds_per_image", pa.float64()) for name in ("", "encode_", "score_")]
    + [
        ("by_class", pa.list_(pa.struct({"class": pa.string(), "images": pa.int64(), "accuracy": pa.float64()}))),
        ("confusions", pa.list_(pa.struct({"label": pa.string(), "predicted": pa.string(), "images": pa.int64()}))),
    ]
)


@dataclass(frozen=True)
class Labelled:
    """Images with labels: their `key` and `class` (an id), how many there are of each class, a digest of the first."""

    images: pa.Table
    classes: Mapping[str, int]
    digest: str


class Evaluate(Stage):
    """Keeps one row a variant of a method and seed, and one a pair of methods; nothing without labels.

    They are made anew whenever predictions or labels change.
    """

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 4
    reads: ClassVar[tuple[str, ...]] = ("score", "test_time")

    def __init__(self, settings: EvaluateSettings):
        self.settings = settings

    def tables(self, inputs: Inputs) -> list[Table]:
        """One table of one row for each table of score, then `comparisons` of two methods or more.

        None when no query image has a label. Raises ValueError when `score.classes` leaves out a class that labels one.
        """
        manifest = inputs.manifest.select(["key", "class"])
        labels = manifest.filter(pc.and_(pc.is_valid(manifest["class"]), pc.equal(inputs.manifest["split"], "query")))
        names = digest_pairs(inputs.names.items())
        found: dict[int, Labelled] = {}  # most tables of score want the same images, and share the list of them
        evaluated: list[tuple[Table, Labelled]] = []
        for scored in (*inputs.tables("score"), *inputs.tables("test_time")):
            if id(scored.wanted) not in found:
                found[id(scored.wanted)] = _label(scored.wanted, labels)
            known = found[id(scored.wanted)]
            if len(known.images):
                _check_classes(scored, known)
                evaluated.append((scored, known))
        tables = [self._row_table(scored, known, names, inputs) for scored, known in evaluated]
        return tables + self._comparisons_table(evaluated, inputs)

    def _row_table(self, scored: Table, known: Labelled, names: str, inputs: Inputs) -> Table:
        reading, seed = scored.plan
        named = {"method": reading.method.title, "seed": seed}  # the row says them, and predictions may not differ
        ingredients = Ingredients(
            settings={f"evaluate.{key}": value for key, value in (self.settings.model_dump() | named).items()},
            version=self.version,
            whole={"score": scored.fingerprint, "labels": known.digest, "names": names},
        )
        keeper = inputs.shard_table(self.name, ingredients)
        return Table(self.name, scored.name, ingredients, ["all"], keeper, plan=(scored, known.images))

    def _comparisons_table(self, evaluated: Sequence[tuple[Table, Labelled]], inputs: Inputs) -> list[Table]:
        by_method: dict[str, list[Table]] = {}
        for scored, _ in evaluated:
            by_method.setdefault(scored.plan[0].method.title, []).append(scored)
        if len(by_method) < 2 or not len(common := _common_images([known for _, known in evaluated])):
            return []
        settings = self.settings.model_dump(include={"bootstrap", "confidence"})
        ingredients = Ingredients(
            settings={f"evaluate.{key}": value for key, value in settings.items()} | {"methods": list(by_method)},
            version=self.version,
            whole={scored.name: digest([scored.fingerprint, known.digest]) for scored, known in evaluated},
        )
        keeper = inputs.shard_table(self.name, ingredients)
        keys = comparisons.pair_keys(list(by_method))
        return [Table(self.name, COMPARISONS, ingredients, keys, keeper, plan=(by_method, common))]

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Evaluate every method that lacks its row, and compare all of them where the comparisons are missing."""
        encoded = {table.keeper.folder: table for table in inputs.tables("encode_images")}
        for table in tables:
            table.keeper.create(describe_table(table))
            if table.name == COMPARISONS:
                by_method, common = table.plan
                right = {method: comparisons.count_right(scored, common) for method, scored in by_method.items()}
                rows, schema = comparisons.compare_methods(right, self.settings), comparisons.SCHEMA
            else:
                scored, known = table.plan
                rows, schema = [evaluate_predictions(scored, known, inputs.names, encoded, self.settings)], SCHEMA
            table.keeper.append(pa.Table.from_pylist(rows, schema=schema), run.id)
            run.advance(len(rows), 0)

    def units(self, tables: Sequence[Table]) -> int | None:
        """Rows of all tables: their keys are not those of images."""
        return sum(len(table.missing) for table in tables)


def _label(keys: pa.ChunkedArray, labels: pa.Table) -> Labelled:
    """Those of the labelled images that have one of these keys."""
    if not labels["key"].equals(keys):
        labels = labels.filter(pc.is_in(labels["key"], value_set=keys))
    counts = pc.value_counts(labels["class"])
    classes = dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
    return Labelled(labels, classes, digest_columns([labels["key"], labels["class"]]))


def _common_images(labelled: Sequence[Labelled]) -> pa.Table:
    """Images that every method has predicted, with their labels: one may reject what another does not read."""
    first, *others = {id(known): known.images for known in labelled}.values()
    for images in others:
        first = first.filter(pc.is_in(first["key"], value_set=images["key"]))
    return first


def _check_classes(scored: Table, known: Labelled) -> None:
    """Images whose class may not be predicted would all count as wrong, without a word."""
    outside = sorted(set(known.classes).difference(scored.plan[0].classes))
    if outside:
        images = sum(known.classes[name] for name in outside)
        raise ValueError(
            f"score.classes leaves out {', '.join(outside[:5])}{' and others' if len(outside) > 5 else ''}, "
            f"which label {images:,} of the {len(known.images):,} query images: these could never be right. "
            "Name those classes too, or leave the images out of the query split"
        )


def evaluate_predictions(
    scored: Table,
    known: pa.Table,
    names: Mapping[str, str],
    encoded: Mapping[str, Table],
    settings: EvaluateSettings,
) -> dict[str, Any]:
    """One row of results, of the columns of `SCHEMA`.

    `known` has the images' `key` and `class` (an id), `names` says the spoken name of each id. Accuracies are fractions
    in 0..1; `low` and `high` bound the first with the settings' `confidence`. `merged_accuracy` counts a prediction
    that is spoken as the label is, null where no two classes are (algorithms.md 0.4, 4 and 5). `mean_confidence` is the
    mean probability of the predicted class, `calibration_error` how far these lie from how often they are right.
    `by_class` has the classes that label an image, by name; `confusions` the most frequent wrong predictions, most
    frequent first, at most 20. `classes` counts what an image could have been predicted as, `forward_passes` what the
    encoder saw of one: the whole image and its crops. Seconds count the share of a view set's crops that the method
    reads, and all of both kinds where it reads raw or feature crops alone.
    """
    import polars as pl

    reading, seed = scored.plan
    keys = known["key"]
    rows = scored.keeper.read(keys=keys, columns=["key", "classes", "probabilities", "seconds"])
    frame = pl.from_arrow(rows).with_columns(label=pl.from_arrow(known["class"]))
    frame = frame.with_columns(
        predicted=pl.col("classes").list.first(),
        probability=pl.col("probabilities").list.first().cast(pl.Float64),
        hit=pl.col("classes").list.first() == pl.col("label"),
        hit_5=pl.col("classes").list.head(5).list.contains(pl.col("label")),
    )
    hits = frame["hit"].to_numpy()
    low, high = bootstrap_interval(hits, settings.bootstrap, settings.confidence)
    by_class = frame.group_by(pl.col("label").alias("class")).agg(images=pl.len(), accuracy=pl.col("hit").mean())
    confusions = frame.filter(~pl.col("hit")).group_by("label", "predicted").agg(images=pl.len())
    confusions = confusions.sort("images", "label", "predicted", descending=[True, False, False])
    encode_seconds = _mean_seconds(encoded[reading.whole].keeper, keys)
    if reading.view is not None:
        encode_seconds += _mean_seconds(encoded[reading.view].keeper, keys) * reading.share
    score_seconds = float(frame["seconds"].mean())
    return {
        "key": "all",
        "method": reading.method.row_name,
        "split": "query",
        "seed": seed,
        "shots": reading.method.shot,
        "draw": reading.method.draw,
        "accuracy": float(frame["hit"].mean()),
        "low": low,
        "high": high,
        "confidence": settings.confidence,
        "top_5": float(frame["hit_5"].mean()),
        "mean_per_class": float(by_class["accuracy"].mean()),
        "merged_accuracy": _merged_accuracy(frame, reading.classes, names),
        "mean_confidence": float(frame["probability"].mean()),
        "calibration_error": calibration_error(frame["probability"].to_numpy(), hits, settings.calibration_bins),
        "images": frame.height,
        "classes": len(reading.classes),
        "forward_passes": 1 + reading.crops,
        "seconds_per_image": encode_seconds + score_seconds,
        "encode_seconds_per_image": encode_seconds,
        "score_seconds_per_image": score_seconds,
        "by_class": by_class.sort("class").to_dicts(),
        "confusions": confusions.head(CONFUSIONS).to_dicts(),
    }


def _merged_accuracy(frame: Any, classes: Sequence[str], names: Mapping[str, str]) -> float | None:
    spoken = {identity: names[identity] for identity in classes}
    if len(set(spoken.values())) == len(spoken):
        return None
    return float((frame["predicted"].replace(spoken) == frame["label"].replace(spoken)).mean())


def _mean_seconds(keeper: ShardTable, keys: pa.ChunkedArray) -> float:
    return float(pc.mean(keeper.read(keys=keys, columns=["seconds"])["seconds"]).as_py())
