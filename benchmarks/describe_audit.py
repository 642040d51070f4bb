"""How long an audit of stored features takes, and how its memory grows with the number of images.

A store of made-up features is written as `encode_images` and `encode_text` leave theirs; a process of its own judges
all descriptors and chooses what to drop, by the code that `fieldmark audit` calls: 1,000 classes x 50 descriptors on
10,000 images of nine crops, d = 512. `audit_seconds` is that, libraries loaded and kernels compiled beforehand;
`audit_rss_growth` is how much further its memory rises above these than with 5,000 images, as a share.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.encode import tell

if TYPE_CHECKING:
    from stages.stage import Table

IMAGES_A_SHARD = 64


class Size(NamedTuple):
    """Of a store; images are spread evenly over classes."""

    classes: int = 1_000
    descriptors: int = 50
    images: int = 10_000
    crops: int = 9
    d: int = 512


WHOLE = Size()


def audit_figures(size: Size = WHOLE) -> dict[str, float]:
    """`audit_seconds` at this size, and `audit_rss_growth`: memory over that with half the images, less 1."""
    found = {}
    for images in (size.images // 2, size.images):
        with tempfile.TemporaryDirectory(prefix="fieldmark-audit-") as folder:
            tell(f"features of {images:,} images x {size.crops} crops, {size.classes:,} classes")
            found[images] = _in_a_process(Path(folder), size._replace(images=images))
        tell(f"{images:,} images: {found[images]}")
    half, whole = (found[images] for images in (size.images // 2, size.images))
    return {
        "audit_seconds": round(whole["seconds"], 2),
        "audit_rss_growth": round(whole["bytes"] / half["bytes"] - 1, 4),
    }


def write_store(folder: Path, size: Size) -> None:
    """Shards of whole images, of crops and of texts: a class has a centre, images and descriptors are around theirs."""
    from stages.encode_text import text_key
    from storage.schemas import fixed_list

    centres, texts = _unit(np.random.default_rng(0).normal(size=(size.classes, size.d))), _prompts(size)
    whole, view, encoded = (_table(folder, name, size).keeper for name in ("whole", "view", "texts"))
    for number, (said, centre) in enumerate(zip(texts.values(), centres, strict=True)):
        vectors = _around(centre[None], np.random.default_rng(number), 0.5, size.descriptors)
        rows = {"key": [text_key(text) for text in said], "vector": fixed_list(vectors.astype(np.float32))}
        rows["logit_scale"] = pa.array([100.0] * len(said), pa.float32())
        encoded.append(pa.table(rows), "benchmark")
    for images in _shards(size):
        random = np.random.default_rng(len(images) + int(images["number"][0].as_py()))
        own = _around(centres[images["number"].to_numpy() % size.classes], random, 0.5)
        crops = _around(own, random, 0.8, size.crops).reshape(len(images), size.crops, size.d)
        for keeper, vectors in ((whole, own[:, None]), (view, crops)):
            rows = {"key": images["key"], "vectors": fixed_list(vectors.astype(np.float16))}
            rows["norms"] = fixed_list(np.ones(vectors.shape[:2], np.float32))
            keeper.append(pa.table(rows), "benchmark")


def audit_store(folder: Path, size: Size) -> dict[str, float]:
    """Seconds of an audit, and how many bytes this process's memory rises meanwhile, mapped shards included."""
    from stages.audit import describe_classes, filter_descriptors, gather_judged, judge_descriptors

    images = pa.concat_tables(_shards(size)).select(["key", "class"])
    prompts = _prompts(size)
    classes, whole = list(prompts), str(folder / "whole")
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again
    start = time.perf_counter()
    described = describe_classes(prompts, str(folder / "texts"))
    figures = judge_descriptors(described, classes, images, whole, _table(folder, "view", size))
    judged = gather_judged(figures, described, [[""] * size.descriptors] * size.classes)
    kept, accuracy = filter_descriptors(described, judged, classes, images, whole)
    seconds = time.perf_counter() - start
    tell(f"right {accuracy:.3f}, {int((~kept).sum()):,} descriptors dropped")
    return {"seconds": seconds, "bytes": _resident("VmHWM") - before}


def _in_a_process(folder: Path, size: Size) -> dict[str, float]:
    write_store(folder, size)
    command = [sys.executable, "-m", "benchmarks.describe_audit", str(folder), json.dumps(size._asdict())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _prompts(size: Size) -> dict[str, list[str]]:
    return {f"class {c:04}": [f"mark {n} of class {c}" for n in range(size.descriptors)] for c in range(size.classes)}


def _shards(size: Size) -> Iterator[pa.Table]:
    """Number, key and class of the images, as many as a shard has at a time."""
    names = [f"class {c:04}" for c in range(size.classes)]
    for start in range(0, size.images, IMAGES_A_SHARD):
        numbers = range(start, min(start + IMAGES_A_SHARD, size.images))
        keys = [f"images/{number:07}.jpg@100000-1700000000" for number in numbers]
        rows = {"number": list(numbers), "key": keys, "class": [names[number % size.classes] for number in numbers]}
        yield pa.table(rows)


def _table(folder: Path, name: str, size: Size) -> Table:
    from stages.settings import RandomView
    from stages.stage import Ingredients, Table
    from storage.shards import ShardTable

    plan = (RandomView(crops=size.crops), 0)
    return Table(name, name, Ingredients({}, 1), [], ShardTable(str(folder / name)), plan)


def _around(centres: np.ndarray, random: np.random.Generator, share: float, count: int = 1) -> np.ndarray:
    """Unit vectors [n x count, d] with a cosine of about `share` to each of the centres [n, d]."""
    noise = _unit(random.normal(size=(len(centres) * count, centres.shape[1])))
    return _unit(share * np.repeat(centres, count, axis=0) + (1 - share**2) ** 0.5 * noise)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _resident(which: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024


def _main() -> dict[str, Any]:
    folder, size = Path(sys.argv[1]), Size(**json.loads(sys.argv[2]))
    with tempfile.TemporaryDirectory(prefix="fieldmark-audit-") as small:  # libraries and kernels are loaded by this
        warm = Size(classes=2, descriptors=3, images=12, crops=2, d=16)
        write_store(Path(small), warm)
        audit_store(Path(small), warm)
    return audit_store(folder, size)


if __name__ == "__main__":
    print(json.dumps(_main()))
