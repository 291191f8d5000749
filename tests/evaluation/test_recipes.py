"""Recipes: the released code's habits on its own golden cases, and every recipe on a tiny model of its architecture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.support import golden
from tests.support.checkpoints import checkpoint
from tests.support.vision import needs_torchvision

from vlm_pruner.asking import ask, open_model
from vlm_pruner.engine import prune
from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.evaluation.recipes import load_recipe, recipe_names
from vlm_pruner.evaluation.released import HABITS, ReleasedVLMPruner, _unmerged
from vlm_pruner.methods.vlm_pruner import VLMPruner
from vlm_pruner.ops import GrowthRule, farthest_points, screen
from vlm_pruner.ops.growth.naive import grow
from vlm_pruner.scenes import load_split
from vlm_pruner.types import VisualTokens

CASES = [case for case in golden.cases("vlm-pruner") if not case.get("params")]
TINY = {
    "llava-1.5-7b": "embedded", "llava-1.5-13b": "embedded", "llava-next-7b": "llava_next",
    "llava-video-7b": "llava_onevision", "qwen2-vl-7b": "qwen2_vl", "qwen2.5-vl-7b": "qwen2_5_vl",
    "qwen3-vl-8b": "qwen3_vl",
}  # fmt: skip
"""A small model of each recipe's architecture: the embedded one has the 576 tokens of LLaVA-1.5."""


@pytest.mark.parametrize("case", CASES, ids=golden.case_id)
def test_the_released_habits_give_the_released_sets(case: Any) -> None:
    """Rounding and early stop together, from the ratio of the released scripts; LLaVA rounds, Qwen2-VL cuts off."""
    features, keys, grid = golden.vlm_pruner_inputs(case)
    method = ReleasedVLMPruner(case["reduction_ratio"], case.get("rounding", "round"), early_stop=True)
    asked = -(-len(features) * (1000 - round(1000 * case["reduction_ratio"])) // 1000)
    assert method.count(len(features), asked) == case["keep"]
    assert method.select(VisualTokens(features, keys, grid), asked).index.tolist() == case["expected"]["kept"]


def test_each_habit_is_an_option_of_its_own() -> None:
    (flat,) = [case for case in CASES if case["recipe"] == "flat"]
    tokens = VisualTokens(*golden.vlm_pruner_inputs(flat))
    assert len(ReleasedVLMPruner(early_stop=True).select(tokens, 64)) == 4
    assert len(ReleasedVLMPruner().select(tokens, 64)) == 64
    assert ReleasedVLMPruner(0.889, "int").count(1196, 133) == 132
    assert ReleasedVLMPruner(0.889, "round").count(1196, 133) == 133
    assert ReleasedVLMPruner(0.889, "ceil").count(1196, 133) == 133
    for wrong in ({"rounding": "floor"}, {"reduction_ratio": 1.0}):
        with pytest.raises(PlanError):
            ReleasedVLMPruner(**wrong)  # type: ignore[arg-type]


def test_the_unmerged_grid_is_that_of_the_released_code() -> None:
    """Places and diagonal written out as the released code has them: x = i mod 2w, y = i div 2w, over (2h, 2w)."""
    case = next(case for case in CASES if case.get("rounding") == "int")
    features, keys, grid = golden.vlm_pruner_inputs(case)
    _, h, w = grid
    index = torch.arange(len(features))
    place = torch.stack([index // (2 * w), index % (2 * w)], 1).float()[None]
    diagonal = torch.tensor([((2 * h) ** 2 + (2 * w) ** 2) ** 0.5])
    pivots = farthest_points([keys], 4)
    expected = grow(screen([features], 256), place, diagonal, pivots, 132, GrowthRule(0.5, 0.8, 0.1, 16, True))
    found = ReleasedVLMPruner(unmerged_grid=True).select(VisualTokens(features, keys, grid), 132)
    assert found.index.tolist() == expected.order[0].sort().values.tolist()
    plain = VLMPruner().select(VisualTokens(features, keys, grid), 132)
    assert found.index.tolist() != plain.index.tolist()
    moved, weight = _unmerged(VisualTokens(torch.zeros(12, 2), grid=(1, 4, 3)), 0.5)
    assert moved.coordinates().tolist() == [[0, i // 6, i % 6] for i in range(12)]
    assert weight == pytest.approx(0.5 * math.hypot(2, 6) / math.hypot(8, 6))


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_complete_and_its_plans_are_those_of_its_numbers(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.keep) == len(recipe.reduction_ratio)
    assert set(recipe.published) <= {f"{keep:g}" for keep in recipe.keep}
    plain = recipe.plans(32)
    assert [(plan.stages[0].keep, plan.stages[0].layer) for plan in plain] == [(k, 2) for k in recipe.keep]
    for keep, ratio in zip(recipe.keep, recipe.reduction_ratio, strict=True):
        assert keep == pytest.approx((1 - ratio) * (576 if isinstance(keep, int) else 1), abs=1)
    official = recipe.plans(32, HABITS)
    assert {plan.stages[0].method.params()["unmerged_grid"] for plan in official} == {name == "qwen2-vl-7b"}
    assert all(plan.stages[0].method.params()["early_stop"] for plan in official)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if small == "embedded" else needs_torchvision) for n, small in TINY.items()]
)
def test_a_small_model_answers_under_a_recipe(name: str) -> None:
    small = TINY[name]
    loaded = open_model(small if small == "embedded" else str(checkpoint(small)))
    question = load_split("test", 1)[0]
    recipe = load_recipe(name)
    plans = [*recipe.plans(loaded.layers), *recipe.plans(loaded.layers, HABITS)]
    answers = ask(loaded, question.images[0], question.text, plans, max_new_tokens=2, runs=1)
    assert len(answers) == 1 + 2 * len(recipe.keep)


def test_a_growth_that_stops_early_leaves_fewer_tokens_and_the_report_says_how_many() -> None:
    """A picture of one colour: the engine refused what the released code does there."""
    loaded = open_model()
    inputs = loaded.inputs("What is it?", Image.new("RGB", (336, 336), "grey"))
    with prune(loaded.model, VLMPruner(fill=False, threshold=0.0), keep=64) as session:
        loaded.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert session.report.kept == 4
    assert session.report.asked == 64


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean 'llava-1.5-7b'"):
        load_recipe("llava-1.5-7")
    with pytest.raises(InputError, match=r"did you mean 'rounding'"):
        load_recipe("llava-1.5-7b").plans(32, ["roundin"])
    for change, message in (({"version": 9}, "another version"), ({"kepe": 1}, "key of a recipe"), ({}, "cannot read")):
        path = tmp_path / "r.json"
        path.write_text(json.dumps({"version": 1} | change))
        with pytest.raises(InputError, match=message):
            load_recipe(str(path))


@pytest.mark.parametrize("habit", sorted(HABITS))
def test_each_habit_is_repeated_alone(habit: str) -> None:
    """A plan with one habit of the released code has none of the others."""
    recipe = load_recipe("qwen2-vl-7b")
    methods = [plan.stages[0].method.params() for plan in recipe.plans(32, [habit])]
    for ratio, params in zip(recipe.reduction_ratio, methods, strict=True):
        assert (params["reduction_ratio"], params["rounding"]) == (
            (ratio, recipe.rounding) if habit == "rounding" else (None, "ceil")
        )
        assert params["early_stop"] is (habit == "early-stop")
        assert params["unmerged_grid"] is (habit == "unmerged-grid")
