"""similar_classes: for each class those whose names the text tower takes for most like it; what `contrast` asks about.

From names alone: no image and no label has a part in it. A table is made only where some descriptor set's prompt asks
for it, and as a whole: another class may be nearer to any of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pyarrow as pa

from prompts.phrasing import clean_class_name, phrase
from stages.encode_images import describe_table, told_of_model
from stages.settings import ModelSettings
from stages.stage import Ingredients, Inputs, Run, Stage, Table
from stages.weights import model_weights_id
from storage.fingerprint import digest

SIMILAR = 5
"""Similar classes that are kept of each."""
TEMPLATE = "a photo of a {class}."


class SimilarClasses(Stage):
    """Keeps one table, where it is asked for: key and class (a name), similar (list of names, the nearest first)."""

    name: ClassVar[str] = "similar_classes"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: ModelSettings, wanted: bool):
        self.model = model
        self.wanted = wanted

    def tables(self, inputs: Inputs) -> list[Table]:
        """One row a distinct name, in order; no table where nobody asks."""
        if not self.wanted:
            return []
        names = list(dict.fromkeys(inputs.names.values()))
        ingredients = Ingredients(
            settings={"template": TEMPLATE, "similar": SIMILAR},
            version=self.version,
            weights=model_weights_id(self.model, inputs.weights_cache()),
            whole={"classes": digest(sorted(names))},
        )
        keeper = inputs.shard_table(self.name, ingredients)
        return [
            Table(self.name, "classes", ingredients, names, keeper, plan=names, told=told_of_model(self.model)),
        ]

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Encode the names and compare them, in one Ray task: seconds of work for thousands of classes."""
        ray = run.cluster()
        for table in tables:
            table.keeper.create(describe_table(table))
            weights = inputs.weights_cache(), table.ingredients.weights
            task = ray.remote(num_cpus=1, max_retries=3)(_compare_and_append)
            ray.get(task.remote(self.model, table.plan, table.keeper.folder, run.id, *weights))
            run.advance(len(table.plan), 0)


def read_similar(table: Table) -> dict[str, list[str]]:
    """Class name -> names of the classes most like it, from a complete table."""
    rows = table.keeper.read(keys=table.wanted, columns=["class", "similar"])
    return dict(zip(rows["class"].to_pylist(), rows["similar"].to_pylist(), strict=True))


def nearest(names: Sequence[str], vectors: object, count: int) -> Mapping[str, list[str]]:
    """For each name the `count` others of the greatest cosine, ties in the order of names; `vectors` [C, d] unit rows.

    Names that are spoken alike are no others.
    """
    import numpy as np

    spoken = [clean_class_name(name) for name in names]
    found = {}
    for place, row in enumerate(vectors):
        order = np.argsort(-(vectors @ row), kind="stable")
        found[names[place]] = [names[other] for other in order if spoken[other] != spoken[place]][:count]
    return found


def _compare_and_append(
    model: ModelSettings, names: list[str], folder: str, run: str, weights_cache: str, planned: str
) -> None:
    import numpy as np

    from stages.weights import load_model
    from storage.shards import ShardTable

    tower = load_model(model, weights_cache, planned)
    vectors = tower.encode_texts([phrase(TEMPLATE, name) for name in names]).numpy().astype(np.float32)
    found = nearest(names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), SIMILAR)
    rows = {"key": names, "class": names, "similar": [found[name] for name in names]}
    ShardTable(folder).append(pa.table(rows), run)
