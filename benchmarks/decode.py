"""Decode step of the random 8-layer, hidden-1024 model after a prompt of 576 image and 60 text tokens.

A shorter cache is read faster; the hooks cost something. Both are in the step that is timed.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import Any

import torch
from benchmarks.common import Report, arguments, prepare

from vlm_pruner.engine import prune
from vlm_pruner.engine.release import cache_in, cache_name
from vlm_pruner.profiling.run import cache_bytes
from vlm_pruner.profiling.shapes import model_shape
from vlm_pruner.profiling.timing import Probe, interleave, median


def steps(model: Any, inputs: dict[str, Any], count: int, plan: dict[str, Any] | None) -> dict[str, Any]:
    """Milliseconds of `count` greedy decode steps after a prefill, the tokens, and the bytes of the cache."""
    device = inputs["input_ids"].device
    with nullcontext() if plan is None else prune(model, **plan):
        out = model(**inputs, use_cache=True, logits_to_keep=1)
        held, tokens = cache_bytes(cache_in(out)), []
        with Probe({"model": model}, device) as probe:
            for _ in range(count):
                token = out.logits[:, -1:].argmax(-1)
                tokens.append(token)
                out = model(input_ids=token, **{cache_name(model): cache_in(out)}, use_cache=True)
    return {"ms": probe.times()["model"], "tokens": torch.cat(tokens, 1), "kv": held}


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    spec = model_shape("tiny" if options.quick else "wide-8")
    model, inputs = spec.build(device, torch.float32), spec.inputs(device, torch.float32)
    plans: dict[str, dict[str, Any] | None] = {
        "unpatched": None,
        "hooks, keep 1.0": {"method": "random", "keep": 1.0, "layer": 2},
        "keep 64, layer 2": {"method": "random", "keep": 64, "layer": 2},
        "keep 64, layer 0": {"method": "random", "keep": 64, "layer": 0},
    }
    count = 3 if options.quick else 24
    candidates = {name: lambda plan=plan: steps(model, inputs, count, plan) for name, plan in plans.items()}  # type: ignore[misc]
    found = interleave(candidates, 2 if options.quick else options.repeats, warmup=1)
    report = Report("decode", options, device)
    base = [median(run["ms"]) for run in found["unpatched"]]
    for name, runs in found.items():
        per_run = [median(run["ms"]) for run in runs]
        ratio = median([a / b for a, b in zip(per_run, base, strict=True)])
        report.row(name, per_run, ratio=ratio, kv_bytes=runs[0]["kv"])
    same = torch.equal(found["unpatched"][0]["tokens"], found["hooks, keep 1.0"][0]["tokens"])
    report.check(same, "keep=1.0 changes the tokens")
    report.finish()


if __name__ == "__main__":
    main(arguments(__doc__ or "", repeats=5).parse_args())
