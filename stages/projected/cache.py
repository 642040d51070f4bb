"""Table `cache`: of every support image the crop that fits each description of its class best (algorithms.md 7.2).

`build_caches` has chosen; boxes and vectors are taken from the shards of the view set, some hundred images at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from stages.build_caches import CacheSource, shot_keys
from stages.projected.projected import Sources, gathered, in_parts, stale_rows
from stages.stage import Table
from storage.column_digest import digest_columns
from storage.fingerprint import digest

if TYPE_CHECKING:
    from storage.lance import Projection

IMAGES_AT_ONCE = 250

_COMPARED = ("class", "text", "shot", "number", "descriptor_similarity")


def digest_caches(tables: Sequence[Table]) -> str:
    """Stands for the rows of `cache` that these tables of `build_caches` make."""
    parts = []
    for table in tables:
        source: CacheSource = table.plan
        shots = [source.shots[name].cast(pa.string()) for name in ("key", "id", "class", "seed", "shot")]
        prompts = digest({name: list(texts) for name, texts in source.prompts.items()})
        parts.append([table.name, source.view_title, source.set, table.fingerprint, prompts, digest_columns(shots)])
    return digest({"caches": sorted(parts)})


class ProjectedCache:
    """A row a method, seed, shot image and description; its id is `METHOD#SEED#IMAGE KEY#CLASS#NUMBER`."""

    def __init__(self, sources: Sources, database: Projection):
        self.tables = sources.caches
        self.database = database

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        return gathered(rows.select(schema.names) for table in self.tables for rows in self._stale(table))

    def _stale(self, table: Table) -> Iterator[pa.Table]:
        from storage.lance_filter import where_in

        shots = table.plan.shots.sort_by("key")  # neighbours by key lie in the same shards
        empty = self.database.count("cache") == 0
        for start in range(0, len(shots), IMAGES_AT_ONCE):
            rows = _chosen(shots.slice(start, IMAGES_AT_ONCE), table)
            if not empty:
                present = self.database.described("cache", ["id", *_COMPARED], where_in("id", rows["id"].to_pylist()))
                rows = stale_rows(rows, present, "id", _COMPARED)
            if len(rows):
                yield _with_vectors(rows, table.plan.view)

    def unwanted(self) -> Iterator[pa.ChunkedArray]:
        """Ids of rows whose shot is none any more, or whose class has fewer descriptions now."""
        from storage.lance import DELETE_ROWS

        heads = pa.chunked_array([_heads(table, table.plan.shots) for table in self.tables], pa.string())
        counts = pa.chunked_array([_descriptions(table.plan, table.plan.shots) for table in self.tables], pa.int32())
        for batch in self.database.batches("cache", ["id", "descriptor"]):
            places = pc.index_in(pc.replace_substring_regex(batch["id"], r"#[0-9]+$", ""), value_set=heads)
            kept = pc.fill_null(pc.less(batch["descriptor"], counts.take(places)), False)
            yield from in_parts(batch["id"].filter(pc.invert(kept)), DELETE_ROWS)


def _method(table: Table) -> str:
    """The first method that reads a table of `build_caches`, with the seed of the crops where there are several."""
    return table.name.removeprefix("cache.")


def _heads(table: Table, shots: pa.Table) -> pa.Array:
    """What the ids of each shot's rows begin with."""
    seeds, keys, classes = (shots[name].combine_chunks() for name in ("seed", "key", "class"))
    return pc.binary_join_element_wise(_method(table), seeds.cast(pa.string()), keys, classes, "#")


def _descriptions(source: CacheSource, shots: pa.Table) -> pa.Array:
    """How many descriptions the class of each shot has."""
    counts = {name: len(texts) for name, texts in source.prompts.items()}
    return pa.array([counts[name] for name in shots["class"].to_pylist()], pa.int32())


def _chosen(shots: pa.Table, table: Table) -> pa.Table:
    """The rows of some shots, without boxes and vectors but with their images' `key`."""
    import numpy as np

    source: CacheSource = table.plan
    classes = shots["class"].to_pylist()
    keys = shot_keys(shots)
    distinct = pc.unique(keys)
    stored = table.keeper.read(distinct, ["crops", "similarities"]).take(pc.index_in(keys, value_set=distinct))
    counts = _descriptions(source, shots)
    if not pc.list_value_length(stored["crops"]).combine_chunks().equals(counts):
        raise ValueError(f"{table.keeper.folder} has another number of crops for a class than it has descriptions")
    each = pa.array(np.repeat(np.arange(len(shots)), counts))
    numbers = [np.arange(count, dtype=np.int32) for count in counts.to_pylist()]
    number = pa.array(np.concatenate(numbers) if numbers else np.zeros(0, np.int32))
    heads = _heads(table, shots).take(each)
    rows = len(each)
    return pa.table(
        {name: shots[name].take(each) for name in ("key", "class", "shot", "seed")}
        | {
            "id": pc.binary_join_element_wise(heads, number.cast(pa.string()), "#"),
            "image": shots["id"].take(each),
            "set": pa.repeat(source.set, rows),
            "descriptor": number,
            "text": pa.array([text for name in classes for text in source.prompts[name]], pa.string()),
            "view": pa.repeat(source.view_title.removeprefix("views."), rows),
            "method": pa.repeat(_method(table), rows),
            "number": pc.list_flatten(stored["crops"]),
            "descriptor_similarity": pc.list_flatten(stored["similarities"]),
        }
    )


def _with_vectors(rows: pa.Table, view: Table) -> pa.Table:
    """The rows with box and vector of their crops."""
    from storage.schemas import fixed_list, to_numpy

    crops = view.plan[0].crops
    keys = pc.unique(rows["key"])
    stored = view.keeper.read(keys, ["boxes", "vectors"])
    places = pc.index_in(rows["key"], value_set=keys).to_numpy(), rows["number"].to_numpy()
    for name, column, shape in (("box", "boxes", (crops, 4)), ("vector", "vectors", (crops, -1))):
        rows = rows.append_column(name, fixed_list(to_numpy(stored[column], shape)[places]))
    return rows
