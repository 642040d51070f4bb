"""project: shards -> LanceDB tables `images`, `crops`, `descriptors`, for people and programs that query.

A projection can be made again at any time. It is kept by upserts of rows that differ and deletes of those no longer
wanted; markers beside the database say what it holds, so a plan can tell without lancedb. Only the driver commits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from stages.describe import read_descriptors
from stages.encode_text import text_key
from stages.methods.bases import DescriptorMethod
from stages.methods.method import Method
from stages.settings import DescriptorSettings
from stages.stage import Ingredients, Inputs, Run, Stage, Table, without
from storage.column_digest import digest_columns
from storage.files import folder_bytes, remove_folder
from storage.fingerprint import digest, digest_pairs
from storage.markers import marker, write_marker
from storage.shards import REJECTS_SCHEMA

IMAGES_AT_ONCE = 500

_DESCRIPTORS = pa.schema([(name, pa.string()) for name in ("id", "class", "set", "text")] + [("number", pa.int32())])


@dataclass(frozen=True)
class Markers:
    """Which LanceDB tables are complete, told from their markers: keys are `table@digest`."""

    uri: str
    names: tuple[str, ...]

    def missing(self, wanted: pa.ChunkedArray) -> pa.ChunkedArray:
        kept = [f"{name}@{found}" for name in self.names if (found := marker(self.uri, name))]
        return without(wanted, kept)

    def rejects(self) -> pa.Table:
        return REJECTS_SCHEMA.empty_table()

    def forget_rejects(self) -> None: ...

    def bytes(self) -> int:
        return folder_bytes(self.uri)

    def clear(self) -> None:
        remove_folder(self.uri, run="tables")


@dataclass(frozen=True)
class Sources:
    """The complete tables that a projection shows, and the manifest rows that it shows of them."""

    whole: Table
    views: Mapping[str, Table]
    texts: Table
    descriptors: list[dict[str, Any]]
    images: pa.Table


class Project(Stage):
    """Keeps one LanceDB database a set of feature tables."""

    name: ClassVar[str] = "project"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("encode_images", "encode_text")

    def __init__(self, methods: Sequence[Method], sets: Mapping[str, DescriptorSettings]):
        self.methods = methods
        self.sets = sets

    def tables(self, inputs: Inputs) -> list[Table]:
        """One table whose three keys are the LanceDB tables with digests of the rows that they should hold."""
        encoded = inputs.complete("encode_images")
        (texts,) = inputs.complete("encode_text")
        whole, views = encoded[0], {table.name.removeprefix("views."): table for table in encoded[1:]}
        fingerprints = {name: table.fingerprint for name, table in views.items()}
        ingredients = Ingredients(
            settings={},
            version=self.version,
            rows={"whole": whole.fingerprint, "texts": texts.fingerprint, **fingerprints},
        )
        images = _shown(inputs.manifest, encoded)
        descriptors = self._descriptors(inputs)
        wanted = {
            "images": digest_columns([images[name] for name in ("key", "split", "class", "uri")]),
            "crops": digest_columns([images[name] for name in ("key", "split", "class")]),
            "descriptors": digest_pairs((row["id"], row["text"]) for row in descriptors),
        }
        uri = os.path.join(inputs.store, "lance", digest({"stage": self.name, **ingredients.as_dict()}))
        return [
            Table(
                stage=self.name,
                name="lancedb",
                ingredients=ingredients,
                wanted=[f"{name}@{value}" for name, value in wanted.items()],
                keeper=Markers(uri, tuple(wanted)),
                plan=Sources(whole, views, texts, descriptors, images),
            )
        ]

    def _descriptors(self, inputs: Inputs) -> list[dict[str, Any]]:
        """A row a class, descriptor set and text, as the first method that reads the set phrases it."""
        rows: dict[str, dict[str, Any]] = {}
        described = {table.name.removeprefix("descriptors."): table for table in inputs.complete("describe")}
        shown: set[str] = set()
        for method in self.methods:
            if not isinstance(method, DescriptorMethod) or method.descriptors in shown:
                continue
            name = method.descriptors
            shown.add(name)
            texts_of = read_descriptors(described[name])
            form, names = self.sets[name].form, list(inputs.names.values())
            read = method.variants()[0].class_prompts(names, [texts_of[spoken] for spoken in names], form)
            for (class_id, spoken), said in zip(inputs.names.items(), read, strict=True):
                # Of what the method reads that which says the descriptors, without the label's own prompt before them.
                described_so = DescriptorMethod.prompts(method, spoken, texts_of[spoken], form)
                for number, text in enumerate(text for text in described_so if text in said):
                    identity = f"{name}#{class_id}#{number}"
                    rows[identity] = {"id": identity, "class": class_id, "set": name, "number": number, "text": text}
        return list(rows.values())

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Bring the database up to date, table by table."""
        from storage.lance import Projection

        for table in tables:
            database = Projection(table.keeper.uri)
            for key in table.missing.to_pylist():
                name, value = key.rsplit("@", 1)
                _bring_up_to_date(database, name, table.plan, run)
                write_marker(table.keeper.uri, name, value)

    def units(self, tables: Sequence[Table]) -> int | None:
        """Not known before lancedb is asked what it holds."""
        return None


