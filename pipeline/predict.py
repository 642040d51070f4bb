"""Predict: stored predictions of a job's images, or predictions for new image files, by every method of the job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.plan import Plan
from pipeline.settings import Job
from stages.stage import NotKnownYet

if TYPE_CHECKING:
    from stages.encoder import Image, ViewTable
    from stages.methods import Method

AT_ONCE = 16
"""New images that are decoded and encoded together."""
READ_AT_ONCE = 2000
_SHOWN = ("key", "classes", "probabilities", "margin")


class NotComputed(RuntimeError):
    """Something asked for is not in the store yet; the message says which command computes it."""


def stored_predictions(plan: Plan, methods: Sequence[str], top_k: int) -> list[dict[str, Any]]:
    """A row an image and variant: image, method, seed, shots, draw, class, probability, margin, and the `top_k` best.

    `seed` is that of the crops, `shots` the number of labelled images a class of a few-shot method, `draw` the seed of
    the method's own draws, where it has several. Probabilities are over all
    classes that may be predicted, so those of all of them sum to one. Raises NotComputed.
    """
    ids = dict(zip(plan.inputs.manifest["key"].to_pylist(), plan.inputs.manifest["id"].to_pylist(), strict=True))
    rows = []
    for table in _scored(plan):
        reading, seed = table.plan
        if methods and reading.method.row_name not in methods:
            continue
        if not table.complete:
            raise NotComputed(f"{table.name}: {len(table.missing):,} images have no prediction yet")
        for start in range(0, len(table.wanted), READ_AT_ONCE):
            stored = table.keeper.read(table.wanted.slice(start, READ_AT_ONCE), _SHOWN)
            rows += [_row(ids[row["key"]], reading.method, seed, row, top_k) for row in stored.to_pylist()]
    return rows


def new_predictions(
    job: Job, plan: Plan, images: Sequence[Path], methods: Sequence[str], top_k: int
) -> tuple[list[dict[str, Any]], list[tuple[Path, str]]]:
    """Predictions for image files outside the data set, without Ray; and the files that cannot be read, with why.

    Methods that learn from the stream of query images are left out, and an error where they are asked for by name.
    An image's id for random draws is its file name. Raises NotComputed when the texts are not encoded yet.
    """
    import torch

    from stages.encode_images import guides_in_use, planned_weights
    from stages.encoder import Encoder, ViewTable
    from stages.predictions import by_features, load_features, predict_rows, prepare_methods

    tables = [table for table in _scored(plan) if not methods or table.plan[0].method.row_name in methods]
    scored = [table for table in tables if table.stage == "score"]
    if tables and (not scored or (methods and len(scored) < len(tables))):
        raise NotComputed("methods that learn from a stream of query images say nothing of other images")
    few_shot = [table.plan[0].support for table in scored if table.plan[0].support is not None]
    read = {folder for support in few_shot for folder in (support.fitted, support.features, support.chosen)}
    for stage in ("encode_images", "build_caches", "tune"):
        if any(table.keeper.folder in read and not table.complete for table in plan.of(stage).tables):
            raise NotComputed("the few-shot methods are not tuned yet")
    if plan.of("encode_text").unknown or not plan.of("encode_text").done:
        raise NotComputed("the descriptors are not encoded yet")
    read = {folder for table in scored for folder in (table.plan[0].whole, table.plan[0].view)}
    encoded = {t.keeper.folder: t for t in plan.of("encode_images").tables if t.keeper.folder in read}
    views = {table.name: ViewTable(*table.plan) for table in encoded.values() if table.plan is not None}
    guides = guides_in_use([table.plan for table in encoded.values() if table.plan is not None], job.guides)
    on_gpu = torch.cuda.is_available() and job.resources.encode.gpus != 0
    planned = planned_weights(list(encoded.values()))
    device, cache = "cuda" if on_gpu else "cpu", plan.inputs.weights_cache()
    encoder = Encoder(job.model, guides, job.precision, device, cache, planned)
    readings = {table.name: table.plan[0] for table in scored}
    prepared = prepare_methods(readings)
    settings = job.score.model_copy(update={"top_k": max(top_k, 1), "full_logits": False})
    rows, unreadable = [], []
    for start in range(0, len(images), AT_ONCE):
        decoded, refused = _decode(images[start : start + AT_ONCE], job, views)
        unreadable += refused
        if not decoded:
            continue
        made = encoder.encode(decoded, [{"whole", *views}] * len(decoded), views)
        memory = {folder: _InMemory(made[table.name]) for folder, table in encoded.items()}
        keys = [image.key for image in decoded]
        for together in by_features(readings):
            features = load_features([readings[name] for name in together], keys, memory)
            for table in (table for table in scored if table.name in together):
                reading, seed = table.plan
                predicted = predict_rows(reading, keys, features, prepared[table.name], settings)
                rows += [_row(row["key"], reading.method, seed, row, top_k) for row in predicted.to_pylist()]
    return rows, unreadable


def _decode(
    images: Sequence[Path], job: Job, views: Mapping[str, ViewTable]
) -> tuple[list[Image], list[tuple[Path, str]]]:
    """The images that can be read, and those that cannot with the reason."""
    from stages.encoder import Image
    from stages.photograph import decode_photograph
    from stages.vision.decode import UnreadableImage
    from stages.vision.names import input_size
    from storage.blobs import read_blobs
    from storage.uris import LocalFile, format_uri

    settings, size = {name: table.view for name, table in views.items()}, input_size(job.model.name)
    decoded, unreadable = [], []
    for path in images:
        (data,) = read_blobs([format_uri(LocalFile(str(path)))])
        if isinstance(data, OSError):
            unreadable.append((path, f"cannot be read: {data.strerror or data}"))
            continue
        try:
            photograph = decode_photograph(data, settings, size, full=job.decode == "full")
        except UnreadableImage as error:
            unreadable.append((path, str(error)))
        else:
            decoded.append(Image(key=str(path), id=path.name, photograph=photograph))
    return decoded, unreadable


class _InMemory:
    """Rows just computed, read the way a `ShardTable` is."""

    def __init__(self, rows: pa.Table):
        self.all = rows

    def columns(self) -> list[str]:
        return self.all.column_names

    def read(self, keys: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Rows in the order of `keys`."""
        place = {key: number for number, key in enumerate(self.all["key"].to_pylist())}
        return self.all.select(list(columns)).take([place[key] for key in keys])


