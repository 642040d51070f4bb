"""The feature store as an application sees it: open a store, search it by text or image, read it as Arrow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.plan import Plan
from pipeline.query_error import QueryError, StoreError
from pipeline.record import fingerprints
from pipeline.settings import Job
from pipeline.store_model import StoreModel, told_model
from stages.settings import ModelSettings
from stages.stage import weights_cache
from storage import files
from storage.records import read_records

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from storage.lance import Projection
    from storage.lance_filter import Filter

TABLES = ("crops", "images", "descriptors", "cache")
MOST = 100_000
"""Rows that a search may ask for."""
Floats = Literal["float16", "float32"]


class FeatureStore:
    """What a job's last completed run left: its LanceDB tables, its shards, and the model that made them.

    >>> store = FeatureStore.open(folder)
    >>> hit = store.search("a red breast", k=3)[0]
    >>> sorted(hit)
    ['box', 'class', 'id', 'image', 'kind', 'number', 'similarity', 'split', 'view']

    The same by an image, among the crops of one class that are alike enough, or restricted as in SQL:

    >>> store.search(image=photo, table="images", k=1)[0]["class"]
    'wren'
    >>> hits = store.search("a red breast", class_name="red robin", min_similarity=-0.5)
    >>> hits = store.search("a red breast", where="view = 'guided' AND number < 2 AND class != 'wren'")

    Tables are Arrow's, and what reads Arrow reads them; `scan` hands out shards without holding them all:

    >>> store.crops(hit["image"]).num_rows
    5
    >>> store.to_polars("images", columns=["class", "width"]).n_unique("class")
    3
    >>> sum(batch.num_rows for batch in store.scan("views.guided", columns=["key", "boxes"]))
    12
    """

    def __init__(self, store: str, database: str, model: StoreModel, tables: Mapping[str, str]):
        """`database` is the folder or uri of the LanceDB tables, `tables` maps `stage/table` to its fingerprint."""
        self.store = store
        self.database = database
        self.model = model
        self._fingerprints = tables

    @classmethod
    def open(cls, store: str | Path, job: str | None = None) -> FeatureStore:
        """Open what the newest completed run (of `job`, if given) left in a folder or `s3://`, `gs://`.

        Raises StoreError where there is none or it is out of reach. The model is loaded when it is first asked.
        """
        store = str(store)
        try:
            records = read_records(store)
        except OSError as error:
            raise StoreError(f"{store} cannot be read: {error.strerror or error}") from None
        fitting = [record for record in records if record["database"] and job in (None, record["job"])]
        if not fitting:
            raise StoreError(f"{store} has no completed run{f' of {job}' if job else ''}: run the job first")
        newest = fitting[-1]
        database = os.path.join(store, newest["database"])
        if not files.exists(database):
            raise StoreError(f"{database} is gone: run the job again, it is projected from the shards")
        settings = ModelSettings.model_validate(newest["settings"]["model"])
        return cls(store, database, StoreModel(settings, newest["weights"], weights_cache(store)), newest["tables"])

    @classmethod
    def of_plan(cls, plan: Plan, job: Job) -> tuple[FeatureStore, bool]:
        """The store of a job under its present settings, and whether it is up to date with its images and texts.

        Raises StoreError where these settings were never run to the end, and names both models where another one was.
        """
        tables, projected = fingerprints(plan), plan.of("project")
        if projected.done:
            return cls(job.store, projected.tables[0].keeper.uri, _model_of(plan, job), tables), True
        now = _of_features(tables)
        completed = [one for one in read_records(job.store) if one["database"] and one["job"] == job.name]
        for record in reversed(completed):
            if now and _of_features(record["tables"]) == now:
                database = os.path.join(job.store, record["database"])
                return cls(job.store, database, _model_of(plan, job), record["tables"]), False
        if completed and _weights(plan) not in {record["weights"] for record in completed}:
            made_by = told_model(ModelSettings.model_validate(completed[-1]["settings"]["model"]))
            raise StoreError(
                f"{job.store} holds vectors of {made_by} (weights {completed[-1]['weights']}), and none of the job's "
                f"model {told_model(job.model)} (weights {_weights(plan)})"
            )
        raise StoreError("these settings were not run to the end yet")

    def tables(self) -> dict[str, list[str]]:
        """Names of tables: those of the database, to search and read, and those of shards, to scan."""
        held = [name for name, folder in self._shards.items() if files.exists(folder)]
        return {"database": self._lance.tables(), "shards": sorted(held)}

    def search(
        self,
        text: str | None = None,
        *,
        image: str | Path | None = None,
        vector: Sequence[float] | None = None,
        table: str = "crops",
        k: int = 10,
        class_name: str | None = None,
        split: str | None = None,
        descriptors: str | None = None,
        min_similarity: float | None = None,
        where: str | None = None,
        exact: bool = False,
    ) -> list[dict[str, Any]]:
        """The k rows of a table most similar to a text, an image file or a vector [d], best first.

        `similarity` is the cosine in -1..1; a crop's `box` is x0, y0, x1, y1 in pixels of its image. `class_name`,
        `split` and `descriptors` (a descriptor set) restrict the rows, and so does `where`, a condition on columns as
        in SQL. A large table is searched through its index, unless `exact`. Of `cache` a crop comes once a description,
        whatever the seeds that drew its image.

        Raises QueryError for a call that cannot be meant, StoreError for a table that is not there and a model that is
        not to be had as it was, OSError and UnreadableImage for an image that cannot be read.
        """
        if sum(asked is not None for asked in (text, image, vector)) != 1:
            raise QueryError("search for a text, an image or a vector, one of them")
        if type(k) is not int or not 1 <= k <= MOST:
            raise QueryError(f"k is {k!r}; it is a whole number from 1 to {MOST:,}")
        if text is not None:
            _check_text(text)
        for name, value in (("class_name", class_name), ("split", split), ("descriptors", descriptors)):
            if value is not None and not isinstance(value, str):
                raise QueryError(f"{name} is {value!r}; it is a text")
        schema = self.schema(table)
        condition = _condition(schema, table, {"class": class_name, "split": split, "set": descriptors}, where)
        if vector is None:
            self.model.check_made(table, schema.metadata)
            vector = self.model.encode_image(_read(image)) if text is None else self.model.encode_text(text)
        elif len(vector) != schema.field("vector").type.list_size:
            d = schema.field("vector").type.list_size
            raise QueryError(f"the vectors of table {table!r} have {d} numbers, the one asked for {len(vector)}")
        how = {"where": condition, "at_least": -1.0 if min_similarity is None else min_similarity, "exact": exact}
        try:
            hits = self._lance.search(table, vector, k=k, **how)
            asked = k
            while table == "cache" and len(_distinct(hits)) < k and len(hits) == asked <= MOST:
                asked *= 4  # a crop stands there once a seed
                hits = self._lance.search(table, vector, k=asked, **how)
        except ValueError as error:  # a vector without a direction
            raise QueryError(str(error)) from None
        return _distinct(hits)[:k] if table == "cache" else hits

    def images(self) -> pa.Table:
        """Every image: id, version, uri, class, split, size, global feature."""
        return self.to_arrow("images")

    def crops(self, image: str) -> pa.Table:
        """The crops of an image, by its id: view set, number, box, feature."""
        return self._read("crops", None, {"image": image})

    def descriptors(self, class_name: str) -> pa.Table:
        """The descriptors of a class: set, number, text, feature."""
        return self._read("descriptors", None, {"class": class_name})

    def cache(self, class_name: str) -> pa.Table:
        """The cached crops of a class: image, box, descriptor, similarity to it, shot, seed, feature."""
        return self._read("cache", None, {"class": class_name})

    def schema(self, table: str) -> pa.Schema:
        """The columns of a table of the database, and in its metadata the model that made it.

        Raises QueryError for a name that no table has, StoreError for a table that this database has not.
        """
        if table not in TABLES:
            raise QueryError(f"no table is called {table!r}; there are {', '.join(TABLES)}")
        try:
            return self._lance.schema(table)
        except LookupError as error:
            raise StoreError(f"{error}. {_WHY_MISSING.get(table, 'Run the job again')}") from None

    def to_arrow(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        dtype: Floats = "float16",
    ) -> pa.Table:
        """Rows of a table of the database, all or those that `where` lets pass, with all columns or these.

        Vectors are half floats as they are stored, or cast to `float32`. Raises as `schema` does, and QueryError for
        columns that are not there.
        """
        return self._read(table, columns, {}, where, dtype)

    def to_polars(self, table: str, columns: Sequence[str] | None = None, where: str | None = None) -> pl.DataFrame:
        """The same as a Polars frame, vectors as arrays of half floats."""
        import polars as pl

        return pl.from_arrow(self.to_arrow(table, columns, where))

    def scan(self, table: str, dtype: Floats = "float16", columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The rows of a table of shards (`whole`, `views.guided`, `texts`, ...), a shard in memory at a time.

        Half floats are handed out as they are stored, or cast to `float32`, which DuckDB asks for. Rows of images that
        left the data set are among them until `gc` removes the table: `images` says which are there.
        """
        from storage.scan import scan_shards

        if table not in self._shards:
            known = f"{table!r} is in the database: use to_arrow" if table in TABLES else f"there is no {table!r}"
            raise QueryError(f"{known}; tables of shards are {', '.join(self.tables()['shards'])}")
        try:
            return scan_shards(self._shards[table], columns, single=dtype == "float32")
        except KeyError as error:
            raise QueryError(error.args[0]) from None
        except LookupError as error:
            raise StoreError(f"{error}: run the job again") from None

    @cached_property
    def _lance(self) -> Projection:
        from storage.lance import Projection

        return Projection(self.database)

    @cached_property
    def _shards(self) -> dict[str, str]:
        """Folders by table; what is called as a table of a stage before it goes by `stage/table`."""
        found: dict[str, str] = {}
        for name, fingerprint in self._fingerprints.items():
            stage, _, table = name.partition("/")
            if stage != "project":
                found[name if table in found else table] = os.path.join(self.store, "tables", stage, fingerprint)
        return found

    def _read(
        self,
        table: str,
        columns: Sequence[str] | None,
        values: Mapping[str, str],
        where: str | None = None,
        dtype: Floats = "float16",
    ) -> pa.Table:
        from storage.scan import as_single

        schema = self.schema(table)
        condition = _condition(schema, table, values, where)
        try:
            rows = self._lance.described(table, columns or schema.names, condition)
        except KeyError as error:
            raise QueryError(error.args[0]) from None
        return rows.cast(as_single(rows.schema)) if dtype == "float32" else rows


