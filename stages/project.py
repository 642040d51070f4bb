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
from stages.stage import Ingredients, Inputs, Run, Stage, Table
from storage.files import folder_bytes, remove_folder
from storage.fingerprint import digest, digest_pairs
from storage.markers import marker, write_marker
from storage.shards import REJECTS_SCHEMA

IMAGES_AT_ONCE = 500


@dataclass(frozen=True)
class Markers:
    """Which LanceDB tables are complete, told from their markers: keys are `table@digest`."""

    uri: str
    names: tuple[str, ...]

    def keys(self) -> set[str]:
        return {f"{name}@{found}" for name in self.names if (found := marker(self.uri, name))}

    def rejects(self) -> pa.Table:
        return REJECTS_SCHEMA.empty_table()

    def forget_rejects(self) -> None: ...

    def bytes(self) -> int:
        return folder_bytes(self.uri)

    def clear(self) -> None:
        remove_folder(self.uri, run="tables")


@dataclass(frozen=True)
class Sources:
    """The complete tables that a projection shows, and the manifest rows (by key) that it shows of them."""

    whole: Table
    views: Mapping[str, Table]
    texts: Table
    descriptors: list[dict[str, Any]]
    images: dict[str, dict[str, Any]]


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
        shown = set.intersection(*(set(table.usable()) for table in encoded))
        images = {row["key"]: row for row in inputs.manifest.to_pylist() if row["key"] in shown}
        descriptors = self._descriptors(inputs)
        wanted = {
            "images": digest_pairs(
                (key, digest([row["split"], row["class"], row["uri"]])) for key, row in images.items()
            ),
            "crops": digest_pairs((key, digest([row["split"], row["class"]])) for key, row in images.items()),
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
            os.makedirs(table.keeper.uri, exist_ok=True)
            database = Projection(table.keeper.uri)
            for key in table.missing:
                name, value = key.rsplit("@", 1)
                changed = _bring_up_to_date(database, name, table.plan, inputs)
                write_marker(table.keeper.uri, name, value)
                run.advance(changed, 0)

    def units(self, tables: Sequence[Table]) -> int | None:
        """Not known before lancedb is asked what it holds."""
        return None


def _bring_up_to_date(database: Any, name: str, sources: Sources, inputs: Inputs) -> int:
    from storage import schemas

    # Of the texts, which are never none: every image may have been rejected.
    dimension = sources.texts.keeper.read(columns=["vector"]).schema.field("vector").type.list_size
    metadata = {"weights": sources.whole.ingredients.weights or "", "fingerprint": sources.whole.fingerprint}
    schema = getattr(schemas, f"{name}_schema")(dimension, metadata)
    projected = _PROJECTED[name](sources, database.described(name))
    database.upsert(name, schema, schema.empty_table())
    written = 0
    for rows in projected.stale(schema):
        database.upsert(name, schema, rows)
        written += rows.num_rows
    return written + database.delete_unwanted(name, projected.wanted_ids())


class _Projected(Protocol):
    """A LanceDB table as it should be, beside what it holds."""

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Rows, with vectors, that the table lacks or holds otherwise; some thousands at a time."""

    def wanted_ids(self) -> pa.ChunkedArray:
        """The ids of all rows that it should hold."""


class _Listed:
    """A projection of few enough rows to be listed: one an image, or one a text."""

    def __init__(self, rows: list[dict[str, Any]], present: pa.Table):
        self.rows = rows
        known = {_comparable(row) for row in present.to_pylist()}
        self.lacking = [row for row in rows if _comparable(row) not in known]

    def wanted_ids(self) -> pa.ChunkedArray:
        return pa.chunked_array([[row["id"] for row in self.rows]], pa.string())


def _comparable(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides whether a row must be written again: the id (which holds the version) and the manifest's columns."""
    return tuple(row.get(name) for name in ("id", "version", "uri", "class", "split", "text"))


class _Images(_Listed):
    def __init__(self, sources: Sources, present: pa.Table):
        named = ("id", "version", "uri", "class", "split")
        rows = [{name: row[name] for name in named} | {"key": key} for key, row in sources.images.items()]
        super().__init__(rows, present)
        self.sources = sources

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        from storage.schemas import fixed_list, to_numpy

        for start in range(0, len(self.lacking), IMAGES_AT_ONCE * 10):
            part = self.lacking[start : start + IMAGES_AT_ONCE * 10]
            stored = self.sources.whole.keeper.read([row["key"] for row in part], ["width", "height", "vectors"])
            columns = {name: pa.array([row[name] for row in part]) for name in ("id", "version", "uri", "split")}
            columns["class"] = pa.array([row["class"] for row in part], pa.string())
            columns |= {name: stored[name] for name in ("width", "height")}
            columns["vector"] = fixed_list(to_numpy(stored["vectors"], (-1,)))
            yield pa.table(columns).select(schema.names)


class _Crops:
    """Crops are many, so they are decided on by image: the crops of an image and view set are written together."""

    def __init__(self, sources: Sources, present: pa.Table):
        self.sources = sources
        self.present = _crops_by_image(present)

    def wanted_ids(self) -> pa.ChunkedArray:
        keys = list(self.sources.images)
        parts = [
            _crop_ids(keys[start : start + IMAGES_AT_ONCE], view, _crops_an_image(table))
            for view, table in self.sources.views.items()
            for start in range(0, len(keys), IMAGES_AT_ONCE)
        ]
        return pa.chunked_array(parts, pa.string())  # in parts, since one array of texts ends at two gigabytes

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        for view, table in self.sources.views.items():
            count = _crops_an_image(table)
            keys = [
                key
                for key, row in self.sources.images.items()
                if self.present.get(f"{key}#{view}") != (row["class"], row["split"], count)
            ]
            for start in range(0, len(keys), IMAGES_AT_ONCE):
                yield self._rows(keys[start : start + IMAGES_AT_ONCE], view, table).select(schema.names)

    def _rows(self, keys: list[str], view: str, table: Table) -> pa.Table:
        import numpy as np

        from storage.schemas import fixed_list, to_numpy

        count = _crops_an_image(table)
        stored = table.keeper.read(keys, ["boxes", "vectors"])
        boxes, vectors = to_numpy(stored["boxes"], (count, 4)), to_numpy(stored["vectors"], (count, -1))
        images = [self.sources.images[key] for key in keys]
        columns = {
            name: pa.array(np.repeat(np.array([image[of] for image in images], object), count), pa.string())
            for name, of in (("image", "id"), ("class", "class"), ("split", "split"))
        }
        rows = len(keys) * count
        return pa.table(
            columns
            | {
                "id": _crop_ids(keys, view, count),
                "view": pa.repeat(view, rows),
                "kind": pa.repeat("raw", rows),
                "number": pa.array(np.tile(np.arange(count, dtype=np.int32), len(keys))),
                "box": fixed_list(boxes.reshape(rows, 4)),
                "vector": fixed_list(vectors.reshape(rows, -1)),
            }
        )


def _crop_ids(keys: Sequence[str], view: str, count: int) -> pa.Array:
    """`key#view#number` for every crop of these images."""
    import numpy as np

    names = pa.array(np.repeat(np.array([f"{key}#{view}#" for key in keys], object), count), pa.string())
    numbers = pa.array(np.tile(np.arange(count).astype(str), len(keys)), pa.string())
    return pc.binary_join_element_wise(names, numbers, "")


def _crops_by_image(present: pa.Table) -> dict[str, tuple[str | None, str, int]]:
    """`key#view` -> class, split and number of crops, of what a database holds; none where these are of two kinds."""
    if not present.num_rows:
        return {}
    of_image = pc.replace_substring_regex(present["id"], r"#[0-9]+$", "")
    grouped = pa.table({"of": of_image, "class": present["class"], "split": present["split"]})
    found: dict[str, tuple[str | None, str, int]] = {}
    mixed = set()
    for row in grouped.group_by(["of", "class", "split"]).aggregate([([], "count_all")]).to_pylist():
        if row["of"] in found:
            mixed.add(row["of"])
        found[row["of"]] = (row["class"], row["split"], row["count_all"])
    return {name: value for name, value in found.items() if name not in mixed}


def _crops_an_image(table: Table) -> int:
    return table.plan[0].crops


class _Descriptors(_Listed):
    def __init__(self, sources: Sources, present: pa.Table):
        super().__init__(sources.descriptors, present)
        self.sources = sources

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        import numpy as np

        from storage.schemas import fixed_list, to_numpy

        if not self.lacking:
            return
        stored = self.sources.texts.keeper.read([text_key(row["text"]) for row in self.lacking], ["vector"])
        columns = {name: pa.array([row[name] for row in self.lacking]) for name in ("id", "class", "set", "text")}
        columns["number"] = pa.array([row["number"] for row in self.lacking], pa.int32())
        columns["vector"] = fixed_list(to_numpy(stored["vector"], (-1,)).astype(np.float16))
        yield pa.table(columns).select(schema.names)


_PROJECTED: dict[str, Callable[[Sources, pa.Table], _Projected]] = {
    "images": _Images,
    "crops": _Crops,
    "descriptors": _Descriptors,
}
