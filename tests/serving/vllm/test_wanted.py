"""What can be asked of a vLLM server, what is refused and why, and the counts that follow. Without vLLM."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlm_pruner.budget import keep_count
from vlm_pruner.errors import PlanError
from vlm_pruner.methods import registry
from vlm_pruner.methods.base import create
from vlm_pruner.plan import PrunePlan, Stage
from vlm_pruner.serving.vllm.wanted import kept_of, plan_of, read, written
from vlm_pruner.types import VisualTokens


def test_the_short_form_is_a_plan_before_the_language_model() -> None:
    plan = plan_of({"keep": 0.25}, rotary=True)
    assert plan == PrunePlan((Stage(create("vlm-pruner"), 0.25),))
    plan = plan_of({"method": "grid", "keep": 64, "min_visual_tokens": 1}, rotary=False)
    assert plan == PrunePlan((Stage(create("grid"), 64),), min_visual_tokens=1, positions="repacked")
    assert plan_of({"method": "none", "keep": 0.5}, rotary=True) is plan_of(None, rotary=True) is None


def test_a_whole_plan_is_taken_as_it_is() -> None:
    plan = PrunePlan((Stage(create("divprune"), 0.1),), min_visual_tokens=4)
    assert plan_of(plan.to_dict(), rotary=True) == plan
    assert read(written(plan.to_dict()), True) == plan
    assert read(written(None), True) is None


@pytest.mark.parametrize(
    ("asked", "rotary", "why"),
    [
        ("0.25", True, "is an object such as"),
        ({"keep": 0}, True, "keep=0 keeps nothing"),
        ({}, True, "how many tokens should vlm-pruner keep"),
        ({"kep": 0.5}, True, "did you mean 'keep'"),
        ({"keep": 0.5, "method": "vlm-prunr"}, True, "did you mean 'vlm-pruner'"),
        ({"keep": 0.5, "method": "cdpruner"}, True, "vLLM caches what it made of a picture under the picture"),
        ({"keep": 0.5, "method": "fastv"}, True, "reads the question"),
        ({"keep": 0.5, "method": "visionzip"}, True, "which vLLM does not hand out"),
        ({"keep": 0.5, "params": {"fill": False}}, True, "may keep fewer tokens than announced"),
        (PrunePlan((Stage(create("vlm-pruner"), 64, 2),)).to_dict(), True, "one stage, before the language model"),
        (
            PrunePlan((Stage(create("grid"), 9), Stage(create("grid"), 4, 2))).to_dict(),
            True,
            "before the language model, at decoder layer 2",
        ),
        (PrunePlan((Stage(create("grid"), 9),)).to_dict(), False, "only 'repacked' can be had"),
        (PrunePlan((Stage(create("grid"), 9),), positions="repacked").to_dict(), True, "only 'kept' can be had"),
        (PrunePlan((Stage(create("grid"), 9),), older=(4,)).to_dict(), True, "whatever its age is later"),
        (PrunePlan((Stage(create("grid"), 9, bias="log-mass"),)).to_dict(), True, "no number of its own for every key"),
        (PrunePlan((Stage(create("grid"), 9),), per="frame").to_dict(), True, "one count for a whole video"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(asked: Any, rotary: bool, why: str) -> None:
    with pytest.raises(PlanError) as error:
        plan_of(asked, rotary=rotary)
    assert why in str(error.value)


def test_methods_that_read_the_features_alone_are_taken() -> None:
    taken = []
    for name in registry():
        try:
            plan_of({"keep": 0.5, "method": name}, rotary=True)
        except PlanError:
            continue
        taken.append(name)
    assert set(taken) >= {"none", "vlm-pruner", "vlm-pruner-plus", "divprune", "fps", "grid", "random", "otprune"}
    reading = {"cdpruner", "fastv", "visionzip", "vispruner", "sparsevlm", "holov", "tome", "mmtok", "dart", "v2drop"}
    assert not reading & set(taken)


def test_announced_counts_are_those_that_methods_keep() -> None:
    """A thousand pictures of random sizes and budgets; half of them are flat, whose tokens are all alike."""
    lots = torch.Generator().manual_seed(0)
    methods = [create(name) for name in ("vlm-pruner", "grid", "divprune", "random")]
    for number in range(1000):
        h, w = torch.randint(1, 16, (2,), generator=lots).tolist()
        share = torch.randint(1, 1000, (), generator=lots).item() / 1000
        keep = share if number % 3 else int(torch.randint(1, 200, (), generator=lots))
        method = methods[number % len(methods)]
        plan = plan_of({"keep": keep, "method": method.name, "params": method.params()}, rotary=True)
        announced = kept_of(plan, h * w)
        assert 1 <= announced <= h * w
        if h * w < 16 or (isinstance(keep, int) and keep >= h * w):
            assert announced == h * w
            continue
        assert announced == keep_count(h * w, keep)
        features = torch.randn(h * w, 24, generator=lots) if number % 2 else torch.ones(h * w, 24)
        selection = method.select(VisualTokens(features=features, grid=(1, h, w)), announced)
        assert len(selection) == announced, (method.name, h, w, keep)