_WHY_MISSING = {
    "cache": "A cache is kept where a method of the job reads one, such as dnd_tip",
    "crops": "Crops are kept where a method reads views, and the job does not leave them out",
}


def _distinct(hits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first hit of each cached crop and description."""
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for hit in hits:
        first.setdefault(tuple(hit[name] for name in ("method", "image", "class", "descriptor")), hit)
    return list(first.values())


def _check_text(text: str) -> None:
    if not text.strip():
        raise QueryError("the text to search for is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise QueryError("the text to search for is not UTF-8") from None


def _condition(schema: pa.Schema, table: str, values: Mapping[str, str | None], where: str | None) -> Filter | None:
    """What rows must fulfil: columns that equal the values that are given, and `where`. Raises QueryError."""
    from storage.lance_filter import both, where_equal
    from storage.lance_where import parse_where

    given = {name: value for name, value in values.items() if value is not None}
    if unknown := [name for name in given if name not in schema.names]:
        allowed = [name for name in schema.names if name != "vector"]
        raise QueryError(f"table {table!r} has no column {unknown[0]!r}; it has {', '.join(allowed)}")
    try:
        return both(where_equal(given), None if where is None else parse_where(where, schema))
    except ValueError as error:
        raise QueryError(f"where: {error}") from None


def _read(image: str | Path) -> bytes:
    from storage.blobs import read_blobs

    (data,) = read_blobs([str(image)])
    if isinstance(data, OSError):
        raise data
    return data


def _model_of(plan: Plan, job: Job) -> StoreModel:
    return StoreModel(job.model, _weights(plan), weights_cache(job.store))


def _weights(plan: Plan) -> str:
    tables = plan.of("encode_images").tables
    return tables[0].ingredients.weights if tables else "not known yet"


def _of_features(tables: Mapping[str, str]) -> dict[str, str]:
    """The fingerprints that decide which database shows the tables of a plan or record."""
    return {name: value for name, value in tables.items() if name.startswith(("encode_images/", "encode_text/"))}
