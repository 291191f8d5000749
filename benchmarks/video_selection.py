"""Selection from a video alone: 32 frames of 196 tokens of a 7B model's width, one token in ten kept.

The video is made of shots of a still background with something that moves (tests/support/golden_video.py). Methods run
in turns; each gets one call to warm its caches up, and the median of the next ones counts. Beside them stand what no
choice that looks at the features can go below, one reading of them, and what the machine's matrix products reach.
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
from vlm_pruner.profiling.timing import interleave, median
from vlm_pruner.types import VisionSignals, VisualTokens

WIDTH, HEADS, SQUARE = 3584, 4, 2048
GRID, QUICK = (32, 14, 14), (8, 14, 14)
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


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    report = Report("video_selection", options, device)
    grid, width = (QUICK, 256) if options.quick else (GRID, WIDTH)
    given = tokens(grid, width, device)
    n = len(given)
    keep = n // 10
    a, b = (torch.randn(SQUARE, SQUARE, device=device) for _ in range(2))
    runs: dict[str, Callable[[], Any]] = {
        "one reading of the features": lambda: given.features.sum(),
        f"torch.mm of {SQUARE}": lambda: torch.mm(a, b),
        **{name: lambda name=name: create(name).select(given, keep) for name in [*VIDEO, "vlm-pruner"]},  # type: ignore[misc]
    }
    for name in [*VIDEO, "vlm-pruner"]:
        report.check(len(runs[name]().validate(n, keep)) == keep, f"{name} does not keep {keep} tokens")
    samples = interleave({name: lambda run=run: timed(run, device) for name, run in runs.items()}, options.repeats)  # type: ignore[misc]
    reading = samples["one reading of the features"]
    for name, values in samples.items():
        ratio = median([value / limit for value, limit in zip(values, reading, strict=True)])
        extra: dict[str, Any] = {"keep": keep} if name in [*VIDEO, "vlm-pruner"] else {}
        if name.startswith("torch.mm"):
            extra["note"] = f"{2 * SQUARE**3 / median(values) / 1e6:.0f} GFLOP/s"
        report.row(name, values, times_reading=ratio, **extra)
    report.finish()


if __name__ == "__main__":
    main(arguments(__doc__ or "", repeats=9).parse_args())
