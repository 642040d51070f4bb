"""The image manifest: which images a data set has, with id, version, split and class, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from stages.class_names import name_labels, read_class_names
from stages.dataset import (
    AnyDataset,
    DatasetError,
    FolderDataset,
    ParquetDataset,
    TableDataset,
    WebDataset,
)
from stages.datasets.folder import list_folder
from stages.datasets.listing import Entry, Listing

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("class", pa.string()),
    ]
)
_ENTRIES = pa.schema([pa.field(name, pa.string()) for name in Entry._fields])
_CHUNK = 20_000


def read_manifest(dataset: AnyDataset, cache: str | None = None) -> tuple[pa.Table, dict[str, str]]:
    """List the images of a data set.

    Returns the manifest (columns of `SCHEMA`, sorted by id) and the classes in order, id -> spoken name. `cache` is a
    folder that remembers what is slow to find out (the members of tars, hashes of Parquet cells). Raises DatasetError.
    """
    file = read_class_names(dataset.classes) if dataset.classes else None
    listing = _list(dataset, cache)
    entries = _as_table(listing.entries)
    if not len(entries):
        raise DatasetError(listing.empty)
    _check_ids(entries, listing)
    labels = sorted(label for label in pc.unique(entries["label"]).to_pylist() if label is not None)
    names, classes = name_labels(labels, file, listing)
    positions = pc.index_in(entries["label"], pa.array(labels, pa.string()))
    columns = {
        "key": pc.binary_join_element_wise(entries["id"], entries["version"], "@"),
        "id": entries["id"],
        "version": entries["version"],
        "uri": entries["uri"],
        "split": entries["split"],
        "class": pa.chunked_array([pa.array([names[label] for label in labels], pa.string())]).take(positions),
    }
    return pa.table(list(columns.values()), SCHEMA), classes


def _list(dataset: AnyDataset, cache: str | None) -> Listing:
    """The listing by the data set's kind; readers are imported when they are needed."""
    if isinstance(dataset, FolderDataset):
        return list_folder(dataset)
    if isinstance(dataset, WebDataset):
        from stages.datasets.webdataset import list_webdataset

        return list_webdataset(dataset, cache)
    if isinstance(dataset, ParquetDataset):
        from stages.datasets.parquet import list_parquet

        return list_parquet(dataset, cache)
    if isinstance(dataset, TableDataset):
        from stages.datasets.table import list_table

        return list_table(dataset)
    from stages.datasets.torchvision import list_torchvision

    return list_torchvision(dataset)


def _as_table(entries: Iterable[Entry]) -> pa.Table:
    """Entries sorted by id; put into Arrow as they come, since a million of them as Python objects take gigabytes."""
    batches, source = [], iter(entries)
    while chunk := list(islice(source, _CHUNK)):
        columns = [pa.array(column, pa.string()) for column in zip(*chunk, strict=True)]
        batches.append(pa.record_batch(columns, schema=_ENTRIES))
    table = pa.Table.from_batches(batches, _ENTRIES)
    return table.sort_by("id").combine_chunks() if batches else table


def _check_ids(entries: pa.Table, listing: Listing) -> None:
    """An id belongs to one image of one split: results on an image that also serves as a shot would mean nothing."""
    ids = entries["id"].combine_chunks()
    if (repeated := pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py()) < 0:
        return
    rows = entries.filter(pc.equal(ids, ids[repeated]))
    splits = list(dict.fromkeys(rows["split"].to_pylist()))
    if len(splits) > 1:
        raise DatasetError(
            f"dataset.splits: {ids[repeated]} lies in both {splits[0]} and {splits[1]}; splits share no image"
        )
    raise DatasetError(
        f"dataset: {listing.where} has {len(rows)} images with the id {ids[repeated].as_py()!r}; "
        "an id belongs to one image"
    )