def _shown(manifest: pa.Table, encoded: Sequence[Table]) -> pa.Table:
    """The images that every table has a row of."""
    refused = frozenset().union(*(table.rejected for table in encoded))
    wanted = without(encoded[0].wanted, refused)
    return manifest if manifest["key"].equals(wanted) else manifest.filter(pc.is_in(manifest["key"], value_set=wanted))


def _bring_up_to_date(database: Any, name: str, sources: Sources, run: Run) -> None:
    """Make a LanceDB table hold what it should; the run is asked before each commit whether it still may."""
    from storage import schemas

    # Of the texts, which are never none: every image may have been rejected.
    text = sources.texts.keeper.read(sources.texts.wanted.slice(0, 1), ["vector"])
    dimension = text["vector"].type.list_size
    metadata = {"weights": sources.whole.ingredients.weights or "", "fingerprint": sources.whole.fingerprint}
    schema = getattr(schemas, f"{name}_schema")(dimension, metadata)
    projected = _PROJECTED[name](sources, database.described(name))
    run.still_ours()
    database.upsert(name, schema, schema.empty_table())
    for rows in projected.stale(schema):
        run.still_ours()
        database.upsert(name, schema, rows)
        run.advance(rows.num_rows, 0)
    run.still_ours()
    run.advance(database.delete_unwanted(name, projected.wanted_ids()), 0)
    run.still_ours()


