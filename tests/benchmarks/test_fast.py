"""Plans for the whole pipeline: which are on the front, and what is compared at equal time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks.common import RESULTS
from benchmarks.fast import LIMITS, cells, chosen, front
from benchmarks.fast_curve import MORE, RIVALS, grid, timed
from benchmarks.fast_plans import ALONE, LAYERS, STAGED, TOKENS
from benchmarks.fast_tables import at_time

from vlm_pruner.plan import TOWER, PrunePlan


def test_every_plan_prunes_and_ends_with_its_budget() -> None:
    found = list(cells())
    assert len({(name, keep) for name, keep, _ in found}) == len(found)
    for name, keep, plan in found[1:]:
        lengths = plan.check(LAYERS).lengths(TOKENS, LAYERS)
        assert lengths[-1] == keep, name
        assert plan.stages[0].keep < TOKENS, name


def test_the_front_has_no_plan_that_another_beats() -> None:
    rows = [
        {"name": name, "first_token_share": share, "accuracy": accuracy}
        for name, share, accuracy in [("full", 1.0, 90), ("good", 0.5, 90), ("slow", 0.6, 88), ("fast", 0.2, 70)]
    ]
    assert [row["name"] for row in front(rows)] == ["good", "fast"]


def test_accuracy_at_a_time_lies_between_the_budgets_around_it() -> None:
    points = [(0.6, np.array([1.0, 1.0])), (0.2, np.array([0.0, 1.0]))]
    assert at_time(points, 0.1) is None
    assert at_time(points, 0.3) == pytest.approx([0.25, 1.0])
    assert at_time(points, 0.2) == pytest.approx([0.0, 1.0])
    assert at_time(points, 0.9) == pytest.approx([1.0, 1.0])


def test_a_smaller_picture_is_timed_as_a_tower_of_as_many_patches() -> None:
    made = grid(next(iter(STAGED.values())), [64], LAYERS, TOKENS)
    plans = dict(timed(made.cells))
    assert len(plans) == len(made.cells) == 2 + len(RIVALS) * (1 + len(MORE))
    (stage,) = plans["downsample@64"].stages
    assert (stage.method.name, stage.keep, stage.layer) == ("random", 64, TOWER)
    assert plans["fast@64"].nominal == 64


def test_the_chosen_plan_is_best_over_all_limits_of_time() -> None:
    def rows(name: str, *points: tuple[float, float]) -> list[dict]:
        return [{"name": name, "first_token_share": share, "accuracy": accuracy} for share, accuracy in points]

    quick = rows("quick", (min(LIMITS), 80))
    slow = rows("slow", (max(LIMITS), 89))  # within one limit alone
    both = rows("both", (max(LIMITS), 88), (min(LIMITS), 81))
    assert chosen(slow + quick) == "quick"
    assert chosen(slow + quick + both) == "both"


def test_the_preset_is_the_plan_that_the_validation_scenes_chose() -> None:
    rows = json.loads((RESULTS / "fast.json").read_text(encoding="utf-8"))["rows"]
    ours = [row for row in rows if row["name"] in ALONE | STAGED]
    assert PrunePlan.of("fast", 64, num_layers=LAYERS).stages == (ALONE | STAGED)[chosen(ours)](64).stages
