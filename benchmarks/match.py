"""python -m benchmarks.match: how fast the matching kernels are, and how exact.

Prints one JSON document on standard output; what it is doing goes to standard error. Ratios are of two sides that took
turns: the median of the turns, with the range beside it under `ranges`. Everything is float32 on all cores.

`sinkhorn`: POT's seconds over ours for the plans of problems in memory, twenty iterations each, the worse of 1,000 and
10,000 problems. `vs_pot_batch`: the quicker of `ot.batch.solve_batch` over all at once and in chunks of 128 (it sums up
costs and entropies too, in a few hundredths of its time); `vs_pot_plain`: the same by its iteration without logarithms;
`vs_loop`: `ot.sinkhorn` on one problem after the other; `plan_error`: against float64 on logarithms, relative to a
plan's largest entry.

`soft_matching`: one image of 120 crops, 1,000 classes of 50 descriptions, d = 512. `vs_product`: our seconds over those
of the similarities alone, by blocks (`mm(out=)`, the best of a few sizes). `memory_ratio`: what resident memory peaks
at beyond inputs and result, each in a process of its own, over the same of the dense formula. `relative_error`: against
the dense formula in float64, relative to the sum of |p s|, for cosines near 0, 1 and -1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.encode import tell
from stages.matching.sinkhorn import sinkhorn_plan
from stages.matching.soft import soft_match

SIZES = {"9x9": (9, 9), "60x50": (60, 50)}
PROBLEMS = (1_000, 10_000)
EPSILON, ITERATIONS, CHUNK, LOOP = 0.1, 20, 128, 200
CROPS, CLASSES, TEXTS, DIM, TEMPERATURE = 120, 1_000, 50, 512, 0.03
TURNS, FEW_TURNS, MANY_ENTRIES = 3, 2, 10_000_000
SECONDS_A_TURN = 0.2


def main() -> None:
    """Measure what the command line asks for, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["sinkhorn", "soft", "scoring"], help="one group of figures")
    parser.add_argument("--full", action="store_true", help="scoring over 50,000 images instead of 500")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"cores": os.cpu_count(), "ranges": {}}
    if arguments.only in (None, "sinkhorn"):
        figures["sinkhorn"] = sinkhorn(figures["ranges"])
    if arguments.only in (None, "soft"):
        figures["soft_matching"] = soft(figures["ranges"])
    if arguments.only in (None, "scoring"):
        from benchmarks.scoring import scoring

        scored = scoring(arguments.full)
        figures["ranges"] |= scored.pop("ranges", {})
        figures |= scored
    print(json.dumps(figures, indent=1))


def sinkhorn(
    ranges: dict[str, Any],
    sizes: Mapping[str, tuple[int, int]] = SIZES,
    problems: Sequence[int] = PROBLEMS,
    turns: int = TURNS,
) -> dict[str, dict[str, float]]:
    """Figures by size of problem; ranges go into `ranges` as [lowest, highest]."""
    figures: dict[str, dict[str, float]] = {}
    for name, (rows, columns) in sizes.items():
        figures[name] = {}
        _against_pot(*_problems(CHUNK, rows, columns), turns=1)  # loads, compiles, starts threads
        for count in problems:
            cost, a, b = _problems(count, rows, columns)
            taken = min(turns, FEW_TURNS) if cost.numel() > MANY_ENTRIES else turns
            for figure, ratios in _against_pot(cost, a, b, taken).items():
                tell(f"sinkhorn {name}, {count} problems: {figure} {statistics.median(ratios):.1f}")
                if statistics.median(ratios) < figures[name].get(figure, float("inf")):
                    _note(figures[name], ranges, figure, f"sinkhorn {name} {figure}", ratios)
        figures[name]["plan_error"] = _plan_error(*_problems(min(problems), rows, columns))
    return figures


def _problems(count: int, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    # Cosines of CLIP spread by about .05.
    cost = 0.75 + 0.05 * torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(count))
    return cost, torch.full((count, rows), 1 / rows), torch.full((count, columns), 1 / columns)


def _against_pot(cost: Tensor, a: Tensor, b: Tensor, turns: int) -> dict[str, list[float]]:
    """Turn by turn, POT's seconds over ours."""
    import ot

    whole, few = len(cost), min(LOOP, len(cost))
    pairs = [(a[k].numpy(), b[k].numpy(), cost[k].numpy()) for k in range(few)]

    def ours() -> None:
        sinkhorn_plan(cost, a, b, epsilon=EPSILON, iterations=ITERATIONS)

    def loop() -> None:
        for pair in pairs:
            ot.sinkhorn(*pair, reg=EPSILON, numItermax=ITERATIONS, stopThr=0, warn=False)

    sides: dict[str, Callable[[], Any]] = {"ours": ours, "vs_loop": loop}
    for figure, method in (("vs_pot_batch", "log_sinkhorn"), ("vs_pot_plain", "sinkhorn")):
        for size in {whole, min(CHUNK, whole)}:
            sides[f"{figure} {size}"] = lambda size=size, method=method: _pot(cost, a, b, size, method)
    found: dict[str, list[float]] = {"vs_pot_batch": [], "vs_pot_plain": [], "vs_loop": []}
    for _ in range(turns):
        seconds = {side: seconds_of(call) for side, call in sides.items()}
        for figure in ("vs_pot_batch", "vs_pot_plain"):
            best = min(value for side, value in seconds.items() if side.startswith(figure))
            found[figure].append(best / seconds["ours"])
        found["vs_loop"].append(seconds["vs_loop"] / few * whole / seconds["ours"])
    return found


