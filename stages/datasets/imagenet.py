"""The class names of ImageNet's wnids (n01440764), from whichever of its files lies beside the images.

`meta.bin` is what torchvision writes. It is a pickle, and it is not unpickled: its few operations that make texts,
tuples, lists and mappings are followed one by one, and any other ends the reading.
"""

from __future__ import annotations

import os
import pickletools
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from stages.dataset import DatasetError
from stages.datasets.matlab import read_matlab

DEVKIT = "ILSVRC2012_devkit_t12"


def wnid_names(root: str, wnids: Sequence[str]) -> dict[str, str]:
    """wnid -> the first of its synonyms, in the order of `wnids`; two wnids may be called alike.

    Raises DatasetError where no file says the names, or says none for a folder.
    """
    synonyms = _synonyms(root)
    unnamed = [wnid for wnid in wnids if wnid not in synonyms]
    if unnamed:
        raise DatasetError(
            f"dataset.root: ImageNet names no class {', '.join(unnamed[:5])}, as folders in {root} are called"
        )
    return {wnid: synonyms[wnid][0] for wnid in wnids}


def _synonyms(root: str) -> Mapping[str, Sequence[str]]:
    if os.path.isfile(path := os.path.join(root, "meta.bin")):
        return _from_torch_file(path)
    if os.path.isfile(path := os.path.join(root, DEVKIT, "data", "meta.mat")):
        return _from_matlab(path, None)
    if os.path.isfile(path := os.path.join(root, f"{DEVKIT}.tar.gz")):
        try:
            with tarfile.open(path) as archive:
                return _from_matlab(path, archive.extractfile(f"{DEVKIT}/data/meta.mat").read())
        except (tarfile.TarError, OSError, EOFError, KeyError, AttributeError) as error:
            raise DatasetError(
                f"dataset.root: {path} has no {DEVKIT}/data/meta.mat that can be read: {error}"
            ) from None
    if os.path.isfile(path := os.path.join(root, "LOC_synset_mapping.txt")):
        with open(path, encoding="utf-8") as file:
            pairs = (line.strip().partition(" ") for line in file if line.strip())
            return {wnid: names.split(", ") for wnid, _, names in pairs}
    raise DatasetError(
        f"dataset.root: nothing in {root} names ImageNet's classes. Put meta.bin, {DEVKIT}.tar.gz or "
        "LOC_synset_mapping.txt there, or say dataset.classes: a file {wnid: name}, or the names one a line by wnid"
    )


def _from_matlab(path: str, data: bytes | None) -> dict[str, list[str]]:
    synsets = read_matlab(path, data)["synsets"]
    return {str(row["WNID"]): str(row["words"]).split(", ") for row in synsets if int(row["num_children"]) == 0}


def _from_torch_file(path: str) -> Mapping[str, Sequence[str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            synonyms = plain_value(archive.read(name))[0]
        if all(isinstance(wnid, str) and all(isinstance(n, str) for n in names) for wnid, names in synonyms.items()):
            return synonyms
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"dataset.root: {path} is not ImageNet's meta.bin as torchvision writes it: {error}"
        ) from None
    raise DatasetError(f"dataset.root: {path} is not ImageNet's meta.bin as torchvision writes it")


_MARK = object()
_PLAIN = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}


def plain_value(data: bytes) -> Any:
    """The texts, tuples, lists and mappings that a pickle of protocol 2 holds; ValueError where it holds anything else.

    Nothing is called and nothing is imported, whatever the bytes say.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for operation, argument, _ in pickletools.genops(data):
        name = operation.name
        if name in _PLAIN:
            stack.append(_PLAIN[name]())
        elif name in ("BINUNICODE", "SHORT_BINUNICODE"):
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            _close(stack, name)
        elif name == "APPEND":
            stack[-2].append(stack.pop())
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            raise ValueError(f"it holds {name}, which makes no plain value")
    raise ValueError("it has no end")


def _close(stack: list[Any], name: str) -> None:
    """Gather what stands above the last mark."""
    at = len(stack) - 1 - stack[::-1].index(_MARK)
    items = stack[at + 1 :]
    del stack[at:]
    if name == "TUPLE":
        stack.append(tuple(items))
    elif name == "APPENDS":
        stack[-1].extend(items)
    else:
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
