"""encode_images: images -> features of the whole image and of the crops of each view set, in one pass over the images.

Decoding runs in Ray tasks, encoding in a pool of actors that hold the model; an actor appends its rows as whole shards,
so features never travel through the object store and a batch that is tried again writes the same shard.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from stages.batches import Batch, batches_of
from stages.images_to_encode import images_to_encode
from stages.lacking import LackingRows
from stages.methods.method import Method
from stages.phases import Phases
from stages.pool_size import DECODE_CPUS
from stages.settings import (
    DinoGuide,
    DrawnByGuide,
    EncodeResources,
    GuideSettings,
    ModelSettings,
    ViewSettings,
)
from stages.staff import find_room
from stages.stage import Ingredients, Inputs, Run, Stage, Table, check_rejects, lacking_keys
from stages.streaming import stream
from stages.vision.names import input_size
from stages.weights import PlannedWeights, guide_weights_id, model_weights_id
from storage.uris import RemoteFile, parse_uri, place_order

BATCH_WITH_GPUS, BATCH_WITHOUT = 64, 16
DECODE_TOGETHER = 8
"""Images a decoding task takes: a batch is decoded by several, so that many cores feed one GPU."""
BATCHES_AT_ONCE_ON_GPU = 2


class Encoded(NamedTuple):
    """An actor's answer for a batch."""

    images: int
    refused: list[str]
    """keys rejected"""
    seconds: dict[str, float]
    """by phase"""
    notes: list[str]
    """what a person should know of these view sets with this model"""


