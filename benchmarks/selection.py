"""Selection alone, ours against the released algorithms step by step (tests/support/literal.py), both in one run.

Tokens are spatially correlated blobs (tests/support/golden.py) of a 7B model's width. Candidates of one size run in
turns; each gets one call to warm its caches up, and the median of the next ones counts. At the end other processes keep
every core busy, and selection with its own thread setting is compared with selection on all threads.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from benchmarks.common import Report, arguments, prepare
from tests.support import literal
from tests.support.golden import field

from vlm_pruner.engine.clock import elapsed_ms, mark
from vlm_pruner.methods import create
from vlm_pruner.ops import use_backend
from vlm_pruner.ops.dispatch import refusal
from vlm_pruner.profiling.timing import interleave, median
from vlm_pruner.types import Selection, VisualTokens

WIDTH, HEADS, WORDS = 4096, 32, 40
GRIDS = {576: (24, 24), 1196: (26, 46), 2880: (48, 60), 8192: (64, 128)}
LITERAL = {"vlm-pruner": 1196, "divprune": 2880, "cdpruner": 2880, "dart": 8192}  # largest size that fits and ends
NAIVE = 1196
Candidates = dict[str, Callable[[], Any]]


def tokens(n: int, device: torch.device) -> VisualTokens:
    """One image of n tokens with everything that the compared methods read, float32."""
    rng = np.random.default_rng(n)
    rows, columns = GRIDS[n]

    def image(width: int, noise: float) -> torch.Tensor:
        return torch.from_numpy(field(rng, rows, columns, width, noise=noise)).to(device)

    def text(width: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((WORDS, width)).astype(np.float32)).to(device)

    def heads(keys: torch.Tensor) -> torch.Tensor:
        return keys.view(len(keys), HEADS, -1).transpose(0, 1).contiguous()

    return VisualTokens(
        features=image(WIDTH, 0.35),
        keys=heads(image(WIDTH, 0.6)),
        grid=(1, rows, columns),
        text=text(WIDTH),
        text_keys=heads(text(WIDTH)),
        image_embeds=image(768, 0.35),
        text_embeds=text(768)[:1],
        layer=2,
    )


def released(name: str, given: VisualTokens, keep: int) -> Callable[[], Any]:
    """The literal transcription of a method's released algorithm on these tokens."""
    t: Any = given
    return {
        "vlm-pruner": lambda: literal.vlm_pruner(t.features, t.keys, t.grid[1:], keep),
        "divprune": lambda: literal.divprune(t.features, keep),
        "cdpruner": lambda: literal.cdpruner(t.features, t.image_embeds, t.text_embeds, keep),
        "dart": lambda: literal.dart(t.features, t.keys, t.text, t.text_keys, keep),
    }[name]


