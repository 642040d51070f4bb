"""project: shards -> LanceDB tables `images`, `crops`, `descriptors`, `cache`, for people and programs that query.

A projection can be made again at any time. It is kept by upserts of rows that differ and deletes of those no longer
wanted; markers beside the database say what it holds, so a plan can tell without lancedb. Only the driver commits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from stages.described import read_descriptors
from stages.descriptor_settings import DescriptorSettings
from stages.methods.bases import DescriptorMethod
from stages.methods.method import Method
from stages.projected.cache import ProjectedCache, digest_caches
from stages.projected.crops import ProjectedCrops
from stages.projected.descriptors import ProjectedDescriptors
from stages.projected.images import ProjectedImages
from stages.projected.projected import Projected, Sources
from stages.settings import ProjectSettings
from stages.stage import Ingredients, Inputs, Run, Stage, Table, without
from storage.column_digest import digest_columns
from storage.files import folder_bytes, remove_folder
from storage.fingerprint import digest, digest_pairs
from storage.markers import marker, write_marker
from storage.shards import REJECTS_SCHEMA

NOT_KEPT = "none"
"""In place of a digest: the database should not have that table."""


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


class Project(Stage):
    """Keeps one LanceDB database a job and set of feature tables: jobs of one store show other images."""

    name: ClassVar[str] = "project"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("encode_images", "encode_text", "build_caches")

    def __init__(
        self,
        methods: Sequence[Method],
        sets: Mapping[str, DescriptorSettings],
        settings: ProjectSettings,
        job: str,
    ):
        self.methods = methods
        self.sets = sets
        self.settings = settings
        self.job = job

    def tables(self, inputs: Inputs) -> list[Table]:
        """One table, whose keys are the LanceDB tables with digests of what they should hold, or `none`.

        Which of them are kept is no part of its fingerprint: they come and go in the same database.
        """
        encoded = inputs.complete("encode_images")
        (texts,) = inputs.complete("encode_text")
        caches = inputs.complete("build_caches") if self.settings.cache else ()
        whole, views = encoded[0], {table.name.removeprefix("views."): table for table in encoded[1:]}
        fingerprints = {name: table.fingerprint for name, table in views.items()}
        ingredients = Ingredients(
            settings={"name": self.job},
            version=self.version,
            rows={"whole": whole.fingerprint, "texts": texts.fingerprint, **fingerprints},
        )
        refused = frozenset().union(*(table.rejected for table in encoded))
        images = _shown(inputs.manifest, whole.wanted, refused)
        seen = {
            name: images if table.wanted.equals(whole.wanted) else _shown(inputs.manifest, table.wanted, refused)
            for name, table in views.items()
        }
        descriptors = self._descriptors(inputs)
        rows = {
            "images": digest_columns([images[name] for name in ("key", "split", "class", "uri")]),
            "descriptors": digest_pairs((row["id"], row["text"]) for row in descriptors),
        }
        if self.settings.crops:
            rows["crops"] = _digest_crops(seen)
        if caches:
            rows["cache"] = digest_caches(caches)
        uri = os.path.join(inputs.store, "lance", digest({"stage": self.name, **ingredients.as_dict()}))
        return [
            Table(
                stage=self.name,
                name="lancedb",
                ingredients=ingredients,
                wanted=[f"{name}@{self._state(rows.get(name))}" for name in _PROJECTED],
                keeper=Markers(uri, tuple(_PROJECTED)),
                plan=Sources(whole, views if self.settings.crops else {}, texts, caches, descriptors, images, seen),
            )
        ]

    def _state(self, rows: str | None) -> str:
        """What a marker says: the rows, and how they are indexed."""
        return NOT_KEPT if rows is None else digest({"rows": rows, "index": self.settings.index})

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
            lacking = [tuple(key.rsplit("@", 1)) for key in table.missing.to_pylist()]
            for name, value in lacking:
                if value == NOT_KEPT:
                    run.still_ours()
                    database.drop(name)
                else:
                    _bring_up_to_date(database, name, table.plan, run)
                    _index(database, name, self.settings.index, run)
            run.still_ours()
            database.tag_run(run.id)  # before the markers: what is complete can be read again
            for name, value in lacking:
                run.still_ours()
                write_marker(table.keeper.uri, name, value)

    def units(self, tables: Sequence[Table]) -> int | None:
        """Not known before lancedb is asked what it holds."""
        return None


def _shown(manifest: pa.Table, wanted: pa.ChunkedArray, refused: frozenset[str]) -> pa.Table:
    """The manifest's rows of the wanted images that no table refused."""
    wanted = without(wanted, refused)
    return manifest if manifest["key"].equals(wanted) else manifest.filter(pc.is_in(manifest["key"], value_set=wanted))


def _digest_crops(seen: Mapping[str, pa.Table]) -> str:
    """Of the images of each view set: mostly they are the same, and digested once."""
    known = {id(images): images for images in seen.values()}
    digests = {
        place: digest_columns([images[name] for name in ("key", "split", "class")]) for place, images in known.items()
    }
    return digest({view: digests[id(images)] for view, images in seen.items()})


def _bring_up_to_date(database: Any, name: str, sources: Sources, run: Run) -> None:
    """Make a LanceDB table hold what it should; the run is asked before each commit whether it still may."""
    schema = _schema(name, sources)
    projected = _PROJECTED[name](sources, database)
    run.still_ours()
    database.upsert(name, schema, schema.empty_table())
    write = database.upsert if database.count(name) else database.append  # ids are each written once
    for rows in projected.stale(schema):
        run.still_ours()
        write(name, schema, rows)
        run.advance(rows.num_rows, 0)
    for ids in projected.unwanted():
        run.still_ours()
        run.advance(database.delete(name, ids), 0)


def _schema(name: str, sources: Sources) -> pa.Schema:
    from storage import schemas

    # Of the texts, which are never none: every image may have been rejected.
    text = sources.texts.keeper.read(sources.texts.wanted.slice(0, 1), ["vector"])
    whole = sources.whole
    metadata = {"weights": whole.ingredients.weights or "", "fingerprint": whole.fingerprint}
    if "model.name" in whole.told:
        metadata["model"] = " ".join(filter(None, (whole.told["model.name"], whole.told["model.weights"])))
    return getattr(schemas, f"{name}_schema")(text["vector"].type.list_size, metadata)


def _index(database: Any, name: str, index: str, run: Run) -> None:
    """Merge the table's files, and see that its vectors are indexed as they should be."""
    from storage.lance_index import INDEX_ROWS

    run.still_ours()
    database.merge_files(name)
    run.still_ours()
    if index == "none" or database.count(name) < INDEX_ROWS:
        database.drop_index(name)
    elif uncovered := database.build_index(name):
        run.tell(f"{name}: {uncovered:,} rows are in no index, and are compared one by one by every search")


_PROJECTED: dict[str, Callable[[Sources, Any], Projected]] = {
    "images": ProjectedImages,
    "crops": ProjectedCrops,
    "descriptors": ProjectedDescriptors,
    "cache": ProjectedCache,
}