class EncodeImages(Stage):
    """Keeps the table `whole` (one vector an image) and one table a view set and seed."""

    name: ClassVar[str] = "encode_images"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: ModelSettings,
        precision: str,
        guides: Mapping[str, GuideSettings],
        views: Mapping[str, ViewSettings],
        seeds: Sequence[int],
        resources: EncodeResources,
        methods: Sequence[Method],
        decode: str = "reduced",
    ):
        self.model = model
        self.precision = precision
        self.guides = guides
        self.views = views
        self.seeds = seeds
        self.resources = resources
        self.methods = methods
        self.decode = decode

    def tables(self, inputs: Inputs) -> list[Table]:
        """`whole` first, then `views.NAME` for one seed or `views.NAME.seed.S` for each of several."""
        weights = model_weights_id(self.model, inputs.weights_cache())
        chosen = images_to_encode(inputs.manifest, self.methods, list(self.views))
        settings = {"model.precision": self.precision, "decode": self.decode}
        whole = Ingredients(settings=settings, version=self.version, weights=weights)
        told = told_of_model(self.model)
        tables = [
            Table(self.name, "whole", whole, chosen.whole, inputs.shard_table(self.name, whole), told=told),
        ]
        for name, view in self.views.items():
            for seed in self.seeds[:1] if name in chosen.augmentations else self.seeds:
                ingredients = self._view_ingredients(name, view, seed, weights, inputs)
                keeper = inputs.shard_table(self.name, ingredients)
                title = view_title(name, seed, self.seeds)
                named = told | ({"views.guide": view.guide} if isinstance(view, DrawnByGuide) else {})
                wanted = chosen.views[name]
                tables.append(Table(self.name, title, ingredients, wanted, keeper, plan=(view, seed), told=named))
        return tables

    def _view_ingredients(self, name: str, view: ViewSettings, seed: int, weights: str, inputs: Inputs) -> Ingredients:
        """A view set's own name is no part of what decides its rows, nor is its guide's."""
        settings: dict[str, Any] = {f"views.{key}": value for key, value in view.model_dump().items()}
        settings |= {"model.precision": self.precision, "decode": self.decode, "seed": seed}
        if isinstance(view, DrawnByGuide):
            guide = self.guides[view.guide]
            settings.pop("views.guide")
            settings |= {f"guides.{key}": value for key, value in guide.model_dump().items()}
            if isinstance(guide, DinoGuide):
                settings["guides.weights"] = guide_weights_id(guide, inputs.weights_cache())
        return Ingredients(settings=settings, version=self.version, weights=weights)

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Stream the images that any table lacks; raises TooManyRejects past the job's limit, keeping what it has."""
        ray = run.cluster()
        for table in tables:
            table.keeper.create(describe_table(table))
        rows = _rows_lacking(tables, inputs.manifest)
        gpus, actors = self.resources.gpus, self.resources.actors
        staff = find_room(ray, self.name, gpus=gpus, actors=actors, minutes=run.wait_minutes, tell=run.tell)
        pool = staff.size
        batch = self.resources.batch
        if batch == "auto":
            batch = BATCH_WITH_GPUS if pool.gpus else BATCH_WITHOUT
        decode = ray.remote(num_cpus=DECODE_CPUS, max_retries=0)(_decode)
        # On a GPU two batches are computed in an actor at a time: one is copied, cut and written beside the other.
        at_once = BATCHES_AT_ONCE_ON_GPU if pool.gpus else 1
        options = {"max_concurrency": at_once, "max_restarts": 0, "max_task_retries": 0}
        actor_class = ray.remote(**pool.resources, **options, scheduling_strategy="SPREAD")(_EncodeActor)
        views = {table.name: table.plan[0] for table in tables if table.plan is not None}
        size, images = input_size(self.model.name), _folder_of_images(rows.rows["uri"])

        def start_actor() -> Any:
            return actor_class.remote(
                self.model,
                guides_in_use([table.plan for table in tables if table.plan is not None], self.guides),
                self.precision,
                "cuda" if pool.gpus else "cpu",
                pool.threads,
                [(table.name, table.keeper.folder, table.plan) for table in tables],
                run.id,
                inputs.weights_cache(),
                planned_weights(tables),
            )

        def submit(actor: Any, batch: Batch) -> Any:
            parts = [
                batch.rows[start : start + DECODE_TOGETHER] for start in range(0, len(batch.rows), DECODE_TOGETHER)
            ]
            return actor.encode.remote(
                *[decode.remote(part, views, size, self.decode == "full", images) for part in parts]
            )

        rejected, told = set().union(*(table.rejected for table in tables)), set()
        staff.most = -(-len(rows) // batch)
        for _ in range(min(pool.actors, staff.most)):
            decode.remote(
                [], views, size, False, None
            )  # so that workers to decode start beside the actors, not after them
        seen = [os.path.join(table.keeper.folder, "table.json") for table in tables] + ([images] if images else [])
        batches = batches_of(rows, batch)
        in_hand = 1 if staff.most <= pool.actors else 2 * at_once  # the first that is ready must not take them all
        for done in stream(ray, batches, start_actor, submit, staff, in_flight=in_hand, seen=seen):
            if done.killer is not None:
                _reject(tables, [done.killer | {"reason": done.reason}], run.id)
                computed, refused = 0, [done.killer["key"]]
            else:
                computed, refused = done.answer.images, done.answer.refused
                run.timed(done.answer.seconds)
                for note in set(done.answer.notes) - told:
                    told.add(note)
                    run.tell(note)
            rejected.update(refused)
            run.advance(computed, len(refused))
            check_rejects(self.name, len(rejected), len(tables[0].wanted), run.max_rejects)


def guides_in_use(
    plans: Sequence[tuple[ViewSettings, int]], guides: Mapping[str, GuideSettings]
) -> dict[str, GuideSettings]:
    """The guides that these tables' view sets look through: no other needs loading."""
    used = {view.guide for view, _ in plans if isinstance(view, DrawnByGuide)}
    return {name: guide for name, guide in guides.items() if name in used}


def planned_weights(tables: Sequence[Table]) -> PlannedWeights:
    """The weights that these tables' fingerprints stand for."""
    guides = {
        table.plan[0].guide: table.ingredients.settings["guides.weights"]
        for table in tables
        if "guides.weights" in table.ingredients.settings
    }
    return PlannedWeights(tables[0].ingredients.weights, guides)


def view_title(name: str, seed: int, seeds: Sequence[int]) -> str:
    """The name of the table of a view set's draws under one of the job's seeds."""
    return f"views.{name}" if len(seeds) == 1 else f"views.{name}.seed.{seed}"


def told_of_model(model: ModelSettings) -> dict[str, Any]:
    """What a table tells of the model behind its weights' id."""
    return {"model.name": model.name, "model.weights": model.weights}


def describe_table(table: Table) -> dict[str, Any]:
    """What `table.json` says of a table: stage, name, everything its fingerprint was made of, and names for people."""
    return {"stage": table.stage, "name": table.name, **table.ingredients.as_dict(), "told": dict(table.told)}


def _rows_lacking(tables: Sequence[Table], manifest: pa.Table) -> LackingRows:
    """Manifest rows that some table lacks, each with the names of those tables.

    They are in manifest order, by id, but for members of tars and cells of Parquet files: these are in the order in
    which they lie, else a batch of images with ids of their own would read as many row groups as it has images.
    """
    chosen = manifest.select(["key", "id", "uri"])
    chosen = chosen.filter(pc.is_in(chosen["key"], value_set=lacking_keys(tables)))
    if pc.any(pc.match_substring_regex(chosen["uri"], "^(tar|parquet):")).as_py():
        places = [place_order(uri) for uri in chosen["uri"].to_pylist()]
        chosen = chosen.take(sorted(range(len(places)), key=places.__getitem__))
    return LackingRows(chosen, tables)


def _reject(tables: Sequence[Table], rows: Sequence[Mapping[str, Any]], run: str) -> None:
    for table in tables:
        refused = [
            {"key": row["key"], "uri": row["uri"], "reason": row["reason"]}
            for row in rows
            if table.name in row["lacks"]
        ]
        if refused:
            table.keeper.reject(refused, "encode_images", run)


def _folder_of_images(uris: pa.ChunkedArray) -> str | None:
    """What a node must see to read these images: a folder that holds the first and the last; None for remote ones."""
    ends = [parse_uri(uris[place].as_py()) for place in (0, -1)] if len(uris) else []
    folders = [os.path.dirname(place.path) for place in ends if not isinstance(place, RemoteFile)]
    return os.path.commonpath(folders) if folders else None


def _decode(
    rows: list[dict[str, Any]], views: Mapping[str, ViewSettings], size: int, full: bool, images: str | None
) -> list[dict[str, Any]]:
    """Read and decode; a row that cannot be gets a reason in place of a photograph.

    Raises FileNotFoundError on a node that does not see the folder `images`: else all of them would be rejected.
    """
    from stages.actor_pool import check_seen
    from stages.photograph import decode_photograph
    from stages.vision.bounds import LARGEST_FILE, UnreadableImage
    from storage.blobs import read_blobs

    if images is not None:
        check_seen(images)
    decoded, blobs = [], deque(read_blobs([row["uri"] for row in rows], LARGEST_FILE))
    for row in rows:
        data = blobs.popleft()  # and is let go of once it is decoded
        if isinstance(data, OSError):
            decoded.append(row | {"reason": f"cannot be read: {data.strerror or data}"})
            continue
        lacking = {name: views[name] for name in row["lacks"] if name in views}
        try:
            decoded.append(row | {"photograph": decode_photograph(data, lacking, size, full=full)})
        except UnreadableImage as error:
            decoded.append(row | {"reason": str(error)})
    return decoded


class _EncodeActor:
    """Holds an `Encoder`, writes what it makes, answers with counts."""

    def __init__(
        self,
        model: ModelSettings,
        guides: dict[str, GuideSettings],
        precision: str,
        device: str,
        threads: int,
        tables: list[tuple[str, str, Any]],
        run: str,
        weights_cache: str,
        planned: PlannedWeights,
    ):
        self.model, self.guides, self.precision, self.device = model, guides, precision, device
        self.threads, self.tables, self.run, self.weights_cache = threads, tables, run, weights_cache
        self.planned = planned
        self.own = threading.local()

    def setup(self) -> None:
        """Load the models; apart from construction, so that what it raises is told from a death."""
        import torch

        from stages.encoder import Encoder, ViewTable
        from storage.shards import ShardTable

        torch.set_num_threads(self.threads)
        self.encoder = Encoder(self.model, self.guides, self.precision, self.device, self.weights_cache, self.planned)
        self.keepers = {name: ShardTable(folder) for name, folder, _ in self.tables}
        self.views = {name: ViewTable(*plan) for name, _, plan in self.tables if plan is not None}
        self.notes = self.encoder.check(self.views)
        if self.device == "cuda":
            torch.cuda.synchronize()  # weights were copied on another stream than those that batches run on

    def encode(self, *parts: list[dict[str, Any]]) -> Encoded:
        """Encode a decoded batch and append a shard a table."""
        import torch

        rows = [row for part in parts for row in part]
        if self.device == "cpu":
            return self._encode(rows)
        if not hasattr(self.own, "stream"):  # one a thread: every stream keeps memory of its own
            self.own.stream = torch.cuda.Stream()
        with torch.cuda.stream(self.own.stream):
            return self._encode(rows)

    def _encode(self, rows: list[dict[str, Any]]) -> Encoded:
        from stages.encoder import Image

        phases = Phases()
        good = [row for row in rows if "photograph" in row]
        bad = [row for row in rows if "photograph" not in row]
        if good:
            images = [Image(row["key"], row["id"], row["photograph"]) for row in good]
            made = self.encoder.encode(images, [set(row["lacks"]) for row in good], self.views, phases)
            with phases.measure("write"):
                for name, table in made.items():
                    self.keepers[name].append(table, self.run)
        with phases.measure("write"):
            for name, keeper in self.keepers.items():
                refused = [{key: row[key] for key in ("key", "uri", "reason")} for row in bad if name in row["lacks"]]
                if refused:
                    keeper.reject(refused, "encode_images", self.run)
        phases.seconds["decode"] = sum(row["photograph"].seconds for row in good)
        return Encoded(len(good), [row["key"] for row in bad], dict(phases.seconds), self.notes)
