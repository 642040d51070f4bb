"""python -m benchmarks.query: how quickly a feature store answers, and how quickly caches adapt.

Prints one JSON document on standard output; what it is doing goes to standard error.

A table `cache` of 1,000 classes x 16 shots x 9 descriptions, d = 512, is projected from shards by a process of its own:
`build_seconds`, and `build_peak_mb`, how far its memory rises above libraries, mapped shards included; `index_seconds`,
merging files and building the index. Features are clustered: a class has a centre, its images theirs, their crops are
around these. Then 200 queries, one after another, ten rows each, medians: `exact_p50_ms` compares every row,
`indexed_p50_ms` asks the index. `recall_at_10`: the share of the exact ten that the index finds, for queries like
crops; `recall_at_10_far`: for queries far from every crop, as texts are (cosines of about .3, best first by little).

`tda_speedup`, `search_speedup`: those of `benchmarks.adaptation`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.encode import tell

if TYPE_CHECKING:
    from stages.projected.projected import Sources

QUERIES, K = 200, 10
IMAGES_A_SHARD = 64


class Size(NamedTuple):
    """Of a cache; an image has as many crops as its class has descriptions."""

    classes: int = 1_000
    shots: int = 16
    descriptions: int = 9
    d: int = 512


WHOLE = Size()


def main() -> None:
    """Measure what the command line asks for, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["store", "adaptation"], help="one group of figures")
    parser.add_argument("--folder", type=Path, help="where the store lies (default: a temporary folder)")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    if arguments.only in (None, "store"):
        with tempfile.TemporaryDirectory(prefix="fieldmark-query-") as temporary:
            figures |= store(arguments.folder or Path(temporary))
    if arguments.only in (None, "adaptation"):
        from benchmarks.adaptation import search_speedup, tda_speedup

        for measure in (tda_speedup, search_speedup):
            figures[measure.__name__] = round(measure(), 1)
            tell(f"{measure.__name__}: {figures[measure.__name__]}")
    print(json.dumps(figures, indent=1))


def store(folder: Path, size: Size = WHOLE) -> dict[str, float]:
    """The figures of building a cache, in a process of its own, and of searching it."""
    tell(f"shards of {size.classes * size.shots:,} images x {size.descriptions} crops, d = {size.d}")
    write_shards(folder, size)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        figures = pool.apply(build, (folder, size))
    tell(f"projected: {figures}")
    return figures | answers(folder, size)


def answers(folder: Path, size: Size, queries: int = QUERIES) -> dict[str, float]:
    """Latencies in milliseconds and recalls of searches in a cache that is built."""
    from storage.lance import Projection

    database = Projection(str(folder / "lance"))
    near, far = _queries(size, queries, share=0.8), _queries(size, queries, share=0.3)
    exact, seconds = _search(database, near, exact=True)
    figures = {"exact_p50_ms": round(1000 * statistics.median(seconds), 2)}
    found, seconds = _search(database, near)
    figures["indexed_p50_ms"] = round(1000 * statistics.median(seconds), 2)
    figures["recall_at_10"] = _recall(found, exact)
    figures["recall_at_10_far"] = _recall(_search(database, far)[0], _search(database, far, exact=True)[0])
    return figures


def write_shards(folder: Path, size: Size) -> None:
    """Shards as encode_images and build_caches leave them: crops of every image, and which of them were chosen."""
    from storage.schemas import fixed_list

    (table,) = sources(folder, size).caches
    view, cache, shots, crops = table.plan.view.keeper, table.keeper, table.plan.shots, size.descriptions
    for start in range(0, len(shots), IMAGES_A_SHARD):
        part = shots.slice(start, IMAGES_A_SHARD)
        random = np.random.default_rng(start)
        classes = np.arange(start, start + len(part)) // size.shots
        vectors = _spread(_spread(_centres(size)[classes][:, None], 0.7, random), 0.7, random, crops)
        columns = {"key": part["key"], "vectors": fixed_list(vectors.astype(np.float16))}
        columns["boxes"] = fixed_list(random.integers(0, 500, (len(part), crops, 4), dtype=np.int32))
        view.append(pa.table(columns), "benchmark")
        chosen = np.tile(np.arange(crops, dtype=np.int32), (len(part), 1))
        lists = {"crops": list(chosen), "similarities": list(chosen.astype(np.float32) / crops)}
        keys = [f"{key}#{name}" for key, name in zip(part["key"].to_pylist(), part["class"].to_pylist(), strict=True)]
        cache.append(pa.table({"key": keys, **{name: pa.array(rows) for name, rows in lists.items()}}), "benchmark")


