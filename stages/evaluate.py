"""evaluate: predictions x labels -> accuracy with a bootstrap interval, per class, confusions, and seconds an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from stages.encode_images import describe_table
from stages.settings import EvaluateSettings
from stages.stage import Ingredients, Inputs, Run, Stage, Table
from storage.fingerprint import digest_pairs
from storage.shards import ShardTable

CONFUSIONS = 20

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key", "method", "split")]
    + [("seed", pa.int64())]
    + [(name, pa.float64()) for name in ("accuracy", "low", "high", "confidence", "top_5", "mean_per_class")]
    + [(name, pa.int64()) for name in ("images", "classes")]
    + [(f"{name}seconds_per_image", pa.float64()) for name in ("", "encode_", "score_")]
    + [
        ("by_class", pa.list_(pa.struct({"class": pa.string(), "images": pa.int64(), "accuracy": pa.float64()}))),
        ("confusions", pa.list_(pa.struct({"label": pa.string(), "predicted": pa.string(), "images": pa.int64()}))),
    ]
)


class Evaluate(Stage):
    """Keeps one row a method and seed, made anew whenever predictions or labels change. Nothing without labels."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("score",)

    def __init__(self, settings: EvaluateSettings):
        self.settings = settings

    def tables(self, inputs: Inputs) -> list[Table]:
        """One table of one row for each table of score; none when no query image has a label."""
        labelled = inputs.manifest.filter(pc.is_valid(inputs.manifest["class"]))
        labels = dict(zip(labelled["key"].to_pylist(), labelled["class"].to_pylist(), strict=True))
        tables = []
        for scored in inputs.tables("score"):
            known = [(key, labels[key]) for key in scored.wanted if key in labels]
            if not known:
                continue
            ingredients = Ingredients(
                settings={f"evaluate.{key}": value for key, value in self.settings.model_dump().items()},
                version=self.version,
                whole={"score": scored.fingerprint, "labels": digest_pairs(known)},
            )
            keeper = inputs.shard_table(self.name, ingredients)
            tables.append(Table(self.name, scored.name, ingredients, ["all"], keeper, plan=(scored, known)))
        return tables

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Evaluate every method that lacks its row."""
        encoded = {table.keeper.folder: table for table in inputs.tables("encode_images")}
        for table in tables:
            scored, known = table.plan
            row = evaluate_predictions(scored, known, encoded, self.settings)
            table.keeper.create(describe_table(table))
            table.keeper.append(pa.Table.from_pylist([row], schema=SCHEMA), run.id)
            run.advance(1, 0)

    def units(self, tables: Sequence[Table]) -> int | None:
        """One row a table."""
        return len(tables)


def evaluate_predictions(
    scored: Table, known: Sequence[tuple[str, str]], encoded: dict[str, Table], settings: EvaluateSettings
) -> dict[str, Any]:
    """One row of results, of the columns of `SCHEMA`.

    Accuracies are fractions in 0..1; `low` and `high` bound the first with the settings' `confidence`. `by_class` has
    the classes that label an image, by name; `confusions` the most frequent wrong predictions, most frequent first, at
    most 20. `classes` counts what an image could have been predicted as.
    """
    import polars as pl

    reading, seed = scored.plan
    keys = [key for key, _ in known]
    rows = scored.keeper.read(keys=keys, columns=["key", "classes", "seconds"])
    frame = pl.from_arrow(rows).with_columns(label=pl.Series([label for _, label in known]))
    frame = frame.with_columns(
        hit=pl.col("classes").list.first() == pl.col("label"),
        hit_5=pl.col("classes").list.head(5).list.contains(pl.col("label")),
    )
    by_class = frame.group_by(pl.col("label").alias("class")).agg(images=pl.len(), accuracy=pl.col("hit").mean())
    wrong = frame.filter(~pl.col("hit")).select("label", predicted=pl.col("classes").list.first())
    confusions = wrong.group_by("label", "predicted").agg(images=pl.len())
    confusions = confusions.sort("images", "label", "predicted", descending=[True, False, False])
    low, high = bootstrap_interval(frame["hit"].to_numpy(), settings.bootstrap, settings.confidence)
    folders = [reading.whole] + ([] if reading.view is None else [reading.view])
    encode_seconds = [_mean_seconds(encoded[folder].keeper, keys) for folder in folders]
    score_seconds = float(frame["seconds"].mean())
    return {
        "key": "all",
        "method": reading.method.row_name,
        "split": "query",
        "seed": seed,
        "accuracy": float(frame["hit"].mean()),
        "low": low,
        "high": high,
        "confidence": settings.confidence,
        "top_5": float(frame["hit_5"].mean()),
        "mean_per_class": float(by_class["accuracy"].mean()),
        "images": frame.height,
        "classes": len(reading.prompts),
        "seconds_per_image": sum(encode_seconds) + score_seconds,
        "encode_seconds_per_image": sum(encode_seconds),
        "score_seconds_per_image": score_seconds,
        "by_class": by_class.sort("class").to_dicts(),
        "confusions": confusions.head(CONFUSIONS).to_dicts(),
    }


def bootstrap_interval(hits: Any, resamples: int, confidence: float) -> tuple[float, float]:
    """Percentile interval of the mean of `hits` [n] (booleans) over resamples of the images; repeatable.

    Resampling n hits with replacement and counting them is a binomial draw, so no index is ever drawn.
    """
    import numpy as np

    drawn = np.random.default_rng(0).binomial(len(hits), float(np.mean(hits)), size=resamples) / len(hits)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _mean_seconds(keeper: ShardTable, keys: Sequence[str]) -> float:
    return float(pc.mean(keeper.read(keys=keys, columns=["seconds"])["seconds"]).as_py())
