"""Tuning without labels, held against labels: is the true loss of the recommended plan within what was asked?

Every repetition draws 64 scenes of the validation split by its own seed, and tunes on them as `vlm-pruner tune` does.
The loss of the plan is then read from the answers of the offline benchmark on the test split: the accuracy of the
unpruned model less that of the plan. Questions that two repetitions share are answered once; the first is timed.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence

from benchmarks.common import RESULTS, Report, arguments, prepare

from vlm_pruner import scenes
from vlm_pruner.asking import EMBEDDED, name_of, open_model
from vlm_pruner.evaluation import BenchResults
from vlm_pruner.evaluation.bench import Setup, describe
from vlm_pruner.evaluation.fidelity import Meter, Trial
from vlm_pruner.evaluation.questions import Asked, ask_split
from vlm_pruner.evaluation.results import CellResult
from vlm_pruner.evaluation.tuning import tune
from vlm_pruner.plan import PrunePlan

METHODS = ("vlm-pruner", "vlm-pruner-plus", "divprune", "dart", "fps", "grid")
BUDGETS = (192, 128, 64, 32)
SCENES, REPETITIONS, WITHIN = 64, 20, 18
MAX_LOSS, CONFIDENCE = 0.1, 0.9


class Cached:
    """Trials of a meter; what was measured once is not measured again."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.known: dict[tuple[str, str], Trial] = {}

    def trials(self, asked: Asked, plans: Sequence[PrunePlan]) -> list[Trial]:
        """As `Meter.trials`."""
        missing = [plan for plan in plans if (asked.key, plan.fingerprint()) not in self.known]
        if missing:
            for plan, trial in zip(missing, self.meter.trials(asked, missing), strict=True):
                self.known[asked.key, plan.fingerprint()] = trial
        return [self.known[asked.key, plan.fingerprint()] for plan in plans]


def true_loss(results: BenchResults, plan: PrunePlan | None) -> float:
    """Accuracy of the unpruned model on the test split less that of the plan."""
    if plan is None:
        return 0.0
    stages = [[stage.method.name, stage.keep, stage.layer] for stage in plan.stages]

    def same(cell: CellResult) -> bool:
        return cell.stages == stages and cell.params == plan.stages[0].method.params()

    (cell,) = [cell for cell in results.cells if same(cell)]
    return float(results.row("none").correct.mean() - cell.bits(len(results.types)).mean())


def main(options: argparse.Namespace) -> None:
    """Repeat, check, print."""
    device = prepare(options)
    results = BenchResults.load(RESULTS / "offline.json")
    loaded = open_model(EMBEDDED, device=str(options.device))
    questions = ask_split(loaded.model, loaded.processor, "validation", 6 if options.quick else scenes.PER_TYPE // 2)
    plans = [PrunePlan.of(m, b, num_layers=loaded.layers) for m in METHODS for b in BUDGETS]
    report = Report("tune", options, device)
    weights = describe(Setup(loaded.model, loaded.processor, questions), EMBEDDED)["weights"]
    report.check(weights == results.model["weights"], "the answers of the offline benchmark are of other weights")
    cached = Cached(Meter(loaded.model, loaded.processor))
    within, minutes = 0, 0.0
    repetitions = 2 if options.quick else REPETITIONS
    for seed in range(repetitions):
        drawn = random.Random(seed).sample(questions, SCENES)
        started = time.perf_counter()
        tuned = tune(drawn, plans, cached.trials, max_loss=MAX_LOSS, confidence=CONFIDENCE)
        minutes = minutes or (time.perf_counter() - started) / 60
        loss = true_loss(results, tuned.plan)
        within += loss <= MAX_LOSS
        best = tuned.best
        report.row(
            f"seed {seed}", plan="all tokens" if best is None else name_of(best.plan), bound=tuned.bound,
            changed=None if best is None else round(best.loss, 4), true_loss=round(loss, 4), within=loss <= MAX_LOSS,
            layer_average=None if best is None else round(best.layer_average, 1),
        )  # fmt: skip
        print(report.rows[-1], flush=True)
    report.aim(f"repetitions of {repetitions} whose true loss is over {MAX_LOSS}", repetitions - within,
               repetitions - (repetitions * WITHIN) // REPETITIONS)  # fmt: skip
    report.aim("minutes of one tuning on 64 scenes", round(minutes, 2), 10.0)
    report.finish()


if __name__ == "__main__":
    main(arguments(__doc__ or "").parse_args())
