"""The offline benchmark: every method on every question of a split, summed up with intervals.

`vlm-pruner bench` is the command; `run_bench` is what it does, `BenchResults` what it finds.
"""

from vlm_pruner.evaluation.bench import Setup, run_bench
from vlm_pruner.evaluation.cells import Cell, Grid, build_grid, default_methods
from vlm_pruner.evaluation.results import BenchResults
from vlm_pruner.evaluation.statistics import Bootstrap, Interval

__all__ = [
    "BenchResults",
    "Bootstrap",
    "Cell",
    "Grid",
    "Interval",
    "Setup",
    "build_grid",
    "default_methods",
    "run_bench",
]
