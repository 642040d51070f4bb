"""What a job file says of its data set: one model a kind, told apart by `kind` (`folder` where it says none)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stages.settings import Settings


class DatasetError(ValueError):
    """A data set that cannot be read as described; the message says what is wrong and what would be right."""


class SplitFolders(Settings):
    """Sub-folders of the data set that hold its splits; only `query` is needed."""

    query: str
    """images to classify"""
    validation: str | None = None
    """labelled images for choosing settings"""
    support: str | None = None
    """labelled images for few-shot caches"""


class SplitNames(Settings):
    """What the splits are called in the data set, one name or several; only `query` is needed."""

    query: str | list[str]
    """images to classify"""
    validation: str | list[str] | None = None
    """labelled images for choosing settings"""
    support: str | list[str] | None = None
    """labelled images for few-shot caches"""

    def names(self, split: str) -> list[str]:
        """What one split is called; empty where the data set has none."""
        value = getattr(self, split)
        return [value] if isinstance(value, str) else list(value or [])


class FolderDataset(Settings):
    """A folder of images: a sub-folder a class, or flat and unlabelled."""

    kind: Literal["folder"] = "folder"
    path: str
    """the folder, on a disk or s3://BUCKET/FOLDER, gs://..."""
    splits: SplitFolders | None = None
    """sub-folders of the splits; without it the whole folder is the query split, which `{query: .}` says outright"""
    classes: str | None = None
    """class names, one a line, or folder name -> class name (JSON, YAML); needed when nothing is labelled"""
    version: Literal["mtime", "content"] = "mtime"
    """how a changed image is recognised: by size and modification time, or by a hash of its bytes"""


class WebDataset(Settings):
    """Tar shards, as webdataset writes them: members that share a name up to its first dot are one sample."""

    kind: Literal["webdataset"] = "webdataset"
    path: str | list[str]
    """folder of `.tar` files, a tar, a pattern (`birds-*.tar`, `birds-{000..041}.tar`), or a list of these"""
    splits: SplitNames | None = None
    """sub-folders of `path`, or patterns of tars in it; without it all tars are the query split"""
    classes: str | None = None
    """class names, one a line (in the order of the numbers in `.cls`), or label -> class name (JSON, YAML)"""
    image: str | None = None
    """ending of the image after the first dot (`jpg`, `crop.png`); needed where samples hold several images"""
    label: Literal["auto", "cls", "json", "folder", "none"] = "auto"
    """where labels are: `.cls` members, a key of `.json` members, the folder that a member lies in; auto: the first of
    these that is there, with folders only where there are two or more"""
    label_key: str | None = None
    """key of the label in `.json` members; default `label`, else `class`"""
    version: Literal["mtime", "content"] = "mtime"
    """how a changed image is recognised: by the size and time in the tar's header, or by a hash of its bytes"""


class ParquetDataset(Settings):
    """Parquet files with the bytes of the images, among them data sets as Hugging Face stores them."""

    kind: Literal["parquet"] = "parquet"
    path: str | list[str]
    """folder of `.parquet` files, a file, a pattern, or a list of these"""
    splits: SplitNames | None = None
    """values of the split column; without such a column sub-folders of `path`, or patterns of files in it"""
    classes: str | None = None
    """class names, one a line (in the order of numbered labels), or label -> class name (JSON, YAML)"""
    image: str = "image"
    """column of the images: bytes, or a struct with `bytes`"""
    label: str | None = None
    """column of the labels, numbers (negative: not known) or names; default `label`, where there is one"""
    id: str | None = None
    """column of the ids, unique; default `id`, where there is one, else file and row"""
    split: str | None = None
    """column of the splits; default `split`, where there is one"""
    version: Literal["mtime", "content"] = "mtime"
    """how a changed image is recognised: by its file's size and time, or by a hash of its own bytes, so that a file
    written anew with more rows costs only those"""


class TableDataset(Settings):
    """A CSV, TSV or JSON Lines file that says where the images are."""

    kind: Literal["table"] = "table"
    path: str
    """the file: .csv, .tsv, .jsonl or .ndjson, UTF-8"""
    splits: SplitNames | None = None
    """values of the split column; without it test, val and train are known by their usual names"""
    classes: str | None = None
    """class names, one a line (in the order of numbered labels), or label -> class name (JSON, YAML)"""
    uri: str = "uri"
    """column of the images: a path (relative ones start at the file's folder), or what fsspec opens (https, s3, ...)"""
    label: str | None = None
    """column of the labels, numbers (negative: not known) or names; default `label`, where there is one"""
    id: str | None = None
    """column of the ids, unique; default `id`, where there is one, else the uri as it is written"""
    split: str | None = None
    """column of the splits; default `split`, where there is one"""
    version: Literal["mtime", "content", "none"] = "mtime"
    """how a changed image is recognised: by ETag or size and time, by a hash of its bytes, or not at all, so that
    listing asks no server"""


TorchvisionName = Literal[
    "DTD",
    "Flowers102",
    "Food101",
    "OxfordIIITPet",
    "FGVCAircraft",
    "EuroSAT",
    "Caltech101",
    "SUN397",
    "StanfordCars",
    "Places365",
    "ImageNet",
    "ImageFolder",
]


class TorchvisionDataset(Settings):
    """A data set that lies on disk as torchvision lays it out. Nothing is ever downloaded."""

    kind: Literal["torchvision"] = "torchvision"
    name: TorchvisionName
    """torchvision's name of it; ImageFolder for ImageNet-V2, -A, -R, -Sketch: folders named by class, else by wnid or
    number, which need `classes`"""
    root: str
    """what torchvision is given as `root`"""
    splits: SplitNames | None = None
    """the data set's own names of its splits; default: all it has (ImageNet and Places365: val alone)"""
    classes: str | None = None
    """class names in place of the data set's own: one a line in its order, or its label -> class name (JSON, YAML)"""
    version: Literal["mtime", "content"] = "mtime"
    """how a changed image is recognised: by size and modification time, or by a hash of its bytes"""


def _with_kind(value: Any) -> Any:
    return {"kind": "folder", **value} if isinstance(value, Mapping) and "kind" not in value else value


AnyDataset = FolderDataset | WebDataset | ParquetDataset | TableDataset | TorchvisionDataset

DatasetSettings = Annotated[AnyDataset, Field(discriminator="kind"), BeforeValidator(_with_kind)]
