"""Selection from a video alone: 32 frames of 196 tokens of a 7B model's width, one token in ten kept.

    python -m benchmarks.video_selection [--methods vlm-pruner v-cast]            writes results/video_selection.json

The video is made of shots of a still background with something that moves (tests/support/golden_video.py). Methods run
in turns; each gets one call to warm its caches up, and the median of the next ones counts. VLM-Pruner's limit is what
its products take at the rate of this machine's own matrix products, and one reading of features and keys, in the same
turn: of every kept token with every token that is not kept yet in the channels that it compares, and of every pivot
with every key. Nothing forbids to be faster, since not every product need be computed; but features are read three
times, as no cache holds them: for the variances, for the channels that stay, and for the merged rows. The steps of
VLM-Pruner are measured, too, each by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.common import Report, arguments, prepare
from tests.support.golden_video import scene_cuts

from vlm_pruner.engine.clock import elapsed_ms, mark
from vlm_pruner.methods import create, registry
from vlm_pruner.methods.vlm_pruner import VLMPruner, geometry
from vlm_pruner.ops import GrowthRule, farthest_points, grow, merge, screen
from vlm_pruner.profiling.timing import interleave, median
from vlm_pruner.types import VisionSignals, VisualTokens

WIDTH, HEADS, SQUARE = 3584, 4, 2048
GRID, QUICK = (32, 14, 14), (8, 14, 14)
READING, PRODUCTS = "one reading of features and keys", f"torch.mm of {SQUARE}"
OURS, LIMIT = "vlm-pruner", "VLM-Pruner's limit"
VIDEO = [name for name in registry() if "Video" in vars(sys.modules[registry()[name].__module__])]


def tokens(grid: tuple[int, int, int], width: int, device: torch.device) -> VisualTokens:
    """One video in float32 with what the compared methods read."""
    rng = np.random.default_rng(0)
    features, seen = scene_cuts(rng, *grid, width)
    keys = rng.standard_normal((HEADS, seen.size, 128)) + 0.5 * seen.reshape(-1, 1)
    score = torch.from_numpy(1.2 * rng.standard_normal(seen.shape) + 1.5 * seen)
    return VisualTokens(
        features=torch.from_numpy(features.reshape(-1, width)).float().to(device),
        keys=torch.from_numpy(keys).float().to(device),
        grid=grid,
        vision=VisionSignals(attention=score.softmax(1).flatten()[None].float().to(device)),
        layer=2,
    )


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds of one call."""
    start = mark(device)
    work()
    return elapsed_ms(start, mark(device))


def products(given: VisualTokens, keep: int, method: VLMPruner) -> int:
    """Floating point operations of VLM-Pruner's comparisons."""
    assert given.keys is not None
    heads, n, depth = given.keys.shape
    pairs = keep * n - keep * (keep + 1) // 2
    return 2 * pairs * min(method.channels, given.features.shape[1]) + 2 * method.pivots * heads * n * depth


def steps(given: VisualTokens, keep: int, method: VLMPruner) -> dict[str, Callable[[], Any]]:
    """VLM-Pruner's steps, each by itself."""
    assert given.keys is not None
    keys, features, chosen = [given.keys], [given.features], method.select(given, keep)
    pivots, unit = farthest_points(keys, method.pivots), screen(features, method.channels)
    place, diagonal = (part[None] for part in geometry(given, method.temporal_scale))
    owners = grow(unit, place, diagonal, pivots, keep, GrowthRule())
    assert chosen.source is not None
    index, source = chosen.index[None], chosen.source[None]
    return {
        "pivots": lambda: farthest_points(keys, method.pivots),
        "screening": lambda: screen(features, method.channels),
        "growth": lambda: grow(unit, place, diagonal, pivots, keep, GrowthRule()),
        "aggregation": lambda: merge(features, index, source, owners.similarity, method.self_weight),
    }


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    report = Report("video_selection", options, device)
    grid, width = (QUICK, 256) if options.quick else (GRID, WIDTH)
    given = tokens(grid, width, device)
    n = len(given)
    keep = n // 10
    a, b = (torch.randn(SQUARE, SQUARE, device=device) for _ in range(2))
    methods = options.methods or [*VIDEO, OURS]
    runs: dict[str, Callable[[], Any]] = {
        READING: lambda: (given.features.sum(), given.keys.sum()),  # type: ignore[union-attr]
        PRODUCTS: lambda: torch.mm(a, b),
        **{name: lambda name=name: create(name).select(given, keep) for name in methods},  # type: ignore[misc]
    }
    if OURS in methods:
        runs |= {f"{OURS}, {step}": run for step, run in steps(given, keep, VLMPruner()).items()}
    for name in methods:
        report.check(len(runs[name]().validate(n, keep)) == keep, f"{name} does not keep {keep} tokens")
    samples = interleave({name: lambda run=run: timed(run, device) for name, run in runs.items()}, options.repeats)  # type: ignore[misc]
    share = products(given, keep, VLMPruner()) / (2 * SQUARE**3)
    turns = list(zip(samples[READING], samples[PRODUCTS], strict=True))
    samples[LIMIT] = [reading + share * product for reading, product in turns]
    for name, values in samples.items():
        ratio = median([value / reading for value, (reading, _) in zip(values, turns, strict=True)])
        extra: dict[str, Any] = {"keep": keep} if name in methods else {}
        if name == PRODUCTS:
            extra["note"] = f"{2 * SQUARE**3 / median(values) / 1e6:.0f} GFLOP/s"
        report.row(name, values, times_reading=ratio, **extra)
    if OURS in methods:
        ratio = median([value / least for value, least in zip(samples[OURS], samples[LIMIT], strict=True)])
        report.aim(f"{OURS} of its limit", ratio, 1.5)
    report.finish()


if __name__ == "__main__":
    parser = arguments(__doc__ or "", repeats=9)
    parser.add_argument("--methods", nargs="+", help="all methods for videos and vlm-pruner by default")
    main(parser.parse_args())