def candidates(given: VisualTokens, keep: int, device: torch.device) -> tuple[Candidates, dict[str, str]]:
    """What runs at this size, and why the rest does not."""
    n, found, left_out = len(given), {}, {}

    def ours(name: str, backend: str | None = None) -> Callable[[], Selection]:
        def run() -> Selection:
            with use_backend(backend):
                return create(name).select(given, keep)

        return run

    for name, most in LITERAL.items():
        found[f"{name}, ours"] = ours(name)
        if n <= most:
            found[f"{name}, released"] = released(name, given, keep)
        else:
            left_out[f"{name}, released"] = "matrices of all pairs do not fit" if name == "vlm-pruner" else "too slow"
    if n <= NAIVE:
        found["vlm-pruner, naive"] = ours("vlm-pruner", "naive")
    fast = "triton" if device.type == "cuda" else "numba"  # what ours runs on where it can
    missing = refusal("growth", fast, given.features)
    if missing is None:
        found["vlm-pruner, torch"] = ours("vlm-pruner", "torch")
    else:
        left_out[f"vlm-pruner, {fast}"] = missing
    if device.type != "cuda":
        left_out["vlm-pruner, triton"] = "not measured on a GPU"
    return found, left_out


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds: the median of the calls that fit into a fifth of a second after one that warms up, at least one."""
    work()
    samples, spent = [], 0.0
    while not samples or (spent < 200 and len(samples) < 15):
        start = mark(device)
        work()
        samples.append(elapsed_ms(start, mark(device)))
        spent += samples[-1]
    return median(samples)


def one_size(report: Report, n: int, keep: int, device: torch.device, repeats: int) -> dict[str, float]:
    """Rows and checks of one size; medians by candidate."""
    given = tokens(n, device)
    runs, left_out = candidates(given, keep, device)
    chosen = sorted(runs["vlm-pruner, ours"]().index.tolist())
    for name in ("vlm-pruner, released", "vlm-pruner, naive", "vlm-pruner, torch"):
        if name in runs:
            kept = runs[name]()
            other = sorted(kept[0] if isinstance(kept, tuple) else kept.index.tolist())
            report.check(chosen == other, f"n {n}: {name} keeps other tokens than ours")
    samples = interleave({name: lambda work=work: timed(work, device) for name, work in runs.items()}, repeats)  # type: ignore[misc]
    medians = {name: median(values) for name, values in samples.items()}
    for name, values in samples.items():
        ratios = [v / own for v, own in zip(values, samples["vlm-pruner, ours"], strict=True)]
        report.row(f"n {n}, {name}", values, keep=keep, times_ours=median(ratios))
    for name, why in left_out.items():
        report.row(f"n {n}, {name}", keep=keep, note=why)
    return medians


def batches(report: Report, device: torch.device, repeats: int) -> None:
    """Eight images in one call against one image, on a CPU also shared out over all threads."""
    images = [tokens(576, device) for _ in range(8)]
    method = create("vlm-pruner")
    work: Candidates = {
        "one image": lambda: method.select(images[0], 64),
        "8 images": lambda: method.select_batch(images, [64] * 8),
        "8 images one by one": lambda: [method.select(image, 64) for image in images],
    }
    if device.type == "cpu":
        work["8 images, all threads"] = lambda: on_all_threads(work["8 images"])
    samples = interleave({name: lambda run=run: timed(run, device) for name, run in work.items()}, repeats)  # type: ignore[misc]
    for name, values in samples.items():
        report.row(f"n 576, {name}", values, keep=64)
    for name in [name for name in work if name not in ("one image", "8 images one by one")]:
        ratio = median([a / b for a, b in zip(samples[name], samples["8 images one by one"], strict=True)])
        report.aim(f"{name} in one call, against the same one by one", ratio, 1.05)


def on_all_threads(work: Callable[[], Any]) -> Any:
    """What `work` gives where torch may use every core."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


def _burn() -> None:
    while True:
        pass


@contextmanager
def busy() -> Iterator[None]:
    """As many processes as there are cores, doing nothing as fast as they can."""
    workers = [
        multiprocessing.get_context("spawn").Process(target=_burn, daemon=True) for _ in range(os.cpu_count() or 1)
    ]
    for worker in workers:
        worker.start()
    time.sleep(2.0)
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()


def threads(report: Report, device: torch.device, repeats: int, load: str) -> None:
    """One thread of its own against all threads for every operation."""
    setting: Any = importlib.import_module("vlm_pruner.ops.threads")
    given, method, own = tokens(576, device), create("vlm-pruner"), setting._ELEMENTS

    def run(limit: int) -> float:
        setting._ELEMENTS = limit
        return timed(lambda: method.select(given, 64), device)

    work = {"own threads": lambda: run(own), "all threads": lambda: run(0)}
    samples = on_all_threads(lambda: interleave(work, repeats))
    setting._ELEMENTS = own
    for name, values in samples.items():
        report.row(f"n 576, {name}, {load}", values, keep=64)


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    report = Report("selection", options, device)
    sizes = {576: 64, 1196: 132, 2880: 320, 8192: 910}
    for n, keep in list(sizes.items())[: 1 if options.quick else None]:
        medians = one_size(report, n, keep, device, 1 if options.quick else max(3, options.repeats * 576 // n))
        if n != 576:
            continue
        ours = medians["vlm-pruner, ours"]
        report.aim(
            "n 576, keep 64: share of the released algorithm's time",
            ours / medians["vlm-pruner, released"],
            0.01 if device.type == "cpu" else 0.1,
        )
        if "vlm-pruner, torch" in medians:
            report.aim(
                "n 576, keep 64: the same on torch's operations alone",
                medians["vlm-pruner, torch"] / medians["vlm-pruner, released"],
                0.01 if device.type == "cpu" else 0.1,
            )
        for name in ("divprune", "cdpruner"):
            report.aim(f"n 576, keep 64: share of released {name}'s time", ours / medians[f"{name}, released"], 1.0)
    batches(report, device, options.repeats)
    if device.type == "cpu":
        threads(report, device, options.repeats, "idle cores")
        with busy():
            threads(report, device, options.repeats, "every core busy")
    report.finish()


if __name__ == "__main__":
    main(arguments(__doc__ or "", repeats=9).parse_args())
