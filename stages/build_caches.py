"""build_caches: crops of the support split x descriptions -> for each shot the crop that each description chooses.

A row is one image as a shot of its class, and says nothing of seeds or numbers of shots: another seed adds the images
that no other has drawn, fewer shots add nothing. The crops themselves are read from the shards of the view set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from stages.actor_pool import seen_first
from stages.encode_images import describe_table, view_title
from stages.methods.dnd_tip import DndTip
from stages.methods.method import Method
from stages.readings import Sources, SourcesOfMethods
from stages.shots import draw_shots
from stages.stage import Ingredients, Inputs, Run, Stage, Table, without
from storage.fingerprint import digest

ROWS_A_TASK = 2000
IMAGES_AT_ONCE = 200


@dataclass(frozen=True)
class CacheSource:
    """What a table of chosen crops is made of: its `Table.plan`.

    The table's rows: `key` (IMAGE KEY#CLASS), `crops` (list of int32: the crop of each description, in the order of
    `prompts`) and `similarities` (list of float32).
    """

    view: Table
    view_title: str
    set: str
    """name of the descriptor set"""
    prompts: Mapping[str, list[str]]
    """descriptions by class id"""
    shots: pa.Table
    """key, id, class, seed, and shot from 0: one row a seed and image drawn under it"""
    texts: str
    """folder of the encoded descriptions"""
    crops: int
    """crops that may be chosen, the view set's first ones"""


@dataclass
class _Asked:
    """The first of the variants that share a table, and the largest number of shots of each seed."""

    sources: Sources
    shots: dict[int, int] = field(default_factory=dict)


class BuildCaches(Stage):
    """Keeps one table a view set and descriptor set, where a method's cache is made of them."""

    name: ClassVar[str] = "build_caches"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("encode_images", "encode_text")

    def __init__(self, methods: Sequence[Method], seeds: Sequence[int]):
        self.methods = methods
        self.seeds = seeds

    def tables(self, inputs: Inputs) -> list[Table]:
        """`cache.METHOD`, named after the first method that reads it; with `.seed.S` where several draw the crops."""
        if not any(isinstance(method, DndTip) for method in self.methods):
            return []
        of = SourcesOfMethods(inputs, self.seeds)
        asked: dict[str, _Asked] = {}
        for sources in of.all():
            if isinstance(sources.method, DndTip):
                one = asked.setdefault(digest(cache_ingredients(sources, of).as_dict()), _Asked(sources))
                seed, shots = sources.method.only_seed(), sources.method.shot
                one.shots[seed] = max(shots, one.shots.get(seed, 0))
        return [self._table(one, of, inputs) for one in asked.values()]

    def _table(self, asked: _Asked, of: SourcesOfMethods, inputs: Inputs) -> Table:
        sources, ingredients = asked.sources, cache_ingredients(asked.sources, of)
        method, view = sources.method, sources.view
        shots = _shots_of_seeds(inputs.manifest, asked.shots)
        keys = pc.unique(shots["key"])
        usable = without(pa.chunked_array([keys]), sources.rejected)
        shots = shots.filter(pc.is_in(shots["key"], value_set=usable))
        several = f".seed.{sources.seed}" if len(self.seeds) > 1 else ""
        source = CacheSource(
            view=view,
            view_title=view_title(method.views, sources.seed, self.seeds),
            set=method.descriptors,
            prompts={name: method.descriptions(prompts) for name, prompts in sources.prompts.items()},
            shots=shots,
            texts=sources.texts.keeper.folder,
            crops=sources.crops,
        )
        return Table(
            stage=self.name,
            name=f"cache.{method.row_name}{several}",
            ingredients=ingredients,
            wanted=pc.unique(shot_keys(shots)),
            keeper=inputs.shard_table(self.name, ingredients),
            plan=source,
            told=sources.told(),
        )

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Choose in Ray tasks, some thousand shots in each."""
        ray = run.cluster()
        task = ray.remote(num_cpus=1, max_retries=3)(seen_first)
        for table in tables:
            table.keeper.create(describe_table(table))
            source = table.plan
            rows, prompts = _lacking(table), ray.put(source.prompts)
            folders = (source.texts, source.view.keeper.folder, table.keeper.folder)
            parts = [rows.slice(start, ROWS_A_TASK) for start in range(0, len(rows), ROWS_A_TASK)]
            seen = os.path.join(table.keeper.folder, "table.json")
            asked = [
                task.remote(seen, _choose_and_append, part, prompts, source.crops, *folders, run.id) for part in parts
            ]
            for part, answer in zip(parts, asked, strict=True):
                ray.get(answer)
                run.advance(len(part), 0)

    def units(self, tables: Sequence[Table]) -> int | None:
        """Rows of all tables, which are computed one after another."""
        return sum(len(table.missing) for table in tables)


def cache_ingredients(sources: Sources, of: SourcesOfMethods) -> Ingredients:
    """What decides the rows of the table of chosen crops that a variant reads."""
    return Ingredients(
        settings={"methods.max_crops": sources.crops},
        version=BuildCaches.version,
        rows={"view": sources.view.fingerprint},
        whole={"texts": of.described(sources), "encode_text": sources.texts.fingerprint},
    )


def shot_keys(shots: pa.Table) -> pa.Array | pa.ChunkedArray:
    """`image key#class`, the key of a shot's row: another label is another row."""
    return pc.binary_join_element_wise(shots["key"], shots["class"], "#")


def _lacking(table: Table) -> pa.Table:
    """key, image and class of the rows that a table lacks."""
    shots = table.plan.shots
    rows = pa.table({"key": shot_keys(shots), "image": shots["key"], "class": shots["class"]})
    first = pc.index_in(table.missing, value_set=rows["key"])  # under several seeds it is the same row
    return rows.take(first)


def _shots_of_seeds(manifest: pa.Table, asked: Mapping[int, int]) -> pa.Table:
    parts = []
    for seed, shots in asked.items():
        drawn = draw_shots(manifest, shots, seed)
        parts.append(drawn.append_column("seed", pa.repeat(pa.scalar(seed, pa.int32()), len(drawn))))
    return pa.concat_tables(parts)


def _choose_and_append(
    rows: pa.Table, prompts: Mapping[str, list[str]], crops: int, texts: str, view: str, folder: str, run: str
) -> None:
    """Choose for these shots, reading the crops of some hundred images at a time."""
    from stages.matching.cache import choose_crops
    from stages.predictions import load_crops, load_texts
    from storage.shards import ShardTable

    said, place = load_texts(prompts, texts), {name: number for number, name in enumerate(prompts)}
    table, chosen, similar = ShardTable(view), [], []
    for start in range(0, len(rows), IMAGES_AT_ONCE):
        part = rows.slice(start, IMAGES_AT_ONCE)
        seen = load_crops(table, part["image"].to_pylist())
        for image, name in zip(seen, part["class"].to_pylist(), strict=True):
            own = said.vectors[place[name]][said.mask[place[name]]]
            numbers, cosines = choose_crops(image[:crops], own)
            chosen.append(numbers.tolist())
            similar.append(cosines.tolist())
    made = {
        "key": rows["key"],
        "crops": pa.array(chosen, pa.list_(pa.int32())),
        "similarities": pa.array(similar, pa.list_(pa.float32())),
    }
    ShardTable(folder).append(pa.table(made), run)
