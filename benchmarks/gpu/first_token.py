"""Time to first token of models of published shapes, split into encoder, projector, selection and prefill.

Random weights: time and memory depend on shapes, not on what was learnt. LLaVA-1.5-7B and -13B (576 visual tokens),
LLaVA-NeXT-7B (2928: five tiles and newline tokens) and Qwen2.5-VL-7B (1296), bfloat16, one prompt with 60 text tokens.
Without a GPU, `--device cpu` measures a tiny shape, to show that the script runs.
"""

from __future__ import annotations

import argparse
import gc
from typing import Any

import torch
from benchmarks.common import Report, arguments, prepare

from vlm_pruner.errors import InputError
from vlm_pruner.profiling import ProfileResult, Variant, profile, subject_named

BUDGETS: dict[str, list[int]] = {
    "tiny": [64],
    "llava-1.5-7b": [192, 64],
    "llava-1.5-13b": [192, 64],
    "llava-next-7b": [640, 320, 64],
    "qwen2.5-vl-7b": [432, 144, 64],
}
"""Budgets per shape: those of the paper's tables, and 64 everywhere."""


def rows(report: Report, shape: str, method: str, result: ProfileResult) -> None:
    """One row per variant, its checks and the aims for the 7B shape."""
    base = result.unpruned
    for variant in result.variants:
        row = report.row(f"{shape}, {variant.name}", variant.samples["first_token"], method=method)
        for span in ("encoder", "projector", "selection", "prefill", "decode"):
            if variant.samples.get(span):
                row[f"{span}_ms"] = variant.ms(span)
        row["speedup"] = _speedup(base, variant)
        row |= {"kv_MB": variant.kv_bytes / 1e6, "peak_MB": variant.peak_bytes / 1e6}
        report.check(variant.kv_bytes == result.kv_predicted(variant), f"{row['name']}: cache {variant.kv_bytes} bytes")
        if variant is not base:
            row["ideal_ms"] = result.ideal_first_token_ms(variant)
            row["of_ideal"] = variant.ms("first_token") / result.ideal_first_token_ms(variant)
        if (shape, variant.name) == ("llava-1.5-7b", "keep 64"):
            report.aim("time to first token, 7B, keep 64: share of unpruned", 1 / row["speedup"], 1 / 1.9)
            report.aim("time to first token, 7B, keep 64: of the ideal", row["of_ideal"], 1.1)


def _speedup(base: Variant, variant: Variant) -> float:
    return base.ms("first_token") / variant.ms("first_token")


def measure(shape: str, options: argparse.Namespace) -> ProfileResult:
    """Build the model, profile it, let it go."""
    subject = subject_named(shape, device=options.device, dtype=options.dtype)
    keep = BUDGETS.get(shape, [64])
    repeats, warmup = (2, 1) if options.quick else (options.repeats, 3)
    found = profile(subject.model, subject.inputs, options.method, keep=keep, repeats=repeats, warmup=warmup)
    del subject
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def main(options: argparse.Namespace) -> None:
    """Measure every shape that fits, print."""
    device: Any = prepare(options)
    chosen = options.shapes.split(",") if options.shapes else list(BUDGETS)[1:] if device.type == "cuda" else ["tiny"]
    report = Report("gpu/first_token", options, device)
    for shape in chosen:
        try:
            result = measure(shape, options)
        except InputError as error:
            report.row(f"{shape}: {error}")
            continue
        rows(report, shape, options.method, result)
    report.finish()


if __name__ == "__main__":
    parser = arguments(__doc__ or "", device="cuda", repeats=20)
    parser.add_argument("--shapes", help="names with commas between; by default all on a GPU, the tiny one on a CPU")
    parser.add_argument("--method", default="vlm-pruner")
    parser.add_argument("--dtype", default="auto", help="auto is bfloat16 on a GPU, float32 elsewhere")
    main(parser.parse_args())
