"""Write a commented job file for a folder of images."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipeline.job_error import JobError
from stages.datasets.folder import proposed_splits

TEMPLATE = """\
# A fieldmark job. Run it with:  fieldmark run {file}
# Paths are relative to this file. Whatever is left out has a sound default.

name: {name}        # results are shown under it; all that is computed lies in runs/NAME beside this file

dataset:
  path: {path}                      # a sub-folder a class, or a flat folder without labels
{splits}{classes}
model: {{name: ViT-B-16, weights: openai}}   # any open_clip name and tag, hf-hub:OWNER/NAME, or a local weights file

{descriptors}
# Named sets of views. A method that names none takes the one of the kind it was made for.
# guides:
#   dino: {{kind: dino, name: vit_base_patch16_224.dino}}
# views:
#   random: {{kind: random, crops: 9, min_area: 0.10, max_area: 0.75}}
#   guided: {{kind: guided, guide: dino, crops: 60, min_side: 0.5, max_side: 0.9}}

{methods}"""

OF_NAMES = """\
# Sets of descriptors: what the methods are told of each class. This one knows the names alone, "a photo of a wren.",
# and needs neither key nor file. Words for what a class looks like tell more classes apart:
descriptors:
  names: {provider: names}
#  marks: {provider: openai, model: gpt-4o-mini}          # a language model; the key is in OPENAI_API_KEY
#  marks: {provider: openai, model: NAME, base_url: "http://localhost:8000/v1"}   # any server of that protocol
#  sentences: {provider: file, path: descriptors.json}    # {class name: [sentence, ...]}, or a table
# With one of the others in its place take out `methods` below as well.
"""

FOR_NAMES = """\
methods: [clip, clip_e, waffle, crops_mean, dnd, abs]    # those that names are enough for; default: all but wca
"""

FOR_DESCRIPTORS = """\
# methods: [clip, cupl, dnd, abs]    # default: every method but wca
"""


def write_job_file(folder: Path, classes: Path | None, descriptors: Path | None = None) -> Path:
    """Write `job.yaml` into a folder of images. Raises JobError for a missing folder or when the file is there."""
    if not folder.is_dir():
        raise JobError(f"no folder {folder}")
    out = folder / "job.yaml"
    if out.exists():
        raise JobError(f"{out} is there already; move it away to have a new one written")
    if classes is not None and not classes.is_file():
        raise JobError(f"--classes: no file {classes}")
    if descriptors is not None and not descriptors.exists():  # a LanceDB table is a folder
        raise JobError(f"--descriptors: no file {descriptors}")
    out.write_text(
        TEMPLATE.format(
            file=out,
            name=_quoted(_plain_name(folder.resolve().name)),
            path=".",
            splits=_splits(folder),
            classes="" if classes is None else f"  classes: {_relative(classes, folder)}\n",
            descriptors=_descriptors(descriptors, folder),
            methods=FOR_NAMES if descriptors is None else FOR_DESCRIPTORS,
        ),
        encoding="utf-8",
    )
    return out


def _plain_name(folder: str) -> str:
    """A folder's name as a job's: letters, digits, `_`, `.` and `-`, so that it names a folder too."""
    return re.sub(r"[^\w.-]+", "-", folder).strip("-.") or "job"


def _splits(folder: Path) -> str:
    found = ", ".join(f"{split}: {name}" for split, name in proposed_splits(folder).items())
    return f"  splits: {{{found}}}\n" if found else ""


def _descriptors(path: Path | None, folder: Path) -> str:
    return (
        OF_NAMES
        if path is None
        else f"descriptors:\n  sentences: {{provider: file, path: {_relative(path, folder)}}}\n"
    )


def _relative(path: Path, folder: Path) -> str:
    """The path as the job file says it, in quotes: names may hold what YAML reads as its own signs."""
    path, folder = path.resolve(), folder.resolve()
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    return _quoted(str(shown))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
