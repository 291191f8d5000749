"""Every registered method on the test split: at equal counts of kept tokens, then at equal cost, then the times.

    python -m benchmarks.offline                   writes results/offline.json, offline_equal.json, offline_timing.json

Killed, it goes on where it was: single answers are kept in out/offline.answers.jsonl, which both tables and
`benchmarks.ablations` share. A new method costs its own rows alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.common import RESULTS

from vlm_pruner.cli.bench import about_split, load_setup
from vlm_pruner.cli.opening import Opening
from vlm_pruner.evaluation import BenchResults, Grid, Setup, build_grid, default_methods, run_bench
from vlm_pruner.evaluation.bench import describe
from vlm_pruner.evaluation.cells import LAYER_AVERAGE
from vlm_pruner.evaluation.results import write_json
from vlm_pruner.evaluation.timing import measure_cells

__all__ = ["arguments", "measure", "prepare"]

EMBEDDED = "embedded"
ANSWERS = Path("out") / "offline.answers.jsonl"
LIMIT = 32  # of 48 questions a type: what two cores answer within an hour in all cells
QUICK_LIMIT = 1


def arguments(description: str) -> argparse.ArgumentParser:
    """Parser with the options of everything that asks the embedded model."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--split", default="test", help="test or validation")
    parser.add_argument("--limit", type=int, default=LIMIT, help="the first so many questions a type")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--keep", type=int, nargs="+", default=[192, 128, 64, 32], help="budgets, tokens kept")
    parser.add_argument("--equal-keep", type=int, nargs="+", default=[64], help="budgets of the table at equal cost")
    parser.add_argument("--answers", type=Path, default=ANSWERS, help="single answers, shared by runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--quick", action="store_true", help="one question a type: a smoke test, no figures")
    return parser


def prepare(options: argparse.Namespace) -> Callable[[], Setup]:
    """What makes the model and the questions, here and in worker processes."""
    if options.quick:
        options.limit = QUICK_LIMIT
    return partial(load_setup, EMBEDDED, Opening("cpu"), options.split, options.limit)


def measure(
    options: argparse.Namespace, setup: Setup, load: Callable[[], Setup], grid: Grid, out: Path
) -> BenchResults:
    """Answers of one grid, with progress on stderr."""

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty() or done == total:
            end = "\n" if done == total else ""
            print(f"\r{out.stem}: {done} of {total} answers", end=end, file=sys.stderr, flush=True)

    return run_bench(
        load, grid, out, name=EMBEDDED, split=about_split(options.split, options.limit), answers=options.answers,
        setup=setup, workers=options.jobs, progress=progress,
    )  # fmt: skip


def main(options: argparse.Namespace) -> None:
    """Both tables, then the times of the first."""
    load = prepare(options)
    setup = load()
    about = describe(setup, EMBEDDED)
    grids = [
        build_grid(
            default_methods(), budgets, seeds=2 if options.quick else 5, layers=about["layers"],
            tokens=about["tokens"], equal=LAYER_AVERAGE if equal else None,
        )
        for budgets, equal in ((options.keep, False), (options.equal_keep, True))
    ]  # fmt: skip
    for grid, name in zip(grids, ("offline", "offline_equal"), strict=True):
        measure(options, setup, load, grid, options.results / f"{name}.json")
    repeats = 1 if options.quick else 9
    timing = measure_cells(setup, grids[0].cells, setup.questions[:1], repeats=repeats)
    write_json(options.results / "offline_timing.json", timing)


if __name__ == "__main__":
    main(arguments((__doc__ or "").splitlines()[0]).parse_args())
