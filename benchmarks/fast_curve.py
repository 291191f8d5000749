"""Accuracy against time to first token on the test split: the plan that validation scenes chose, as `fast`, beside
VLM-Pruner, DivPrune and down-sampled pictures.

    python -m benchmarks.fast_curve                writes results/fast_curve.json and results/fast_curve_times.json
    python -m benchmarks.fast_curve --times        measures the times alone

`benchmarks.fast` comes first: which plan it is follows from its results by `benchmarks.fast.chosen`.

Times are those of `benchmarks.fast`. The tower of the embedded model takes pictures of one size, so that the time of a
smaller picture is that of a tower which runs on as many patches, drawn by lot.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import RESULTS
from benchmarks.fast import chosen, times
from benchmarks.fast_plans import ALONE, STAGED, Make
from benchmarks.offline import EMBEDDED, arguments, measure, prepare

from vlm_pruner.evaluation import Grid
from vlm_pruner.evaluation.bench import describe
from vlm_pruner.evaluation.cells import DOWNSAMPLE, Cell, build_grid
from vlm_pruner.evaluation.results import write_json
from vlm_pruner.plan import TOWER, PrunePlan, Stage
from vlm_pruner.profiling.timing import describe_machine

__all__ = ["PRESET", "RIVALS", "grid", "timed"]

PRESET = "fast"

ANSWERS = Path("out") / "fast_curve.answers.jsonl"
RIVALS = ("vlm-pruner", "vlm-pruner-plus", "divprune", DOWNSAMPLE)
MORE = (16,)  # further budgets of rivals, which cannot be as fast otherwise


def grid(ours: Make, budgets: list[int], layers: int, tokens: int) -> Grid:
    """The unpruned model, the chosen plan, and its rivals at more budgets."""
    cells = [Cell("none", tokens, PrunePlan.of("none", num_layers=layers))]
    cells += [Cell(PRESET, keep, plan) for keep in budgets if (plan := ours(keep)).stages[0].keep != tokens]
    return Grid((*cells, *build_grid(RIVALS, [*budgets, *MORE], layers=layers, tokens=tokens).cells))


def timed(cells: tuple[Cell, ...]) -> Iterator[tuple[str, PrunePlan]]:
    """Every cell by its name, with the plan whose time is its own."""
    for cell in cells:
        plan = cell.plan if cell.small_picture is None else PrunePlan((Stage("random", cell.small_picture, TOWER),))
        yield f"{cell.label}@{cell.budget}", plan


def main(options: argparse.Namespace) -> None:
    """Answers, then times."""
    rows = json.loads((RESULTS / "fast.json").read_text(encoding="utf-8"))["rows"]
    ours = (ALONE | STAGED)[chosen([row for row in rows if row["name"] in ALONE | STAGED])]
    load = prepare(options)
    setup = load()
    about = describe(setup, EMBEDDED)
    cells = grid(ours, options.keep, about["layers"], about["tokens"])
    if not options.times:
        measure(options, setup, load, cells, options.results / "fast_curve.json")
    found = times(dict(timed(cells.cells)), 1 if options.quick else options.repeats)
    record = {"machine": describe_machine(setup.model.device), "repeats": options.repeats, "cells": found}
    write_json(options.results / "fast_curve_times.json", record)


if __name__ == "__main__":
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(answers=ANSWERS, limit=24)
    parser.add_argument("--repeats", type=int, default=9, help="timed forwards of every cell")
    parser.add_argument("--times", action="store_true", help="the times alone; answers stay")
    main(parser.parse_args())
