from dataclasses import replace

import pytest
import torch
from tests.support.families import tiny
from tests.support.pruning import forward
from tests.support.tokens import visual_tokens

from vlm_pruner import PlanError, PrunePlan, Stage, UnsupportedModelError, plan_for, prune
from vlm_pruner.methods import create


def test_it_is_a_plan_for_the_whole_pipeline():
    plan = PrunePlan.of("fast", 64, num_layers=8)
    assert [(s.method.name, s.keep, s.place) for s in plan.stages] == [
        ("divprune", 192, "before the tower"),
        ("vlm-pruner-plus", 64, "at decoder layer 2"),
    ]
    assert plan.nominal == 64
    assert [s.keep for s in PrunePlan.of("fast", 0.5, num_layers=8, times=1.5).stages] == [0.75, 0.5]
    assert [s.layer for s in PrunePlan.of("fast", 1.0, num_layers=8).stages] == [None]
    with pytest.raises(PlanError, match=r"times=0\.5"):
        create("fast", times=0.5)


def test_by_itself_it_is_the_preset_of_fewest_tokens():
    tokens = visual_tokens()
    one, other = (create(name).select(tokens, 9) for name in ("fast", "vlm-pruner-plus"))
    assert one.index.tolist() == other.index.tolist()
    assert torch.equal(one.features, other.features)


def test_a_model_answers_as_under_the_plan_written_out():
    family, model = tiny("qwen3_vl")
    inputs = family.inputs([family.prompt(3, 2)], model.dtype)
    stages = (Stage("divprune", 0.6, "tower"), Stage("vlm-pruner-plus", 0.2, 2))
    with prune(model, PrunePlan(stages, min_visual_tokens=1)):
        want = forward(model, inputs).logits
    with prune(model, replace(plan_for(model, "fast", 0.2), min_visual_tokens=1)) as session:
        assert torch.equal(forward(model, inputs).logits, want)
    assert session.report.kept < session.report.total


def test_a_tower_that_cannot_be_cut_is_refused_by_name():
    _, model = tiny("mistral3")
    with pytest.raises(UnsupportedModelError, match="vision tower"):
        prune(model, "fast", keep=0.2)
