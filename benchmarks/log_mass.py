"""What log m on the logits of merged tokens is worth, method by method.

    python -m benchmarks.log_mass                  writes results/log_mass.json

On validation scenes, at equal counts of kept tokens. Killed, it goes on where it was.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.offline import EMBEDDED, arguments, measure, prepare

from vlm_pruner.evaluation import Grid
from vlm_pruner.evaluation.bench import describe
from vlm_pruner.evaluation.cells import Cell
from vlm_pruner.plan import PrunePlan

__all__ = ["BIASED", "METHODS", "grid"]

METHODS = ("vlm-pruner", "vlm-pruner-plus", "tome", "holitom")
BIASED = ", log m"
ANSWERS = Path("out") / "log_mass.answers.jsonl"


def grid(budgets: list[int], layers: int, tokens: int) -> Grid:
    """Every method at every budget, as it is and with the bias, beside the unpruned model."""
    cells = [Cell("none", tokens, PrunePlan.of("none", num_layers=layers))]
    for name in METHODS:
        for keep in budgets:
            plain = PrunePlan.of(name, keep, num_layers=layers)
            stages = tuple(replace(stage, bias="log-mass") for stage in plain.stages)
            cells += [Cell(name, keep, plain), Cell(name + BIASED, keep, replace(plain, stages=stages))]
    return Grid(tuple(cells))


def main(options: argparse.Namespace) -> None:
    """All cells on validation scenes."""
    options.split = "validation"
    load = prepare(options)
    setup = load()
    about = describe(setup, EMBEDDED)
    measure(
        options, setup, load, grid(options.keep, about["layers"], about["tokens"]), options.results / "log_mass.json"
    )


if __name__ == "__main__":
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(answers=ANSWERS, keep=[64, 32], limit=24)
    main(parser.parse_args())