def build(folder: Path, size: Size) -> dict[str, float]:
    """Project the cache from its shards, and index it."""
    from stages.project import _bring_up_to_date, _index
    from stages.stage import Run
    from storage.lance import Projection

    run = Run("benchmark", lambda done, rejected: None, lambda: None, tell=tell)
    database, shown = Projection(str(folder / "lance")), sources(folder, size)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again
    start = time.perf_counter()
    _bring_up_to_date(database, "cache", shown, run)
    built, peak = time.perf_counter(), _resident("VmHWM")
    _index(database, "cache", "auto", run)
    return {
        "build_seconds": round(built - start, 2),
        "build_peak_mb": round((peak - before) / 1e6, 1),
        "index_seconds": round(time.perf_counter() - built, 2),
    }


def sources(folder: Path, size: Size) -> Sources:
    """What a projection of the cache alone is told."""
    from stages.projected.cache import CacheSource
    from stages.projected.projected import Sources
    from stages.settings import RandomView
    from stages.stage import Ingredients, Table
    from storage.schemas import fixed_list
    from storage.shards import ShardTable

    def table(name: str, wanted: Sequence[str], plan: Any = None) -> Table:
        return Table(name, name, Ingredients({}, 1), wanted, ShardTable(str(folder / name)), plan)

    names = [f"class {number:04}" for number in range(size.classes)]
    prompts = {name: [f"mark {number} of {name}" for number in range(size.descriptions)] for name in names}
    ids = [f"{name}/image {shot:03}.jpg" for name in names for shot in range(size.shots)]
    shots = {"key": [f"{one}@100000-1700000000" for one in ids], "id": ids, "class": np.repeat(names, size.shots)}
    shots["shot"] = pa.array(np.tile(np.arange(size.shots, dtype=np.int32), size.classes))
    shots["seed"] = pa.repeat(pa.scalar(0, pa.int32()), len(ids))
    texts = table("texts", ["text"])
    if not texts.keeper.rows():
        vector = fixed_list(np.ones((1, size.d), np.float32))
        texts.keeper.append(pa.table({"key": ["text"], "vector": vector}), "benchmark")
    view = table("view", shots["key"], (RandomView(crops=size.descriptions), 0))
    source = CacheSource(view, "random", "marks", prompts, pa.table(shots), texts="", crops=size.descriptions)
    return Sources(view, {}, texts, [table("cache", [], source)], [], pa.table({}), {})


def _centres(size: Size) -> np.ndarray:
    return _unit(np.random.default_rng(0).normal(size=(size.classes, size.d)))


def _spread(centres: np.ndarray, share: float, random: np.random.Generator, count: int = 1) -> np.ndarray:
    """Unit vectors around [..., n, d] centres, `count` for each, with a cosine of about `share` to it."""
    shape = (*centres.shape[:-2], centres.shape[-2] * count, centres.shape[-1])
    noise = _unit(random.normal(size=shape))
    return _unit(share * np.repeat(centres, count, axis=-2) + (1 - share**2) ** 0.5 * noise)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _queries(size: Size, count: int, share: float) -> np.ndarray:
    random = np.random.default_rng(1)
    return _spread(_centres(size)[random.integers(0, size.classes, count)], share, random)


def _search(database: Any, queries: np.ndarray, **how: bool) -> tuple[list[set[str]], list[float]]:
    """What each query finds, and its seconds."""
    database.search("cache", queries[0], k=K, **how)
    found, seconds = [], []
    for query in queries:
        start = time.perf_counter()
        hits = database.search("cache", query, k=K, **how)
        seconds.append(time.perf_counter() - start)
        found.append({hit["id"] for hit in hits})
    return found, seconds


def _recall(found: Sequence[set[str]], exact: Sequence[set[str]]) -> float:
    return round(statistics.mean(len(one & other) / K for one, other in zip(found, exact, strict=True)), 4)


def _resident(which: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
