"""Writes the demo's data set: folders of rendered photographs by species, and a file of their descriptors.

What is already there stays as it is, so a second call, or one after a stop, only renders what is missing.
"""

from __future__ import annotations

import filecmp
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from demo.captions import descriptor
from demo.marks import Species
from demo.render import FAR, render
from demo.species import species_of

MODEL_FOLDER = Path(__file__).parent / "model"


class _Photograph(NamedTuple):
    species: Species
    seed: str
    path: Path


def write_dataset(
    folder: str | os.PathLike,
    set_name: str = "test_0",
    test_per_class: int = 25,
    train_per_class: int = 8,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `folder/images/{train,test}/<species>/<nnn>.jpg` (256 x 256, birds `FAR` away) and
    `folder/descriptors.json`.

    `set_name` is one of `demo.species.SETS`. The descriptor file is `{species: [a sentence a mark]}`, eight
    each. Pictures are rendered in `workers` processes; `progress(done, total)` hears of every one, those
    found in place included. Each file appears whole, under its own name, or not at all.
    """
    folder = Path(folder)
    wanted = [
        _Photograph(species, f"{seed} {set_name} {split} {number}", place / f"{number:03d}.jpg")
        for species in species_of(set_name)
        for split, count in (("train", train_per_class), ("test", test_per_class))
        for place in [folder / "images" / split / species.name]
        for number in range(count)
    ]
    for parent in {photograph.path.parent for photograph in wanted}:
        parent.mkdir(parents=True, exist_ok=True)
    if not (folder / "descriptors.json").exists():  # somebody may have tried other words
        _write_whole(folder / "descriptors.json", _descriptors(species_of(set_name)))
    missing = [photograph for photograph in wanted if not photograph.path.exists()]
    done = len(wanted) - len(missing)
    report = progress or (lambda done, total: None)
    report(done, len(wanted))
    if not missing:
        return
    # Ctrl-C is for the caller to answer; workers would each print where they were.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.get_context("spawn").Pool(min(workers, len(missing)), signal.signal, ignore) as pool:
        for _ in pool.imap_unordered(_photograph, missing, chunksize=4):
            done += 1
            report(done, len(wanted))


def copy_model(folder: str | os.PathLike) -> Path:
    """Put the small CLIP into `folder/model` and return that folder; files that are the same stay untouched."""
    target = Path(folder) / "model"
    target.mkdir(parents=True, exist_ok=True)
    for source in sorted(MODEL_FOLDER.iterdir()):
        copy = target / source.name
        if not (copy.exists() and filecmp.cmp(source, copy, shallow=False)):
            partial = copy.with_name(f".{copy.name}.part")
            shutil.copyfile(source, partial)
            os.replace(partial, copy)
    return target


def _descriptors(species: tuple[Species, ...]) -> bytes:
    sentences = {its.name: [descriptor(mark) for mark in its.marks] for its in species}
    return (json.dumps(sentences, indent=2) + "\n").encode()


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(content)
    os.replace(partial, path)


def _photograph(photograph: _Photograph) -> None:
    picture, _ = render(photograph.species, photograph.seed, width=FAR)
    partial = photograph.path.with_name(f".{photograph.path.name}.part")
    picture.save(partial, "JPEG", quality=92, subsampling=0)
    os.replace(partial, photograph.path)
