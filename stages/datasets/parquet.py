"""Parquet files with the bytes of images, among them data sets as Hugging Face stores them.

An image's id is what the id column says, else its file and row. Listing reads no image unless versions are hashes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cached_property

import pyarrow as pa

from stages.dataset import DatasetError, ParquetDataset
from stages.datasets.kept import keep
from stages.datasets.listing import Entry, Listing, content_version
from stages.datasets.shards import ShardFile, check_split_names, find_shards
from stages.datasets.splits import SplitColumn
from storage.uris import ParquetCell, format_uri


def list_parquet(dataset: ParquetDataset, cache: str | None) -> Listing:
    """The images of the files. Raises DatasetError."""
    everything = find_shards(dataset.path, None, ".parquet")
    if _File(everything[0], dataset).has("split"):
        shards = everything
    else:
        check_split_names(dataset.path, everything, dataset.splits)
        shards = everything if dataset.splits is None else find_shards(dataset.path, dataset.splits, ".parquet")
    files = [_File(shard, dataset) for shard in shards]
    _check_alike(files)
    own = _own_classes(files)
    where = dataset.path if isinstance(dataset.path, str) else os.path.commonpath([shard.path for shard in shards])
    empty = f"dataset.path: no rows of the query split in the Parquet files of {where}"
    return Listing(_entries(files, SplitColumn(dataset.splits, where), cache), where, empty, own=own)


def _entries(files: list[_File], splits: SplitColumn, cache: str | None) -> Iterator[Entry]:
    for file in files:
        yield from file.entries(splits, cache)
    splits.check_names()


class _File:
    """One Parquet file; columns that the settings do not name are found by their usual names."""

    def __init__(self, shard: ShardFile, dataset: ParquetDataset):
        import pyarrow.parquet as pq

        self.shard, self.dataset = shard, dataset
        try:
            with pq.ParquetFile(shard.path) as file:
                self.schema = file.schema_arrow
                self.groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        except (OSError, ValueError) as error:  # pa.ArrowInvalid is a ValueError
            raise DatasetError(f"dataset.path: {shard.path} is not a Parquet file that can be read: {error}") from None
        self._check_image()
        for name in ("label", "id", "split"):
            asked = getattr(dataset, name)
            if asked is not None and asked not in self.schema.names:
                raise DatasetError(f"dataset.{name}: {shard.path} has no column {asked!r}; it has {self._columns}")

    @property
    def _columns(self) -> str:
        return ", ".join(self.schema.names)

    def has(self, name: str) -> bool:
        return (getattr(self.dataset, name) or name) in self.schema.names

    def _check_image(self) -> None:
        name = self.dataset.image
        if name not in self.schema.names:
            raise DatasetError(f"dataset.image: {self.shard.path} has no column {name!r}; it has {self._columns}")
        kind = self.schema.field(name).type
        if pa.types.is_struct(kind):
            kind = next((kind.field(i).type for i in range(kind.num_fields) if kind.field(i).name == "bytes"), kind)
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise DatasetError(
                f"dataset.image: the column {name!r} of {self.shard.path} holds {kind}, not bytes; a list of paths or "
                "addresses is a data set of the kind `table`"
            )

    @cached_property
    def class_names(self) -> list[str] | None:
        """The names behind numbered labels, as Hugging Face's `datasets` writes them into the schema."""
        try:
            features = json.loads((self.schema.metadata or {})[b"huggingface"])["info"]["features"]
            names = features[self.dataset.label or "label"]["names"]
        except (KeyError, TypeError, ValueError):
            return None
        return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None

    def entries(self, splits: SplitColumn, cache: str | None) -> Iterator[Entry]:
        """One entry a row that a split takes."""
        rows = self._read([getattr(self.dataset, name) or name for name in ("label", "id", "split") if self.has(name)])
        labels, ids, values = (self._values(rows, name) for name in ("label", "id", "split"))
        hashes = self._hashes(cache) if self.dataset.version == "content" else None
        status = os.stat(self.shard.path)
        of_file = f"{status.st_size}-{status.st_mtime_ns}"
        number = 0
        for group, count in enumerate(self.groups):
            for row in range(count):
                split = self.shard.split if values is None else splits[values[number]]
                if split is not None:
                    yield Entry(
                        # padded, so that rows that lie side by side in the file do so among the sorted ids
                        f"{self.shard.name}/{number:08d}" if ids is None else self._id(ids[number], number),
                        of_file if hashes is None else hashes[number],
                        format_uri(ParquetCell(self.shard.path, self.dataset.image, group, row)),
                        split,
                        None if labels is None else self._label(labels[number], number),
                    )
                number += 1

    def _read(self, columns: list[str]) -> pa.Table:
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.shard.path) as file:
                return file.read(columns=columns)
        except (OSError, ValueError) as error:
            raise DatasetError(f"dataset.path: {self.shard.path} cannot be read: {error}") from None

    def _values(self, rows: pa.Table, name: str) -> list | None:
        return rows.column(getattr(self.dataset, name) or name).to_pylist() if self.has(name) else None

    def _id(self, value: object, row: int) -> str:
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return str(value)
        raise DatasetError(
            f"dataset.id: row {row} of {self.shard.path} has the id {value!r}; a text or number is wanted"
        )

    def _label(self, value: object, row: int) -> str | None:
        if value is None or value == "":
            return None
        if isinstance(value, str):
            return value
        if not isinstance(value, int) or isinstance(value, bool):
            raise DatasetError(
                f"dataset.label: row {row} of {self.shard.path} has the label {value!r}; a name or number is wanted"
            )
        if value < 0:
            return None  # how Hugging Face writes that a label is not known
        if self.class_names is None:
            return str(value)
        if value >= len(self.class_names):
            raise DatasetError(
                f"dataset.label: row {row} of {self.shard.path} has the label {value}, and the file names "
                f"{len(self.class_names)} classes"
            )
        return self.class_names[value]

    def _hashes(self, cache: str | None) -> list[str]:
        settings = ["parquet hashes", 1, self.dataset.image]
        return keep(cache, self.shard.path, settings, self._find_hashes)["version"].to_pylist()

    def _find_hashes(self) -> pa.Table:
        """The hash of each image's bytes, reading one row group at a time."""
        from storage.blobs import read_blobs

        found: list[str] = []
        for group, count in enumerate(self.groups):
            places = [ParquetCell(self.shard.path, self.dataset.image, group, row) for row in range(count)]
            blobs = read_blobs([format_uri(place) for place in places])
            found.extend(content_version(blob) if isinstance(blob, bytes) else "missing" for blob in blobs)
        return pa.table({"version": pa.array(found, pa.string())})


def _check_alike(files: list[_File]) -> None:
    """A column that some files lack would make queries of training rows, or labelled images unlabelled."""
    for name in ("split", "label", "id"):
        having = {file.has(name): file.shard.path for file in files}
        if len(having) > 1:
            column = getattr(files[0].dataset, name) or name
            raise DatasetError(
                f"dataset.{name}: {having[True]} has a column {column!r} and {having[False]} has none; the files of a "
                "data set have the same columns"
            )


def _own_classes(files: list[_File]) -> dict[str, str] | None:
    """The classes in the files' own order, where the first names them and no other contradicts it."""
    names = files[0].class_names
    if any(file.class_names != names for file in files):
        raise DatasetError(
            f"dataset.label: {files[0].shard.path} and other files name different classes behind the numbers of their "
            "labels; make them a data set each"
        )
    return None if names is None else {name: name for name in names}