def _pot(cost: Tensor, a: Tensor, b: Tensor, chunk: int, method: str) -> Tensor:
    from ot.batch import solve_batch

    settings = {"max_iter": ITERATIONS, "tol": 0.0, "method": method, "grad": "detach"}
    parts = [slice(start, start + chunk) for start in range(0, len(cost), chunk)]
    return torch.cat([solve_batch(cost[p], EPSILON, a[p], b[p], **settings).plan for p in parts])


def _plan_error(cost: Tensor, a: Tensor, b: Tensor) -> float:
    plan = sinkhorn_plan(cost, a, b, epsilon=EPSILON, iterations=ITERATIONS)
    rows, columns = (torch.full(side.shape, 1 / side.shape[1], dtype=torch.float64) for side in (a, b))
    exact = _pot(cost.double(), rows, columns, len(cost), "log_sinkhorn")
    return float(f"{((plan - exact).abs().amax((1, 2)) / exact.amax((1, 2))).max():.2g}")


def soft(ranges: dict[str, Any], classes: int = CLASSES, turns: int = TURNS) -> dict[str, float]:
    """Figures of soft matching; ranges go into `ranges` as [lowest, highest]."""
    figures: dict[str, float] = {}
    features, texts, mask = _matches(classes)
    out = torch.empty(CROPS * classes * TEXTS)
    rows, columns = features.flatten(0, 1), texts.flatten(0, 1)

    def product(block: int) -> None:
        for start in range(0, classes * TEXTS, block):
            some = columns[start : start + block]
            torch.mm(rows, some.T, out=out[: CROPS * len(some)].view(CROPS, -1))

    blocks = [count * TEXTS for count in (10, 20, 50, 200)]
    soft_match(features, texts, mask)  # loads, compiles, starts threads
    seconds = {block: min(seconds_of(lambda block=block: product(block)) for _ in range(2)) for block in blocks}
    best = min(seconds, key=seconds.get)
    ratios = []
    for _ in range(turns):
        ours = seconds_of(lambda: soft_match(features, texts, mask, temperature=TEMPERATURE))
        ratios.append(ours / seconds_of(lambda: product(best)))
    tell(f"soft matching: {statistics.median(ratios):.3f} times its product in blocks of {best} columns")
    _note(figures, ranges, "vs_product", "soft_matching vs_product", ratios)
    peaks = {way: peak_bytes(way, classes) for way in ("ours", "dense")}
    tell(f"soft matching: peak memory {peaks['ours'] / 1e6:.1f} MB, dense {peaks['dense'] / 1e6:.1f} MB")
    figures["memory_ratio"] = round(peaks["ours"] / peaks["dense"], 4)
    errors = [_relative_error(*_matches(classes, towards)) for towards in (0.0, 4.0, -4.0)]
    figures["relative_error"] = float(f"{max(errors):.2g}")
    return figures


def _matches(classes: int, towards: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, texts and mask; `towards` 4 draws cosines near 1, -4 near -1."""
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(1, CROPS, DIM, generator=draw).add_(towards)
    texts = torch.randn(classes, TEXTS, DIM, generator=draw).add_(abs(towards))
    for rows in (features, texts):
        rows /= rows.norm(dim=-1, keepdim=True)
    return features, texts, torch.ones(classes, TEXTS, dtype=torch.bool)


def _dense(features: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """The formula as it is printed, all similarities in memory; and p s [B x F, C, M]."""
    s = features.flatten(0, 1) @ texts.flatten(0, 1).T
    s /= TEMPERATURE
    shares = s.softmax(dim=1)
    shares *= s
    shares = shares.view(-1, *texts.shape[:2])
    return shares.sum(dim=(0, 2)), shares


def _relative_error(features: Tensor, texts: Tensor, mask: Tensor) -> float:
    logits = soft_match(features, texts, mask, temperature=TEMPERATURE)[0]
    exact, shares = _dense(features.double(), texts.double())
    return float((logits - exact).abs().max() / shares.abs_().sum())


def peak_bytes(way: str, classes: int = CLASSES) -> int:
    """How far resident memory rises above inputs and result while a process of its own matches `way`, ours or dense.

    Libraries, compiled code and threads are there before: a match of one class comes first.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_match_once, args=(theirs, way, classes))
    child.start()
    theirs.close()
    found = ours.recv()
    child.join()
    return found


def _match_once(pipe: Any, way: str, classes: int) -> None:
    features, texts, mask = _matches(classes)

    def match(count: int) -> Tensor:
        if way == "dense":
            return _dense(features, texts[:count])[0]
        return soft_match(features, texts[:count], mask[:count], temperature=TEMPERATURE)

    match(8)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again
    result = match(classes)
    pipe.send(max(_resident("VmHWM") - before - result.nbytes, 0))


def _resident(which: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024


def seconds_of(call: Callable[[], Any]) -> float:
    """Seconds a call, over as many as fill a turn."""
    calls, start = 0, time.perf_counter()
    while not calls or time.perf_counter() - start < SECONDS_A_TURN:
        call()
        calls += 1
    return (time.perf_counter() - start) / calls


def _note(figures: dict[str, float], ranges: dict[str, Any], name: str, label: str, values: list[float]) -> None:
    figures[name] = round(statistics.median(values), 4)
    ranges[label] = [round(min(values), 4), round(max(values), 4)]


if __name__ == "__main__":
    main()
