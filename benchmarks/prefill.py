"""Prefill of the random 8-layer, hidden-1024 model: unpatched, hooks alone, pruned, and the ideal.

576 image and 60 text tokens. The linear ideal scales the unpruned time by the token-layers that remain, the FLOP ideal
by the FLOPs. Ratios are taken within a round of interleaved runs, and their median is reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.common import Report, arguments, prepare

from vlm_pruner.engine import prune
from vlm_pruner.engine.release import cache_in
from vlm_pruner.flops import DecoderShape, kv_bytes, prefill_flops, stage_lengths
from vlm_pruner.profiling.run import cache_bytes
from vlm_pruner.profiling.shapes import model_shape
from vlm_pruner.profiling.timing import Probe, interleave, median

TEXT = 60


@dataclass(frozen=True)
class Prefill:
    """One measured forward."""

    whole: float  # ms of the model's forward
    decoder: float  # ms of the decoder, selection included
    selection: float
    kept: int
    kv: int
    logits: torch.Tensor


def measure(model: Any, inputs: dict[str, Any], device: torch.device, plan: dict[str, Any] | None) -> Prefill:
    """One forward, under a plan or unpatched."""
    modules = {"whole": model, "decoder": model.base_model.get_decoder()}
    with nullcontext() if plan is None else prune(model, **plan) as session, Probe(modules, device) as probe:
        out = model(**inputs, use_cache=True, logits_to_keep=1)
    times = probe.times()
    report = None if session is None else session.report
    return Prefill(
        whole=times["whole"][0],
        decoder=times["decoder"][0],
        selection=0.0 if report is None else report.selection_ms or 0.0,
        kept=0 if report is None else report.kept,
        kv=cache_bytes(cache_in(out)),
        logits=out.logits,
    )


def plans(method: str, keep: int) -> dict[str, dict[str, Any] | None]:
    """What is compared: `random` costs nothing to select, so that it shows the engine alone."""
    found: dict[str, dict[str, Any] | None] = {
        "unpatched": None,
        "hooks, keep 1.0": {"method": method, "keep": 1.0, "layer": 2},
    }
    for layer in (0, 1, 2):
        found[f"random, layer {layer}"] = {"method": "random", "keep": keep, "layer": layer}
    found[f"{method}, layer 2"] = {"method": method, "keep": keep, "layer": 2}
    return found


def rows(report: Report, shape: DecoderShape, found: dict[str, list[Prefill]], tokens: int, keep: int) -> None:
    """Ratios to the unpatched runs of the same rounds, checks and aims."""
    full = found["unpatched"]
    everything = [TEXT + tokens] * shape.layers
    for name, runs in found.items():
        row = report.row(name, [run.decoder for run in runs])
        row["whole_ms"] = median([run.whole for run in runs])
        row["ratio"] = median([run.decoder / base.decoder for run, base in zip(runs, full, strict=True)])
        if "layer" not in name:
            continue
        layer = int(name[-1])
        lengths = stage_lengths(shape.layers, TEXT, tokens, [(layer, keep)])
        linear = sum(lengths) / sum(everything)
        row["linear_ideal"] = linear
        row["flops_ideal"] = prefill_flops(shape, lengths) / prefill_flops(shape, everything)
        row["selection_ms"] = median([run.selection for run in runs])
        pairs = list(zip(runs, full, strict=True))
        row["to_ideal"] = median([run.decoder / (linear * base.decoder + run.selection) for run, base in pairs])
        row["selection_share"] = median([run.selection / (base.decoder - run.decoder) for run, base in pairs])
        report.check(all(run.kept == keep for run in runs), f"{name}: kept {runs[0].kept} tokens, not {keep}")
        report.check(runs[0].kv == kv_bytes(shape, lengths, 4), f"{name}: the cache holds {runs[0].kv} bytes")


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    spec = model_shape("tiny" if options.quick else "wide-8")
    model, inputs = spec.build(device, torch.float32), spec.inputs(device, torch.float32, text=TEXT)
    candidates: dict[str, Callable[[], Prefill]] = {
        name: lambda plan=plan: measure(model, inputs, device, plan)  # type: ignore[misc]
        for name, plan in plans(options.method, options.keep).items()
    }
    found = interleave(candidates, 2 if options.quick else options.repeats, warmup=1)
    report = Report("prefill", options, device)
    rows(report, DecoderShape.from_config(model.config), found, spec.tokens, options.keep)
    full, hooks = found["unpatched"], found["hooks, keep 1.0"]
    report.check(torch.equal(full[0].logits, hooks[0].logits), "keep=1.0 changes the logits")
    pruned = next(row for row in report.rows if row["name"] == f"{options.method}, layer 2")
    ratio = median([a.whole / b.whole for a, b in zip(hooks, full, strict=True)])
    report.aim("keep 1.0 against the unpatched model", ratio, 1.05)
    report.aim(f"{options.method} at layer 2 against linear ideal plus selection", pruned["to_ideal"], 1.05)
    report.aim("selection as a share of the prefill time it saves", pruned["selection_share"], 0.05)
    report.finish()


if __name__ == "__main__":
    parser = arguments(__doc__ or "", repeats=9)
    parser.add_argument("--method", default="vlm-pruner")
    parser.add_argument("--keep", type=int, default=64)
    main(parser.parse_args())
