"""Stored features and texts as methods want them, and the rows of predictions that they make of them."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stages.encode_text import text_key
from stages.methods.method import Features, Method, Texts
from stages.readings import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from stages.settings import ScoreSettings


def prepare_methods(readings: Mapping[str, Reading]) -> dict[str, Any]:
    """What each method keeps of its texts, by the readings' names; texts that several read are loaded once."""
    together: dict[tuple[str, int], list[str]] = {}
    for name, reading in readings.items():
        together.setdefault((reading.texts, id(reading.prompts)), []).append(name)
    prepared: dict[str, Any] = {}
    for names in together.values():
        texts = load_texts(readings[names[0]].prompts, readings[names[0]].texts)
        shared: dict[Hashable, Any] = {}
        prepared |= {name: _prepare(readings[name], texts, shared) for name in names}
        del texts  # a method that needs means alone has let go of the rest
    return prepared


def _prepare(reading: Reading, texts: Texts, shared: dict[Hashable, Any]) -> Any:
    """What a method keeps of texts, and of its cache where it has one; variants of one share what both read alike."""
    method = reading.method
    if reading.support is None:
        return method.prepare(texts)
    from stages.caches import load_cache

    key = method.zero_shot_key()
    if key not in shared:
        shared[key] = method.prepare(texts)
    return shared[key], load_cache(reading)


def by_features(readings: Mapping[str, Reading]) -> list[list[str]]:
    """The readings' names, those that read the same features together: what they share is worked out once."""
    groups: dict[tuple[str, str | None], list[str]] = {}
    for name, reading in readings.items():
        groups.setdefault((reading.whole, reading.view), []).append(name)
    return list(groups.values())


def load_texts(prompts: Mapping[str, Sequence[str]], folder: str) -> Texts:
    """The texts of all classes from the table in `folder`: vectors [C, M, d] padded, mask [C, M], logit scale."""
    import torch

    from storage.schemas import to_numpy
    from storage.shards import ShardTable

    distinct = list(dict.fromkeys(text for texts in prompts.values() for text in texts))
    rows = ShardTable(folder).read(keys=[text_key(text) for text in distinct], columns=["vector", "logit_scale"])
    vectors = torch.from_numpy(to_numpy(rows["vector"], (-1,)).copy())
    place = {text: number for number, text in enumerate(distinct)}
    longest = max(len(texts) for texts in prompts.values())
    index = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for number, texts in enumerate(prompts.values()):
        index[number, : len(texts)] = torch.tensor([place[text] for text in texts])
        mask[number, : len(texts)] = True
    padded = vectors[index].masked_fill_(~mask.unsqueeze(-1), 0.0)
    return Texts(padded, mask, float(rows["logit_scale"][0].as_py()))


def load_features(readings: Sequence[Reading], keys: Sequence[str], tables: Mapping[str, Any]) -> Features:
    """Features of these images for methods that read one view set: unit rows in fp32, stored in fp16."""
    (whole_folder,), (view_folder,) = {r.whole for r in readings}, {r.view for r in readings}
    whole = load_crops(tables[whole_folder], keys)[:, 0]
    if view_folder is None:
        return Features(whole)
    columns = ["vectors", "norms"] if any(_reads_raw_crops(reading.method) for reading in readings) else []
    has_feature_crops = "feature_vectors" in tables[view_folder].columns()
    if has_feature_crops and any(reading.method.reads_feature_crops for reading in readings):
        columns += ["feature_vectors", "feature_norms"]
    rows = tables[view_folder].read(keys=keys, columns=columns)
    return Features(
        whole,
        _unit(rows, "vectors", "norms") if "vectors" in columns else None,
        _unit(rows, "feature_vectors", "feature_norms") if "feature_vectors" in columns else None,
    )


def load_crops(table: Any, keys: Sequence[str]) -> Tensor:
    """What a table holds of these images, [B, N, d]: unit rows in fp32."""
    return _unit(table.read(keys=keys, columns=["vectors", "norms"]), "vectors", "norms")


def _unit(rows: pa.Table, vectors: str, norms: str) -> Tensor:
    import torch

    from storage.schemas import to_numpy

    count = rows.schema.field(norms).type.list_size
    stored = to_numpy(rows[vectors], (count, -1)).astype("float32")
    return torch.nn.functional.normalize(torch.from_numpy(stored), dim=-1)


def first_image(features: Features) -> Features:
    """The features of a batch's first image alone."""
    raw, crops = (None if rows is None else rows[:1] for rows in (features.raw, features.crops))
    return Features(features.whole[:1], raw, crops)


def _reads_raw_crops(method: Method) -> bool:
    return getattr(method, "crops", None) != "feature"


def predict_rows(
    reading: Reading, keys: Sequence[str], features: Features, prepared: Any, settings: ScoreSettings
) -> pa.Table:
    """Predictions of one method, as `rows_of_logits` writes them."""
    import torch

    start, features.shared.borrowed = time.perf_counter(), 0.0
    with torch.inference_mode():
        logits = reading.method.logits(features, prepared).float()
        scale = reading.method.probability_scale(features)
        rows = rows_of_logits(reading, keys, logits, scale, settings)
    seconds = (time.perf_counter() - start + features.shared.borrowed) / len(keys)
    return with_seconds(rows, seconds)


def rows_of_logits(
    reading: Reading, keys: Sequence[str], scored: Tensor, scale: float, settings: ScoreSettings
) -> pa.Table:
    """A row an image: the best classes, best first, with logits and probabilities, softmax(scale x logits).

    All classes are scored, `scored` [B, C]; then those that may not be predicted drop out, so that they still count in
    what a method normalises over all classes (algorithms.md 0.4, 6). Probabilities, margin and entropy are over those
    that are left. `all_logits` [C] holds every class's logit, in the order of the job.
    """
    import torch

    from stages.matching.ranking import best_classes
    from storage.schemas import fixed_list

    every, top_k = list(reading.prompts), settings.top_k
    if reading.tied is not None:
        scored = scored[:, reading.tied]
    logits = scored
    if len(reading.classes) < len(every):
        place = {name: number for number, name in enumerate(every)}
        logits = scored[:, [place[name] for name in reading.classes]]
    probabilities = torch.softmax(logits * scale, dim=1)
    entropy = torch.special.entr(probabilities).sum(1)
    values, best = best_classes(logits, min(max(top_k, 2), logits.shape[1]))
    margin = values[:, 0] - values[:, 1] if values.shape[1] > 1 else torch.zeros(len(keys))
    values, best = values[:, :top_k], best[:, :top_k]
    names = reading.classes
    columns = {
        "key": pa.array(keys, pa.string()),
        "classes": pa.array([[names[i] for i in row] for row in best.tolist()], pa.list_(pa.string())),
        "logits": pa.array(values.tolist(), pa.list_(pa.float32())),
        "probabilities": pa.array(probabilities.gather(1, best).tolist(), pa.list_(pa.float32())),
        "margin": pa.array(margin.tolist(), pa.float32()),
        "entropy": pa.array(entropy.tolist(), pa.float32()),
    }
    if settings.full_logits:
        columns["all_logits"] = fixed_list(scored.numpy())
    return pa.table(columns)


def with_seconds(rows: pa.Table, seconds: float) -> pa.Table:
    """Predictions with what each took, before `all_logits` where these are kept."""
    column = pa.array([seconds] * len(rows), pa.float32())
    return rows.add_column(rows.schema.get_field_index("entropy") + 1, "seconds", column)
