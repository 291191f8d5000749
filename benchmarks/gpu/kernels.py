"""Selection on a GPU, call by call: on an idle device, in a queue, replayed from a CUDA graph, eight images at a time.

Tokens and width are those of `benchmarks.selection`, in bfloat16, as models give them, and in float32, in which the
kept set must be that of the definition. On an idle device a call takes as long as the host needs for its launches; in a
queue, as in a prefill, these are hidden behind other work; a graph has hardly any. `--device cpu` has the first row of
each alone, to show that the script runs.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from benchmarks.common import Report, arguments, prepare
from benchmarks.selection import released, tokens

from vlm_pruner.engine.clock import elapsed_ms, mark
from vlm_pruner.methods import PruningMethod, create
from vlm_pruner.ops import use_backend
from vlm_pruner.profiling.timing import median
from vlm_pruner.types import Selection, VisualTokens

SIZES = {576: (64, 0.3), 2880: (320, 1.5)}
"""Tokens -> (how many are kept, milliseconds that an image may take)."""
IMAGES = 8
SAME = 0.98  # of the kept tokens of bfloat16 inputs, whose near ties rounding may decide
Work = Callable[[], Sequence[Selection]]


def on_idle(work: Work, device: torch.device, repeats: int) -> list[float]:
    """Milliseconds of each call, which begins when everything before it has ended."""
    samples = []
    for _ in range(repeats):
        _wait(device)
        start = mark(device)
        work()
        samples.append(elapsed_ms(start, mark(device)))
    return samples


def in_a_queue(work: Work, device: torch.device, repeats: int) -> list[float]:
    """Milliseconds of each of many calls that are handed over without a pause."""
    marks = [mark(device)]
    for _ in range(repeats):
        work()
        marks.append(mark(device))
    _wait(device)
    return [elapsed_ms(a, b) for a, b in itertools.pairwise(marks)]


def recorded(work: Work) -> tuple[torch.cuda.CUDAGraph, Sequence[Selection]]:
    """A CUDA graph of one call, and the selections that a replay writes to."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        held = work()
    return graph, held


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ways(work: Work, device: torch.device, repeats: int, report: Report, name: str) -> dict[str, list[float]]:
    """Samples of every way to call `work`."""
    for _ in range(3):
        eager = work()
    found = {"idle": on_idle(work, device, repeats)}
    if device.type != "cuda":
        return found
    found["queue"] = in_a_queue(work, device, repeats)
    graph, held = recorded(work)
    for selection in held:
        selection.index.zero_()
    graph.replay()
    same = all(torch.equal(a.index, b.index) for a, b in zip(eager, held, strict=True))
    report.check(same, f"{name}: the graph keeps other tokens")
    found["graph"] = on_idle(lambda: graph.replay() or (), device, repeats)  # type: ignore[func-returns-value]
    return found


def kept(selection: Selection) -> set[int]:
    """The kept tokens."""
    return set(selection.index.tolist())


def one_size(report: Report, method: PruningMethod, images: list[VisualTokens], keep: int, repeats: int) -> None:
    """Rows and checks of one number of tokens in one dtype."""
    one, dtype = images[0], str(images[0].features.dtype).removeprefix("torch.")
    device, head = one.device, f"n {len(one)}, {dtype}"
    with use_backend("naive"):
        expected = kept(method.select(one, keep))
    same = len(kept(method.select(one, keep)) & expected) / keep
    report.check(same >= (1 if dtype == "float32" else SAME), f"{head}: {same:.1%} of the tokens are the definition's")
    works: dict[str, Work] = {
        "one image": lambda: method.select_batch([one], [keep]),
        f"{IMAGES} images": lambda: method.select_batch(images, [keep] * IMAGES),
    }
    medians: dict[str, float] = {}
    for count, work in works.items():
        for way, samples in ways(work, device, repeats, report, f"{head}, {count}").items():
            report.row(f"{head}, {count}, {way}", samples, keep=keep, same_as_naive=same)
            medians[f"{count}, {way}"] = median(samples)
    with use_backend("torch"):
        samples = on_idle(works["one image"], device, max(1, repeats // 10))
    report.row(f"{head}, one image, torch alone", samples, keep=keep)
    if device.type == "cuda":
        for way in ("queue", "graph"):
            ratio = medians[f"{IMAGES} images, {way}"] / medians[f"one image, {way}"]
            report.aim(f"{head}: {IMAGES} images against one, {way}", ratio, 1.5)
            report.aim(f"{head}, keep {keep}: ms of an image, {way}", medians[f"one image, {way}"], SIZES[len(one)][1])


def against_released(report: Report, one: VisualTokens, keep: int, repeats: int) -> None:
    """The literal transcription of the released algorithm, float32, on the same idle device."""
    method, literal = create("vlm-pruner"), released("vlm-pruner", one, keep)
    literal()
    theirs = on_idle(literal, one.device, max(1, repeats // 10))
    ours = on_idle(lambda: method.select_batch([one], [keep]), one.device, repeats)
    report.row(f"n {len(one)}, float32, released", theirs, keep=keep)
    report.aim(f"n {len(one)}, keep {keep}: share of the released algorithm's time", median(ours) / median(theirs), 0.1)


def cast(given: VisualTokens, dtype: torch.dtype) -> VisualTokens:
    """Features and keys in another dtype, the grid, and nothing else."""
    assert given.keys is not None
    return VisualTokens(given.features.to(dtype), given.keys.to(dtype), given.grid, layer=given.layer)


def batch_of(given: VisualTokens) -> list[VisualTokens]:
    """`IMAGES` images as rows of one batch, as a model has them: `given`, and its tokens in other orders."""
    assert given.keys is not None
    features = torch.stack([given.features.roll(37 * i, 0) for i in range(IMAGES)])
    keys = torch.stack([given.keys.roll(37 * i, 1) for i in range(IMAGES)])
    return [VisualTokens(f, k, given.grid, layer=given.layer) for f, k in zip(features, keys, strict=True)]


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device: Any = prepare(options)
    report, method = Report("gpu/kernels", options, device), create("vlm-pruner")
    repeats = 2 if options.quick else options.repeats
    for n, (keep, _) in list(SIZES.items())[: 1 if options.quick else None]:
        given = tokens(n, device)
        for dtype in (torch.bfloat16, torch.float32):
            one_size(report, method, batch_of(cast(given, dtype)), keep, repeats)
        if n == min(SIZES):
            against_released(report, given, keep, repeats)
    report.finish()


if __name__ == "__main__":
    main(arguments(__doc__ or "", device="cuda", repeats=100).parse_args())