class _Projected(Protocol):
    """A LanceDB table as it should be, beside what it holds."""

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Rows, with vectors, that the table lacks or holds otherwise; some thousands at a time."""

    def wanted_ids(self) -> pa.ChunkedArray:
        """The ids of all rows that it should hold."""


def _stale(rows: pa.Table, present: pa.Table, on: str, compared: Sequence[str]) -> pa.Table:
    """The rows that `present` has not under their `on`, or has otherwise in one of the compared columns."""
    if not len(present):
        return rows
    places = pc.index_in(rows[on], value_set=present[on])
    differs = pc.is_null(places)
    for name in compared:
        held = present[name].take(places)
        one_is_null = pc.xor(pc.is_valid(rows[name]), pc.is_valid(held))
        differs = pc.or_(differs, pc.fill_null(pc.or_kleene(pc.not_equal(rows[name], held), one_is_null), False))
    return rows.filter(differs)


class _Images:
    def __init__(self, sources: Sources, present: pa.Table):
        self.sources = sources
        self.lacking = _stale(sources.images, present, "id", ("version", "uri", "class", "split"))

    def wanted_ids(self) -> pa.ChunkedArray:
        return self.sources.images["id"]

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        from storage.schemas import fixed_list, to_numpy

        for start in range(0, len(self.lacking), IMAGES_AT_ONCE * 10):
            part = self.lacking.slice(start, IMAGES_AT_ONCE * 10)
            stored = self.sources.whole.keeper.read(part["key"], ["width", "height", "vectors"])
            columns = {name: part[name] for name in ("id", "version", "uri", "split", "class")}
            columns |= {name: stored[name] for name in ("width", "height")}
            columns["vector"] = fixed_list(to_numpy(stored["vectors"], (-1,)))
            yield pa.table(columns).select(schema.names)


class _Crops:
    """Crops are many, so they are decided on by image: the crops of an image and view set are written together."""

    def __init__(self, sources: Sources, present: pa.Table):
        self.sources = sources
        self.present = _crops_by_image(present)

    def wanted_ids(self) -> pa.ChunkedArray:
        keys = self.sources.images["key"]
        parts = [
            _crop_ids(keys.slice(start, IMAGES_AT_ONCE), view, _crops_an_image(table))
            for view, table in self.sources.views.items()
            for start in range(0, len(keys), IMAGES_AT_ONCE)
        ]
        return pa.chunked_array(parts, pa.string())  # in parts, since one array of texts ends at two gigabytes

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        images = self.sources.images
        for view, table in self.sources.views.items():
            of = pc.binary_join_element_wise(images["key"], view, "#")
            count = pa.repeat(pa.scalar(_crops_an_image(table), pa.int64()), len(images))
            lacking = _stale(
                images.append_column("of", of).append_column("count", count),
                self.present,
                "of",
                ("class", "split", "count"),
            )
            for start in range(0, len(lacking), IMAGES_AT_ONCE):
                yield self._rows(lacking.slice(start, IMAGES_AT_ONCE), view, table).select(schema.names)

    def _rows(self, images: pa.Table, view: str, table: Table) -> pa.Table:
        import numpy as np

        from storage.schemas import fixed_list, to_numpy

        count = _crops_an_image(table)
        stored = table.keeper.read(images["key"], ["boxes", "vectors"])
        boxes, vectors = to_numpy(stored["boxes"], (count, 4)), to_numpy(stored["vectors"], (count, -1))
        each, rows = _each(len(images), count), len(images) * count
        return pa.table(
            {name: images[of].take(each) for name, of in (("image", "id"), ("class", "class"), ("split", "split"))}
            | {
                "id": _crop_ids(images["key"], view, count),
                "view": pa.repeat(view, rows),
                "kind": pa.repeat("raw", rows),
                "number": pa.array(np.tile(np.arange(count, dtype=np.int32), len(images))),
                "box": fixed_list(boxes.reshape(rows, 4)),
                "vector": fixed_list(vectors.reshape(rows, -1)),
            }
        )


def _crop_ids(keys: pa.ChunkedArray, view: str, count: int) -> pa.Array:
    """`key#view#number` for every crop of these images."""
    import numpy as np

    numbers = pa.array(np.tile(np.arange(count), len(keys))).cast(pa.string())
    images = keys.take(_each(len(keys), count)).combine_chunks()
    return pc.binary_join_element_wise(images, view, numbers, "#")


def _each(images: int, count: int) -> pa.Array:
    """Places 0, 0, ..., 1, 1, ...: that of every image, `count` times."""
    import numpy as np

    return pa.array(np.repeat(np.arange(images), count))


def _crops_by_image(present: pa.Table) -> pa.Table:
    """`of` (`key#view`), class, split and count of the crops that a database holds; without images of two kinds."""
    if not len(present):
        return present
    of_image = pc.replace_substring_regex(present["id"], r"#[0-9]+$", "")
    crops = pa.table({"of": of_image, "class": present["class"], "split": present["split"]})
    found = crops.group_by(["of", "class", "split"]).aggregate([([], "count_all")])
    kinds = found.group_by("of").aggregate([([], "count_all")])
    alike = kinds["of"].filter(pc.equal(kinds["count_all"], 1))
    found = found.rename_columns({"count_all": "count"})
    return found.filter(pc.is_in(found["of"], value_set=alike))


def _crops_an_image(table: Table) -> int:
    return table.plan[0].crops


class _Descriptors:
    def __init__(self, sources: Sources, present: pa.Table):
        self.sources = sources
        self.rows = pa.Table.from_pylist(sources.descriptors, _DESCRIPTORS)
        self.lacking = _stale(self.rows, present, "id", ("class", "text"))

    def wanted_ids(self) -> pa.ChunkedArray:
        return self.rows["id"]

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        import numpy as np

        from storage.schemas import fixed_list, to_numpy

        if not len(self.lacking):
            return
        keys = [text_key(text) for text in self.lacking["text"].to_pylist()]
        stored = self.sources.texts.keeper.read(keys, ["vector"])
        vectors = fixed_list(to_numpy(stored["vector"], (-1,)).astype(np.float16))
        yield self.lacking.append_column("vector", vectors).select(schema.names)


_PROJECTED: dict[str, Callable[[Sources, pa.Table], _Projected]] = {
    "images": _Images,
    "crops": _Crops,
    "descriptors": _Descriptors,
}
