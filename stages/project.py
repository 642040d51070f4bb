"""project: shards -> LanceDB tables `images`, `crops`, `descriptors`, for people and programs that query.

A projection can be made again at any time. It is kept by upserts of rows that differ and deletes of those no longer
wanted; markers beside the database say what it holds, so a plan can tell without lancedb. Only the driver commits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from stages.encode_text import prompts_by_method, text_key
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
        uri = str(inputs.store / "lance" / digest({"stage": self.name, **ingredients.as_dict()}))
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
        prompts = prompts_by_method(self.methods, self.sets, inputs)
        rows: dict[str, dict[str, Any]] = {}
        for method in self.methods:
            name = getattr(method, "descriptors", None)
            if name is None or any(row["set"] == name for row in rows.values()):
                continue
            for class_name, texts in prompts[method.row_name].items():
                for number, text in enumerate(texts):
                    identity = f"{name}#{class_name}#{number}"
                    rows[identity] = {
                        "id": identity,
                        "class": class_name,
                        "set": name,
                        "number": number,
                        "text": text,
                    }
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
    wanted = _WANTED[name](sources)
    present = {_comparable(row): row["id"] for row in database.described(name).to_pylist()}
    stale = [row for row in wanted if _comparable(row) not in present]
    database.upsert(name, schema, schema.empty_table())
    for rows in _WITH_VECTORS[name](sources, stale, schema):
        database.upsert(name, schema, rows)
    removed = database.delete_unwanted(name, {row["id"] for row in wanted})
    return len(stale) + removed


def _comparable(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides whether a row must be written again: the id (which holds the version) and the manifest's columns."""
    return tuple(row.get(name) for name in ("id", "version", "uri", "class", "split", "text"))


def _wanted_images(sources: Sources) -> list[dict[str, Any]]:
    return [
        {
            "id": row["id"],
            "version": row["version"],
            "uri": row["uri"],
            "class": row["class"],
            "split": row["split"],
        }
        | {"key": key}
        for key, row in sources.images.items()
    ]


def _wanted_crops(sources: Sources) -> list[dict[str, Any]]:
    counts = {name: _crops_an_image(table) for name, table in sources.views.items()}
    return [
        {
            "id": f"{key}#{view}#{number}",
            "class": row["class"],
            "split": row["split"],
            "key": key,
            "view": view,
        }
        | {"number": number, "image": row["id"]}
        for view, count in counts.items()
        for key, row in sources.images.items()
        for number in range(count)
    ]


def _crops_an_image(table: Table) -> int:
    return table.plan[0].crops


def _images_with_vectors(sources: Sources, stale: Sequence[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    from storage.schemas import fixed_list, to_numpy

    for start in range(0, len(stale), IMAGES_AT_ONCE * 10):
        part = stale[start : start + IMAGES_AT_ONCE * 10]
        stored = sources.whole.keeper.read([row["key"] for row in part], ["width", "height", "vectors"])
        columns = {name: pa.array([row[name] for row in part]) for name in ("id", "version", "uri", "split")}
        columns["class"] = pa.array([row["class"] for row in part], pa.string())
        columns |= {name: stored[name] for name in ("width", "height")}
        columns["vector"] = fixed_list(to_numpy(stored["vectors"], (-1,)))
        yield pa.table(columns).select(schema.names)


def _crops_with_vectors(sources: Sources, stale: Sequence[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Crops of some hundred images at a time; all crops of an image and view are stale together."""
    import numpy as np

    from storage.schemas import fixed_list, to_numpy

    for view, table in sources.views.items():
        count = _crops_an_image(table)
        rows = [row for row in stale if row["view"] == view]
        of_key: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            of_key.setdefault(row["key"], []).append(row)
        keys = list(of_key)
        for start in range(0, len(keys), IMAGES_AT_ONCE):
            chosen = keys[start : start + IMAGES_AT_ONCE]
            stored = table.keeper.read(chosen, ["boxes", "vectors"])
            boxes = to_numpy(stored["boxes"], (count, 4)).reshape(-1, 4)
            vectors = to_numpy(stored["vectors"], (count, -1))
            vectors = vectors.reshape(-1, vectors.shape[-1])
            pick = np.array([place * count + row["number"] for place, key in enumerate(chosen) for row in of_key[key]])
            part = [row for key in chosen for row in of_key[key]]
            columns = {name: pa.array([row[name] for row in part]) for name in ("id", "image", "view", "split")}
            columns["class"] = pa.array([row["class"] for row in part], pa.string())
            columns["kind"] = pa.array(["raw"] * len(part))
            columns["number"] = pa.array([row["number"] for row in part], pa.int32())
            columns |= {"box": fixed_list(boxes[pick]), "vector": fixed_list(vectors[pick])}
            yield pa.table(columns).select(schema.names)


def _descriptors_with_vectors(
    sources: Sources, stale: Sequence[dict[str, Any]], schema: pa.Schema
) -> Iterator[pa.Table]:
    import numpy as np

    from storage.schemas import fixed_list, to_numpy

    if not stale:
        return
    stored = sources.texts.keeper.read([text_key(row["text"]) for row in stale], ["vector"])
    columns = {name: pa.array([row[name] for row in stale]) for name in ("id", "class", "set", "text")}
    columns["number"] = pa.array([row["number"] for row in stale], pa.int32())
    columns["vector"] = fixed_list(to_numpy(stored["vector"], (-1,)).astype(np.float16))
    yield pa.table(columns).select(schema.names)


_WANTED = {
    "images": _wanted_images,
    "crops": _wanted_crops,
    "descriptors": lambda sources: sources.descriptors,
}
_WITH_VECTORS = {
    "images": _images_with_vectors,
    "crops": _crops_with_vectors,
    "descriptors": _descriptors_with_vectors,
}
