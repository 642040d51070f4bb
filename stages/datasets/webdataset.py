"""Tar shards: members that share a name up to the first dot of the file name are one sample (image, `.cls`, `.json`).

An image's id is its member's path, led by the shard's name only where two shards have a member of that path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from stages.dataset import DatasetError, WebDataset
from stages.datasets.kept import keep
from stages.datasets.listing import (
    IMAGE_SUFFIXES,
    Entry,
    Listing,
    check_text,
    is_image,
    is_text,
    known_label,
    stream_version,
)
from stages.datasets.shards import ShardFile, check_split_names, find_shards
from stages.datasets.tar_members import Member, read_members
from storage.uris import TarMember, format_uri

_SAMPLES = pa.schema(
    [("member", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("version", pa.string())]
    + [(source, pa.string()) for source in ("cls", "json", "folder")]
)
_LARGEST_LABEL = 1 << 24
"""Bytes of a `.cls` or `.json` member that are read at most: more is no label."""


def list_webdataset(dataset: WebDataset, cache: str | None) -> Listing:
    """The images of the shards. Raises DatasetError."""
    shards = find_shards(dataset.path, dataset.splits, ".tar")
    check_split_names(dataset.path, shards, dataset.splits)
    settings = ["webdataset", 2, dataset.image, dataset.label, dataset.label_key, dataset.version]
    samples = []
    for shard in shards:
        try:
            samples.append(keep(cache, shard.path, settings, lambda path=shard.path: _samples(path, dataset)))
        except OSError as error:
            raise DatasetError(f"dataset.path: {shard.path} cannot be read: {error.strerror or error}") from None
    where = dataset.path if isinstance(dataset.path, str) else os.path.commonpath([shard.path for shard in shards])
    empty = f"dataset.path: no images in the tars of {where} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})"
    return Listing(_entries(shards, samples, _label_source(dataset, samples)), where, empty)


def _entries(shards: list[ShardFile], samples: list[pa.Table], source: str | None) -> Iterator[Entry]:
    counts = pc.value_counts(
        pa.chunked_array([chunk for table in samples for chunk in table["member"].chunks], pa.string())
    )
    repeated = set(counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist())
    for shard, table in zip(shards, samples, strict=True):
        for batch in table.to_batches(max_chunksize=10_000):
            labels = batch[source].to_pylist() if source else [None] * len(batch)
            rows = zip(
                *(batch[name].to_pylist() for name in ("member", "offset", "size", "version")), labels, strict=True
            )
            for member, offset, size, version, label in rows:
                name = member.removeprefix("./")
                identity = f"{shard.name}/{name}" if member in repeated else name
                uri = format_uri(TarMember(shard.path, member, offset, size))
                yield Entry(identity, version, uri, shard.split, label)


def _label_source(dataset: WebDataset, samples: list[pa.Table]) -> str | None:
    """Which column has the labels."""
    if dataset.label != "auto":
        return None if dataset.label == "none" else dataset.label
    for source in ("cls", "json"):
        if any(table[source].null_count < len(table) for table in samples):
            return source
    folders = {folder for table in samples for folder in pc.unique(table["folder"]).to_pylist() if folder is not None}
    return "folder" if len(folders) > 1 else None


@dataclass
class _Sample:
    image: Member | None = None
    ending: str = ""
    rival: str = ""
    """another image of the sample, which cannot be told from `image`"""
    cls: str | None = None
    json: str | None = None


def _samples(path: str, dataset: WebDataset) -> pa.Table:
    """One row an image of a tar."""
    samples: dict[str, _Sample] = {}
    wanted = None if dataset.image is None else dataset.image.lower().lstrip(".")
    with open(path, "rb") as file:
        for member in read_members(path, file):
            folder, _, name = member.name.rpartition("/")
            base, dot, ending = name.partition(".")
            if not base or not dot:
                continue  # hidden files, among them what macOS puts beside each file, and names without an ending
            sample = samples.setdefault(f"{folder}/{base}", _Sample())
            ending = ending.lower()
            if ending == "cls" and dataset.label in ("auto", "cls"):
                sample.cls = _text_label(path, member, file)
            elif ending == "json" and dataset.label in ("auto", "json"):
                sample.json = _json_label(path, member, file, dataset)
            elif ending == wanted if wanted is not None else is_image(name):
                _take_image(sample, member, ending)
        good = {base: sample for base, sample in samples.items() if sample.image is not None}
        rows = [_row(path, sample, file, dataset.version) for sample in good.values()]
    return pa.Table.from_batches([pa.record_batch(list(map(list, zip(*rows, strict=True))) or [[]] * 7, _SAMPLES)])


def _take_image(sample: _Sample, member: Member, ending: str) -> None:
    """Of several images `a.jpg` comes before `a.seg.png`, the mask beside it; a path met again replaces the first."""
    plain = f".{ending}" in IMAGE_SUFFIXES
    if sample.image is None or sample.image.name == member.name:
        sample.image, sample.ending = member, ending
    elif plain != (f".{sample.ending}" in IMAGE_SUFFIXES):
        if plain:
            sample.image, sample.ending, sample.rival = member, ending, ""
    else:
        sample.rival = member.name


def _row(path: str, sample: _Sample, file: BinaryIO, how: str) -> tuple:
    image = sample.image
    if sample.rival:
        raise DatasetError(
            f"dataset.image: {image.name!r} and {sample.rival!r} of {path} are images of one sample, since a sample's "
            f"name ends at its first dot; say which to take, for example image: {sample.ending}"
        )
    check_text(f"{path}: {image.name}", "dataset.path")
    version = f"{image.size}-{image.mtime_ns}"
    if how == "content":
        file.seek(image.offset)
        version = stream_version(file, image.size)
    folder = image.name.rpartition("/")[0].rpartition("/")[2]
    label = folder if folder not in ("", ".", "..") else None
    return image.name, image.offset, image.size, version, sample.cls, sample.json, label


def _read(member: Member, file: BinaryIO) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def _text_label(path: str, member: Member, file: BinaryIO) -> str | None:
    try:
        label = _read(member._replace(size=min(member.size, _LARGEST_LABEL)), file).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        label = ""
    if not label or "\n" in label:
        raise DatasetError(f"dataset.label: {member.name!r} of {path} is no label: a number or a name is wanted")
    return str(int(label)) if label.isascii() and label.isdecimal() and len(label) < 19 else known_label(label)


def _json_label(path: str, member: Member, file: BinaryIO, dataset: WebDataset) -> str | None:
    try:
        value = json.loads(_read(member._replace(size=min(member.size, _LARGEST_LABEL)), file))
    except (ValueError, RecursionError):
        value = None
    keys = ("label", "class") if dataset.label_key is None else (dataset.label_key,)
    label = next((value[key] for key in keys if key in value), None) if isinstance(value, dict) else None
    if isinstance(label, str) and label.strip() and is_text(label):
        return label.strip()
    if isinstance(label, int) and not isinstance(label, bool):
        return str(label) if label >= 0 else None
    if dataset.label == "json" and (not isinstance(value, dict) or label is not None):
        raise DatasetError(
            f"dataset.label: {member.name!r} of {path} is no JSON object with a number or a name as {' or '.join(keys)}"
        )
    return None
