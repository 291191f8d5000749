"""CDPruner on each backend: where as many tokens are kept as the features nearly have dimensions, rounding chooses.

What a token adds to the volume falls to the rounding error of float32 on the way to 192 tokens of the embedded model's
width of 256. The definition computes in float64, the others in float32, in other orders of addition.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from benchmarks.common import Report, arguments, prepare
from benchmarks.offline import EMBEDDED, LIMIT, QUICK_LIMIT

from vlm_pruner.cli.bench import about_split, load_setup
from vlm_pruner.evaluation import build_grid, run_bench
from vlm_pruner.evaluation.bench import describe
from vlm_pruner.ops import use_backend
from vlm_pruner.ops.dispatch import refusal

METHOD, KEEP, BACKENDS = "cdpruner", (192, 128, 64), ("naive", "torch", "numba")


def main(options: argparse.Namespace) -> None:
    """Right answers by backend and budget."""
    report = Report("rounding", options, prepare(options))
    limit = QUICK_LIMIT if options.quick else LIMIT
    setup = load_setup(EMBEDDED, "cpu", "auto", "test", limit)
    about = describe(setup, EMBEDDED)
    grid = build_grid([METHOD], KEEP, seeds=1, layers=about["layers"], tokens=about["tokens"])
    for backend in [b for b in BACKENDS if refusal("dpp", b, torch.empty(0)) is None]:
        with use_backend(backend), tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            results = run_bench(
                lambda: setup, grid, out / "results.json", name=EMBEDDED, split=about_split("test", limit),
                answers=out / "answers.jsonl", setup=setup, workers=1,
            )  # fmt: skip
        right = {row.budget: 100 * float(np.asarray(row.correct).mean()) for row in results.rows()}
        report.row(backend, **{f"right_{keep}": right[keep] for keep in KEEP})
    report.finish()


if __name__ == "__main__":
    main(arguments(__doc__ or "").parse_args())
