"""Plans for groups of pictures: told apart by their writing, tuned each on its own pictures, written and read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from PIL import Image, ImageDraw
from tests.support.bench import asked

from vlm_pruner.errors import PlanError
from vlm_pruner.evaluation.by_density import DensityPlans, is_by_density
from vlm_pruner.evaluation.density import DENSE, stroke_density
from vlm_pruner.evaluation.fidelity import Trial
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.evaluation.tuning_groups import remembered, tune_groups
from vlm_pruner.plan import PrunePlan

PLANS = [PrunePlan.of("random", keep, num_layers=4) for keep in (20, 10, 5)]
PHOTO = Image.linear_gradient("L").convert("RGB")


def page() -> Image.Image:
    made = Image.new("RGB", (600, 400), "white")
    for line in range(25):
        ImageDraw.Draw(made).text(
            (10, 10 + 15 * line), "The quick brown fox jumps over the lazy dog " * 2, fill="black"
        )
    return made


def changing(limit: dict[bool, int], seen: list[tuple[int, int]] | None = None):
    """Trials in which even scenes are photographs; a plan changes an answer where it keeps less than their limit."""

    def trials(one: Asked, plans: Sequence[PrunePlan]) -> list[Trial]:
        keeps = [int(plan.stages[0].keep) for plan in plans]
        if seen is not None:
            seen.extend((one.scene, keep) for keep in keeps)
        return [Trial(k >= limit[one.scene % 2 == 1], 1 / k, float(k), float(k), 1e9 * k) for k in keeps]

    return trials


def test_each_group_has_the_plan_that_its_own_pictures_allow() -> None:
    questions = asked(140, 1)
    densities = {one.scene: DENSE if one.scene % 2 else 0.99 * DENSE for one in questions}
    made = tune_groups(questions, PLANS, changing({False: 5, True: 20}), densities, max_loss=0.1, confidence=0.9,
                       cost="flops")  # fmt: skip
    assert (made.plain, made.dense) == (PLANS[2], PLANS[0])
    assert made.plan([PHOTO]) == PLANS[2]
    assert made.plan([PHOTO, page()]) == made.plan([page()]) == PLANS[0]
    at_the_edge = replace(made, dense_from=stroke_density(page()))
    assert (at_the_edge.plan([page()]), at_the_edge.plan([PHOTO])) == (PLANS[0], PLANS[2])
    assert "held-out pictures" in made.told["plain"]


def test_too_few_pictures_of_a_group_leave_it_alone_and_say_so() -> None:
    questions = asked(70, 1)
    few = {one.scene: 0.2 if one.scene < 3 else 0.01 for one in questions}
    made = tune_groups(questions, PLANS, changing({False: 5, True: 5}), few, max_loss=0.1, confidence=0.9, cost="flops")
    assert (made.plain, made.dense) == (PLANS[2], None)
    assert "3 pictures cannot show a loss" in made.told["dense"]
    assert made.plan([page()]).stages[0].method.name == "none"
    none = tune_groups(questions, PLANS, changing({False: 5, True: 5}), dict.fromkeys(few, 0.0), max_loss=0.1,
                       confidence=0.9, cost="flops")  # fmt: skip
    assert none.told["dense"].startswith("no such pictures")


def test_no_question_is_asked_twice_about_a_plan() -> None:
    seen: list[tuple[int, int]] = []
    trials, one = remembered(changing({False: 5, True: 20}, seen)), asked(1, 1)[0]
    first = trials(one, PLANS[:2])
    assert trials(one, PLANS)[:2] == first
    assert seen == [(one.scene, 20), (one.scene, 10), (one.scene, 5)]


def test_written_and_read_again() -> None:
    made = DensityPlans(PLANS[2], None, {"plain": "good", "dense": "too few"}, 0.07)
    text = made.to_json()
    assert is_by_density(text)
    assert DensityPlans.from_json(text) == made
    assert not is_by_density(PLANS[0].to_json())
    assert not is_by_density("{")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"dense_from": "much"}, "'dense_from' must be a number"),
        ({"dense": 3}, "a JSON object"),
        ({"densest": None}, "unknown key of a file of plans by density 'densest'"),
        ({"plain": {"version": 1, "stages": []}}, "at least one stage"),
    ],
)
def test_what_is_something_else_is_refused(changes: dict, message: str) -> None:
    record = json.loads(DensityPlans(PLANS[0], PLANS[1], {}).to_json())
    with pytest.raises(PlanError, match=message):
        DensityPlans.from_json(json.dumps(record | changes))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "1" * 5000], ids=["cut off", "deep", "long number"])
def test_what_is_no_json_is_refused(text: str) -> None:
    assert not is_by_density(text)
    with pytest.raises(PlanError, match="not plans by density"):
        DensityPlans.from_json(text)
