"""What a job file says of its data set."""

from __future__ import annotations

from typing import Literal

from stages.settings import Settings


class SplitFolders(Settings):
    """Sub-folders of the data set that hold its splits; only `query` is needed."""

    query: str
    """images to classify"""
    validation: str | None = None
    """labelled images for choosing settings"""
    support: str | None = None
    """labelled images for few-shot caches"""


class DatasetSettings(Settings):
    """A folder of images: a sub-folder a class, or flat and unlabelled."""

    kind: Literal["folder"] = "folder"
    path: str
    """the folder"""
    splits: SplitFolders | None = None
    """sub-folders of the splits; without it the whole folder is the query split, which `{query: .}` says outright"""
    classes: str | None = None
    """class names, one a line, or folder name -> class name (JSON, YAML); needed when nothing is labelled"""
    version: Literal["mtime", "content"] = "mtime"
    """how a changed image is recognised: by size and modification time, or by a hash of its bytes"""


class DatasetError(ValueError):
    """A data set that cannot be read as described; the message says what is wrong and what would be right."""
