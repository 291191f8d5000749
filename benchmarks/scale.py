"""How time and memory of selection grow from 1,024 to 131,072 tokens at a fixed budget.

Tokens are random rows on a raster, keys included. Memory is the most bytes of tensors alive at once beyond the inputs,
from the allocator's own record; one call measures it, others the time.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from benchmarks.common import Report, arguments, prepare

from vlm_pruner.engine.clock import elapsed_ms, mark
from vlm_pruner.methods import create
from vlm_pruner.profiling.timing import interleave, peak_bytes
from vlm_pruner.types import VisualTokens

MIB = 2**20
HEADS = 8


def tokens(n: int, width: int, device: torch.device) -> VisualTokens:
    """n random tokens on a raster of 64 columns, with a shared direction as real features have it."""
    generator = torch.Generator(device).manual_seed(n)

    def rows() -> torch.Tensor:
        x = torch.randn(n, width, device=device, generator=generator)
        return x.add_(torch.randn(width, device=device, generator=generator), alpha=0.7)

    keys = rows().view(n, HEADS, width // HEADS).transpose(0, 1).contiguous()
    return VisualTokens(features=rows(), keys=keys, grid=(1, n // 64, 64), layer=2)


def measure(method: Any, given: VisualTokens, keep: int, device: torch.device) -> float:
    """Milliseconds of one selection."""
    start = mark(device)
    method.select(given, keep)
    return elapsed_ms(start, mark(device))


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    report = Report("scale", options, device)
    method = create(options.method)
    sizes = [1 << e for e in (range(10, 13) if options.quick else range(10, 18))]
    least: dict[int, float] = {}
    for n in sizes:
        given = tokens(n, options.width, device)
        peak = peak_bytes(lambda: method.select(given, options.keep), device)  # noqa: B023
        work = {"select": lambda: measure(method, given, options.keep, device)}  # noqa: B023
        samples = interleave(work, options.repeats)["select"]
        row = report.row(f"n {n}", samples, keep=options.keep, width=options.width, extra_MiB=peak / MIB)
        row["extra_bytes_per_token"] = peak / n
        report.check(len(method.select(given, options.keep)) == options.keep, f"n {n}: wrong number of tokens")
        least[n] = row["median_ms"]
    first = 8192 if 8192 in least else sizes[0]
    exponent = math.log(least[sizes[-1]] / least[first]) / math.log(sizes[-1] / first)
    report.aim(f"exponent of time in n from {first} to {sizes[-1]}", exponent, 1.1)
    report.finish()


if __name__ == "__main__":
    parser = arguments(__doc__ or "", repeats=5)
    parser.add_argument("--method", default="vlm-pruner")
    parser.add_argument("--keep", type=int, default=64)
    parser.add_argument("--width", type=int, default=1024)
    main(parser.parse_args())
