"""Methods on questions about videos, and the forms of VLM-Pruner for videos that were tried.

    python -m benchmarks.video_offline             writes results/video_offline.json and video_ablation.json

The table is of the test split, the ablation of the validation split, which is what the form was chosen on. Killed, it
goes on where it was: single answers are kept in out/video_offline.answers.jsonl.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from benchmarks.video_variants import VARIANTS

from vlm_pruner.asking import EMBEDDED_VIDEO
from vlm_pruner.cli.bench import about_split, load_setup
from vlm_pruner.cli.opening import Opening
from vlm_pruner.evaluation import Grid, build_grid, default_methods, run_bench
from vlm_pruner.evaluation.bench import describe
from vlm_pruner.evaluation.frames import FRAMES, UniformFrames
from vlm_pruner.methods import create
from vlm_pruner.plan import PrunePlan
from vlm_pruner.scenes.motion import FRAMES as MOTION_FRAMES

__all__ = ["BUDGETS", "LEFT_OUT", "ONE_FRAME"]

BUDGETS = [0.25, 0.15, 0.1]
ONE_FRAME = "one frame"
"""All tokens of the middle frame and no others: what can be said without time."""
LEFT_OUT = ("downsample", "pooling")
"""Not measured: they make one picture smaller."""


def ablation_grid(layers: int, tokens: int) -> Grid:
    """Every variant before the language model, where methods for videos prune, and VLM-Pruner at its own place."""
    own = {"none": "none", "vlm-pruner at layer 2": create("vlm-pruner")}
    full = build_grid(own, BUDGETS, layers=layers, tokens=tokens)
    cells = list(full.cells)
    for label, make in VARIANTS.items():
        method = make()
        for share in BUDGETS:
            keep = next(c.budget for c in full.cells[1 + BUDGETS.index(share) :])
            plan = PrunePlan.of(method, keep=keep, layer=0, num_layers=layers)
            cells.append(type(full.cells[0])(label, keep, plan))
    return Grid(tuple(cells))


def main(options: argparse.Namespace) -> None:
    """The ablation, then the table."""
    for split, name in (("video-validation", "video_ablation"), ("video", "video_offline")):
        if options.only not in (None, name):
            continue
        load = partial(load_setup, options.model, Opening("cpu"), split, options.limit)
        setup = load()
        about = describe(setup, options.model)
        shape: dict[str, Any] = {"layers": about["layers"], "tokens": about["tokens"]}
        if name == "video_ablation":
            grid = ablation_grid(**shape)
        else:
            names = [m for m in default_methods() if m not in LEFT_OUT]
            chosen = options.methods or [*names, *FRAMES]
            measured: dict[str, Any] = {label: FRAMES.get(label, label) for label in chosen}
            one = about["tokens"] // MOTION_FRAMES
            measured[ONE_FRAME] = PrunePlan.of(UniformFrames(), keep=one, layer=0, num_layers=about["layers"])
            grid = build_grid(measured, BUDGETS, seeds=options.seeds, make=setup.plan, **shape)
        run_bench(
            load, grid, options.results / f"{name}.json", name=options.model, split=about_split(split, options.limit),
            answers=options.answers.with_name(f"{name}.answers.jsonl"), setup=setup, workers=options.jobs,
        )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=EMBEDDED_VIDEO, help="or a folder")
    parser.add_argument("--limit", type=int, help="the first so many questions a type")
    parser.add_argument("--seeds", type=int, default=3, help="runs of methods that draw lots")
    parser.add_argument("--methods", nargs="+", help="of the table; all by default")
    parser.add_argument("--only", choices=["video_offline", "video_ablation"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--answers", type=Path, default=Path("out") / "x", help="single answers lie beside it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    main(parser.parse_args())
