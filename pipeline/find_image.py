"""Which image of a job a person means: by its id, by how its id ends, or by the path of its file."""

from __future__ import annotations

import difflib
import os
import posixpath
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job_error import JobError

LOOKED_AT = 4_000
"""Ids among which near ones are looked for: those that would stand beside what was given."""


def find_image(manifest: pa.Table, given: str, predict: str) -> dict[str, Any]:
    """The manifest's row of the image that is meant: key, id, version, uri, split, class.

    `given` is an id, the whole last components of one (`wren/3.jpg`), or the path of the image's file. Raises JobError
    where several ids end so, and where none does: with near ids, or for a picture outside the job with `predict`, the
    command that is for such.
    """
    try:
        given.encode()
    except UnicodeEncodeError:
        raise JobError(f"{given!r} is not UTF-8, as ids are") from None
    place = posixpath.normpath(given)
    for column, value in (("id", given), ("id", place), ("uri", os.path.abspath(given))):
        found = manifest.filter(pc.equal(manifest[column], value))
        if len(found) == 1:
            return found.to_pylist()[0]
    found = manifest.filter(pc.ends_with(manifest["id"], "/" + place.lstrip("/")))
    if not len(found):
        found = _by_path(manifest, given)
    if len(found) == 1:
        return found.to_pylist()[0]
    if len(found):
        ids = found["id"].slice(0, 5).to_pylist()
        more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
        raise JobError(f"{given}: {len(found):,} images end so: {', '.join(ids)}{more}; say which one")
    if Path(given).is_file():
        raise JobError(f"{given}: this file is not in the job; what is predicted for it: {predict}")
    near = near_ids(manifest["id"].to_pylist(), place)
    hint = f"did you mean {' or '.join(near)}?" if near else f"ids look like {manifest['id'][0].as_py()}"
    raise JobError(f"{given}: no image of the job has this id, nor one that ends so; {hint}")


def near_ids(ids: Sequence[str], given: str) -> list[str]:
    """Up to three of the sorted `ids` that resemble `given` most, in as many last components as it has."""
    if len(ids) > LOOKED_AT:
        middle = bisect(ids, given)
        ids = ids[max(0, middle - LOOKED_AT // 2) : middle + LOOKED_AT // 2]
    depth = given.count("/") + 1
    by_ending: dict[str, str] = {}
    for each in ids:
        by_ending.setdefault("/".join(each.split("/")[-depth:]), each)
    return [by_ending[ending] for ending in difflib.get_close_matches(given, by_ending, n=3)]


def _by_path(manifest: pa.Table, given: str) -> pa.Table:
    """The image whose whole id ends this path, unless the path leads to another file."""
    parts = Path(given).parts
    endings = ["/".join(parts[start:]) for start in range(1, len(parts))]
    found = manifest.filter(pc.is_in(manifest["id"], value_set=pa.array(endings, pa.string())))
    other = [os.path.exists(given) and not _same_file(given, uri) for uri in found["uri"].to_pylist()]
    return found.filter(pa.array([not each for each in other], pa.bool_()))


def _same_file(path: str, uri: str) -> bool:
    """Whether this is the image's own file; a member of a tar or an object has none to compare with."""
    return not os.path.exists(uri) or os.path.samefile(path, uri)
