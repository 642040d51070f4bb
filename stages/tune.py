"""tune: support and validation features -> alpha, beta and learned keys of every few-shot variant.

Nothing of the query split is read. A variant is one row: made once, read by `score` for as many images as there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from stages.actor_pool import seen_first
from stages.encode_images import describe_table
from stages.methods.few_shot import FewShotMethod
from stages.methods.method import Method
from stages.readings import Reading, Sources, SourcesOfMethods
from stages.shots import tell_of_scarce
from stages.stage import Ingredients, Inputs, Run, Stage, Table
from stages.support_sets import SupportSets
from storage.column_digest import digest_columns

_FITTED = (
    ("key", pa.string()),
    ("alpha", pa.float64()),
    ("beta", pa.float64()),
    ("accuracy", pa.float64()),
    ("hits", pa.list_(pa.int32())),
    ("images", pa.int64()),
    ("shots", pa.int64()),
    ("epochs", pa.list_(pa.float64())),
)


OF_THE_SEARCH = ("methods.search", "methods.max_alpha", "methods.max_beta")
"""Settings that decide what is tuned, and nothing besides."""


def tuned_title(sources: Sources) -> str:
    """The name of what is tuned for a variant: that of its predictions is `methods.NAME...`."""
    return f"tuned.{sources.title.removeprefix('methods.')}"


class Fit(NamedTuple):
    """What a task needs to fit a variant."""

    reading: Reading
    validation: pa.Table | None
    """key and class of the images on which alpha, beta and the best epoch are chosen"""


class Tune(Stage):
    """Keeps one table of one row a few-shot variant: alpha, beta, accuracy on validation, learned keys."""

    name: ClassVar[str] = "tune"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("encode_images", "encode_text", "build_caches")

    def __init__(self, methods: Sequence[Method], seeds: Sequence[int]):
        self.methods = methods
        self.seeds = seeds

    def tables(self, inputs: Inputs) -> list[Table]:
        """`tuned.NAME...`, which `methods.NAME...` of score reads. ValueError where a split that is needed has no
        labelled image."""
        if not any(isinstance(method, FewShotMethod) for method in self.methods):
            return []
        of = SourcesOfMethods(inputs, self.seeds)
        sets = SupportSets(of, inputs)
        return [self._table(one, of, sets, inputs) for one in of.all() if isinstance(one.method, FewShotMethod)]

    def _table(self, sources: Sources, of: SourcesOfMethods, sets: SupportSets, inputs: Inputs) -> Table:
        reading, wholes = sets.reading(sources)
        validation = sets.validation(sources)
        if validation is not None:
            wholes["validation"] = digest_columns([validation["key"], validation["class"]])
        settings = sources.settings()
        del settings["methods.search"]  # the validation images say it
        if validation is None:
            settings = {key: value for key, value in settings.items() if key not in OF_THE_SEARCH}
        ingredients = Ingredients(
            settings=settings,
            version=100 * self.version + sources.method.version,
            whole=sources.rows | of.wholes(sources) | wholes,
        )
        keeper = inputs.shard_table(self.name, ingredients)
        reading = replace(reading, support=replace(reading.support, fitted=keeper.folder))
        fit = Fit(reading, validation)
        return Table(self.name, tuned_title(sources), ingredients, ["all"], keeper, plan=fit, told=sources.told())

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Fit each variant in a Ray task of its own, as many at once as there is room for.

        Raises ValueError where no image of a support set could be read.
        """
        for table in tables:
            _check_shots(table)
        ray = run.cluster()
        most = max(max(method.shots) for method in self.methods if isinstance(method, FewShotMethod))
        if scarce := tell_of_scarce(inputs.manifest, inputs.classes, most):
            run.tell(scarce)
        task = ray.remote(num_cpus=cpus_each(ray, len(tables)), max_retries=3)(seen_first)
        for table in tables:
            table.keeper.create(describe_table(table))
        seen = {table.name: os.path.join(table.keeper.folder, "table.json") for table in tables}
        waiting = [task.remote(seen[table.name], _fit_and_append, table.plan, run.id) for table in tables]
        while waiting:
            done, waiting = ray.wait(waiting)
            ray.get(done)
            run.advance(len(done), 0)

    def units(self, tables: Sequence[Table]) -> int | None:
        """Variants: each is one row of a table of its own."""
        return len(tables)


def cpus_each(ray: Any, tasks: int) -> int:
    """CPUs for each of so many tasks: where they are fewer than the cluster's, each computes with several threads."""
    most = max((node["Resources"].get("CPU", 1.0) for node in ray.nodes() if node["Alive"]), default=1.0)
    return max(1, int(min(most, ray.cluster_resources().get("CPU", 1.0) // max(1, tasks))))


def _check_shots(table: Table) -> None:
    if not len(table.plan.reading.support.shots):
        raise ValueError(
            f"{table.name}: none of the labelled images of the support split could be read; status names them with "
            "the reasons, and --retry-rejects tries them again"
        )


def _fit_and_append(fit: Fit, run: str) -> None:
    from storage.shards import ShardTable

    ShardTable(fit.reading.support.fitted).append(fit_variant(fit), run)


def fit_variant(fit: Fit) -> pa.Table:
    """One row: key, alpha, beta, accuracy and images of validation, epochs, learned keys.

    `accuracy` is a fraction, null without validation images, as `hits` [200 x 20] are, the right answers of each beta
    and alpha. `epochs` has the accuracy of every epoch of training, `keys` the learned vectors.
    """
    from stages.caches import load_keys
    from stages.fitting import learn_keys, search_settings
    from stages.predictions import load_texts

    reading, method = fit.reading, fit.reading.method
    texts = load_texts(reading.prompts, reading.texts)
    prepared, keys, epochs = method.prepare(texts), load_keys(reading), []
    if method.trained:
        keys, epochs = learn_keys(fit, prepared, keys)
    found: dict[str, Any] = {"alpha": method.alpha, "beta": method.beta, "accuracy": None, "hits": None}
    if fit.validation is not None:
        found = search_settings(fit, prepared, keys)
    dimension = keys.vectors.shape[1]
    schema = pa.schema([*_FITTED, ("keys", pa.list_(pa.list_(pa.float32(), dimension)))])
    images = 0 if fit.validation is None else len(fit.validation)
    row = {"key": "all", **found, "images": images, "shots": len(reading.support.shots), "epochs": epochs}
    columns = {name: pa.array([value], schema.field(name).type) for name, value in row.items()}
    flat = pa.array(keys.vectors.flatten().numpy() if method.trained else [], pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(flat, dimension)
    columns["keys"] = pa.ListArray.from_arrays(pa.array([0, len(vectors)], pa.int32()), vectors)
    return pa.table(columns, schema=schema)