def _scored(plan: Plan) -> Sequence[Any]:
    try:
        return plan.predictions
    except NotKnownYet as reason:
        raise NotComputed(f"predictions are {reason}") from None


def _row(image: str, method: Method, seed: int, row: dict[str, Any], top_k: int) -> dict[str, Any]:
    best = list(zip(row["classes"], row["probabilities"], strict=True))[:top_k]
    return {
        "image": image,
        "method": method.row_name,
        "seed": seed,
        "shots": method.shot,
        "draw": method.draw,
        "class": row["classes"][0],
        "probability": row["probabilities"][0],
        "margin": row["margin"],
        "top": [{"class": name, "probability": probability} for name, probability in best],
    }


def write_predictions(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write predictions as .csv, .parquet or .json, told by the file's name. Raises ValueError for another one."""
    import polars as pl

    text, number = pl.String, pl.Float64
    whole = pl.Int64
    schema = {"image": text, "method": text, "seed": whole, "shots": whole, "draw": whole}
    schema |= {"class": text, "probability": number, "margin": number}
    schema |= {"top_classes": pl.List(text), "top_probabilities": pl.List(number)}
    suffix = out.suffix.lower()
    if suffix == ".json":
        out.write_text(json.dumps({"predictions": list(rows)}, indent=1) + "\n", encoding="utf-8")
        return
    if suffix not in (".parquet", ".csv"):
        raise ValueError(f"{out}: predictions are written as .csv, .parquet or .json")
    flat = [
        {name: value for name, value in row.items() if name != "top"}
        | {"top_classes": [best["class"] for best in row["top"]]}
        | {"top_probabilities": [best["probability"] for best in row["top"]]}
        for row in rows
    ]
    frame = pl.DataFrame(flat, schema=schema)
    if suffix == ".parquet":
        frame.write_parquet(out)
        return
    frame.with_columns(
        pl.col("top_classes").list.join("|"),
        pl.col("top_probabilities").list.eval(pl.element().round(6).cast(pl.String)).list.join("|"),
    ).write_csv(out)
