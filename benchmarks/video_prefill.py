"""Prefill of a video by random models of 8 layers and width 1024: unpatched, and with one token in ten kept.

Two videos: 32 frames of 196 tokens and a newline, and 64 frames that become 32 positions in time of 144 tokens; 60 text
tokens with each. The columns are those of the prefill of a picture (benchmarks/prefill.py).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from benchmarks.common import Report, arguments, prepare
from benchmarks.prefill import TEXT, measure, rows

from vlm_pruner.flops import DecoderShape
from vlm_pruner.profiling.shapes import ModelShape, model_shape
from vlm_pruner.profiling.timing import interleave

SHAPES = ("wide-8-video", "wide-8-pairs")


def shortened(shape: ModelShape) -> ModelShape:
    """The same with an eighth of the frames: a smoke test."""
    newline = shape.tokens % 2
    return replace(shape, frames=shape.frames // 8, tokens=(shape.tokens - newline) // 8 + newline)


def plans(keep: int) -> dict[str, dict[str, Any] | None]:
    """What is compared: `random` costs nothing to select, so that it shows the engine alone."""
    found: dict[str, dict[str, Any] | None] = {"unpatched": None}
    for method, layer in (("random", 0), ("evs", 0), ("vidcom2", 0), ("vlm-pruner", 2)):
        found[f"{method}, layer {layer}"] = {"method": method, "keep": keep, "layer": layer}
    return found


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    report = Report("video_prefill", options, device)
    for name in SHAPES:
        shape = shortened(model_shape(name)) if options.quick else model_shape(name)
        keep = shape.tokens // 10
        model, inputs = shape.build(device, torch.float32), shape.inputs(device, torch.float32, text=TEXT)
        candidates = {
            f"{name}, {label}": partial(measure, model, inputs, device, plan) for label, plan in plans(keep).items()
        }
        found = interleave(candidates, 1 if options.quick else options.repeats, warmup=1)
        found = {"unpatched" if label.endswith("unpatched") else label: runs for label, runs in found.items()}
        before = len(report.rows)
        rows(report, DecoderShape.from_config(model.config), found, shape.tokens, keep)
        report.rows[before]["name"] = f"{name}, unpatched"
    report.finish()


if __name__ == "__main__":
    main(arguments(__doc__ or "", repeats=3).parse_args())
