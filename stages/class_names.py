"""Class names: read from a file, and found for the folders that label the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from prompts.descriptor_file import UniqueKeyLoader
from stages.dataset import DatasetError, DatasetSettings


def read_class_names(path: Path) -> dict[str, str]:
    """Folder name -> class name, from a file; a plain list names its own folders. Raises DatasetError."""
    if not path.is_file():
        raise DatasetError(f"dataset.classes: no file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"dataset.classes: {path} is not UTF-8 text") from None
    if path.suffix.lower() in {".yaml", ".yml", ".json"}:
        try:
            value = yaml.load(text, Loader=UniqueKeyLoader)
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())
            raise DatasetError(f"dataset.classes: {path} is not valid YAML or JSON: {problem}") from None
    else:
        value = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(value, list) and value and all(isinstance(name, str) and name.strip() for name in value):
        repeated = sorted({name for name in value if value.count(name) > 1})
        if repeated:
            raise DatasetError(f"dataset.classes: {path} names {', '.join(repeated)} more than once")
        return {name: name for name in value}
    if isinstance(value, dict) and value and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        return dict(value)
    raise DatasetError(
        f"dataset.classes: {path} should hold class names, one a line, or a mapping of folder names to class names"
    )


def name_labels(labels: Sequence[str], folder_names: dict[str, str] | None, dataset: DatasetSettings) -> dict[str, str]:
    """Folder name -> class name for every label: by its exact name, else by one that differs in `_` and space alone.

    `folder_names` is what `read_class_names` found, None without a file. Raises DatasetError.
    """
    if folder_names is None:
        if not labels:
            raise DatasetError(
                f"dataset.classes: the images of {dataset.path} lie in no class folders, so the classes must be named "
                "in a file, one a line"
            )
        return {label: label for label in labels}
    alike: dict[str, list[str]] = {}
    for name in folder_names:
        alike.setdefault(name.replace("_", " "), []).append(name)
    found: dict[str, str | None] = {}
    for label in labels:
        named = [label] if label in folder_names else alike.get(label.replace("_", " "), [])
        classes = list(dict.fromkeys(folder_names[name] for name in named))
        if len(classes) > 1:
            raise DatasetError(
                f"dataset.classes: the folder {label!r} of {dataset.path} may be {' or '.join(map(repr, named))} of "
                f"{dataset.classes}, which are different classes; name the folder exactly"
            )
        found[label] = classes[0] if classes else None
    unknown = [label for label, name in found.items() if name is None]
    if unknown:
        raise DatasetError(
            f"dataset.classes: {dataset.classes} does not name the folders {', '.join(unknown[:5])}"
            f"{' and others' if len(unknown) > 5 else ''} of {dataset.path}"
        )
    return {label: name for label, name in found.items() if name is not None}
