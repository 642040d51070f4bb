"""encode_text: every distinct text that the methods read -> its feature; a new class encodes its own texts only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import pyarrow as pa

from stages.described import read_descriptors
from stages.descriptor_settings import DescriptorSettings
from stages.encode_images import describe_table, told_of_model
from stages.methods.method import Method
from stages.settings import ModelSettings
from stages.stage import Ingredients, Inputs, Run, Stage, Table
from stages.weights import model_weights_id

ROWS_A_SHARD = 2000


class Spoken(NamedTuple):
    """What is said to the text tower."""

    prompts: list[tuple[Method, dict[str, list[str]]]]
    """every method's variants in order, each with its texts by class id"""
    keys: dict[str, str]
    """the key of each distinct text"""


class EncodeText(Stage):
    """Keeps one table a model: key (hash of the text), text, fp32 unit vector, its norm, the model's logit scale."""

    name: ClassVar[str] = "encode_text"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("describe",)

    def __init__(self, model: ModelSettings, sets: Mapping[str, DescriptorSettings], methods: Sequence[Method]):
        self.model = model
        self.sets = sets
        self.methods = methods

    def tables(self, inputs: Inputs) -> list[Table]:
        """One table; wanted are the distinct texts of all methods. Its plan is `Spoken`."""
        prompts = prompts_of_methods(self.methods, self.sets, inputs)
        by_class = {id(texts): texts for _, texts in prompts}
        said = dict.fromkeys(text for texts in by_class.values() for of_class in texts.values() for text in of_class)
        keys = {text: text_key(text) for text in said}
        ingredients = Ingredients(
            settings={}, version=self.version, weights=model_weights_id(self.model, inputs.weights_cache())
        )
        return [
            Table(
                stage=self.name,
                name="texts",
                ingredients=ingredients,
                wanted=list(keys.values()),
                keeper=inputs.shard_table(self.name, ingredients),
                plan=Spoken(prompts, keys),
                told=told_of_model(self.model),
            )
        ]

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Encode the missing texts in Ray tasks, some thousand in each: seconds of work."""
        ray = run.cluster()
        task = ray.remote(num_cpus=1, max_retries=3)(_encode_and_append)
        for table in tables:
            table.keeper.create(describe_table(table))
            text_of = {key: text for text, key in table.plan.keys.items()}
            for start in range(0, len(table.missing), ROWS_A_SHARD):
                texts = {key: text_of[key] for key in table.missing.slice(start, ROWS_A_SHARD).to_pylist()}
                weights = inputs.weights_cache(), table.ingredients.weights
                ray.get(task.remote(self.model, texts, table.keeper.folder, run.id, *weights))
                run.advance(len(texts), 0)


def prompts_of_methods(
    methods: Sequence[Method], sets: Mapping[str, DescriptorSettings], inputs: Inputs
) -> list[tuple[Method, dict[str, list[str]]]]:
    """Every method's variants in order, each with its texts by class id. Raises NotKnownYet before describe is done.

    Methods that read the same texts get the same object, so that what follows can tell without comparing them.
    """
    described = {
        table.name.removeprefix("descriptors."): read_descriptors(table) for table in inputs.complete("describe")
    }
    names, known = list(inputs.names.values()), {}
    found = []
    for method in methods:
        variants = method.variants()
        said = None
        for variant in variants:
            if said is None or variant.draws_prompts:
                said = _texts(variant, sets, described, names)
            same = known.setdefault(tuple(map(tuple, said)), dict(zip(inputs.names, said, strict=True)))
            found.append((variant, same))
    return found


def _texts(
    method: Method,
    sets: Mapping[str, DescriptorSettings],
    described: Mapping[str, Mapping[str, list[str]]],
    names: Sequence[str],
) -> list[list[str]]:
    chosen = getattr(method, "descriptors", None)
    form = "sentences" if chosen is None else sets[chosen].form
    descriptors = None if chosen is None else [described[chosen][name] for name in names]
    return method.class_prompts(names, descriptors, form)


def text_key(text: str) -> str:
    """The key of a text's row."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _encode_and_append(
    model: ModelSettings, texts: dict[str, str], folder: str, run: str, weights_cache: str, planned: str
) -> None:
    import numpy as np

    from stages.weights import load_model
    from storage.schemas import fixed_list
    from storage.shards import ShardTable

    tower = load_model(model, weights_cache, planned)
    features = tower.encode_texts(list(texts.values())).numpy().astype(np.float32)
    norms = np.linalg.norm(features, axis=1)
    rows = pa.table(
        {
            "key": pa.array(list(texts), pa.string()),
            "text": pa.array(list(texts.values()), pa.string()),
            "vector": fixed_list(features / norms[:, None]),
            "norm": pa.array(norms.astype(np.float32)),
            "logit_scale": pa.array(np.full(len(texts), tower.logit_scale, np.float32)),
        }
    )
    ShardTable(folder).append(rows, run)
