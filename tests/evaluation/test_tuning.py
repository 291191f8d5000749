"""Tuning: bounds against brute force, the rule against made-up trials, and divergences against plain softmax."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tests.support.bench import asked as made_asked

from vlm_pruner.engine import prune
from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.evaluation.bounds import least_pictures, tail, upper_bound
from vlm_pruner.evaluation.density import DENSE, stroke_density
from vlm_pruner.evaluation.fidelity import Meter, Trial, _divergence
from vlm_pruner.evaluation.questions import Asked, ask_split
from vlm_pruner.evaluation.tuning import Tuned, tune
from vlm_pruner.evaluation.tuning_pages import recommendation, tuning_table
from vlm_pruner.models import load_embedded
from vlm_pruner.plan import PrunePlan, Stage
from vlm_pruner.scenes.render import backgrounds


def test_the_binomial_tail_is_that_of_all_outcomes() -> None:
    p, n = 0.3, 6
    outcomes = list(itertools.product((0, 1), repeat=n))
    for k in range(n + 1):
        brute = sum(p ** sum(o) * (1 - p) ** (n - sum(o)) for o in outcomes if sum(o) <= k)
        assert tail([1] * k + [0] * (n - k), p) == pytest.approx(brute)


@pytest.mark.parametrize("kind", ["binary", "parts"])
def test_the_bound_holds_as_often_as_it_says(kind: str) -> None:
    rng = np.random.default_rng(0)
    true, held = 0.15, 0
    for _ in range(300):
        if kind == "binary":
            losses = (rng.random(40) < true).astype(float)
        else:
            losses = rng.beta(0.3, 0.3 * (1 - true) / true, 40)
        held += upper_bound(losses.tolist(), 0.9) >= true
    assert held >= 0.9 * 300 - 3 * math.sqrt(300 * 0.09)


def test_a_loss_of_parts_has_a_wider_bound_than_none() -> None:
    assert upper_bound([0.0] * 42, 0.9) == pytest.approx(1 - 0.1 ** (1 / 42), abs=1e-4)
    assert upper_bound([0.5] + [0.0] * 41, 0.9) > upper_bound([0.0] * 42, 0.9)
    assert least_pictures(0.1, 0.9) == 22
    assert tail([0.0] * 22, 0.1) <= 0.1 < tail([0.0] * 21, 0.1)
    with pytest.raises(PlanError, match="between 0 and 1"):
        tail([2.0], 0.1)


def test_pages_of_text_are_dense_and_photographs_are_not() -> None:
    assert max(map(stroke_density, backgrounds("test"))) < DENSE / 3
    page = Image.new("RGB", (600, 400), "white")
    for line in range(25):
        ImageDraw.Draw(page).text(
            (10, 10 + 15 * line), "The quick brown fox jumps over the lazy dog " * 2, fill="black"
        )
    assert stroke_density(page) > 2 * DENSE
    assert stroke_density(page.resize((1500, 1000))) > DENSE
    assert stroke_density(Image.new("RGB", (5, 5))) == 0.0


PLANS = [PrunePlan.of("random", keep, num_layers=4) for keep in (20, 10, 5)]


def questions(count: int = 66) -> list[Asked]:
    return made_asked(count, 1)


def trials(changes: Callable[[int, int], bool]) -> Callable[[Asked, Sequence[PrunePlan]], list[Trial]]:
    """A plan costs what it keeps; `changes(scene, keep)` says whether it changes the answer."""

    def made(one: Asked, plans: Sequence[PrunePlan]) -> list[Trial]:
        keeps = [int(plan.stages[0].keep) for plan in plans]
        return [Trial(not changes(one.scene, k), 1 / k, float(k), float(k), 1e9 * k) for k in keeps]

    return made


def run(changes: Callable[[int, int], bool], **options: Any) -> Tuned:
    return tune(questions(), PLANS, trials(changes), **{"max_loss": 0.1, **options})


def test_the_cheapest_plan_that_can_be_shown_is_recommended() -> None:
    tuned = run(lambda scene, keep: keep == 5 and scene % 2 == 0)
    assert tuned.plan == PLANS[1]
    assert tuned.bound == pytest.approx(1 - 0.1 ** (1 / 44), abs=1e-4)
    assert [m.plan for m in tuned.front] == PLANS
    assert {scene % 3 for m in tuned.explored for scene in m.losses} == {0}
    assert {scene % 3 for m in tuned.confirmed for scene in m.losses} == {1, 2}
    assert recommendation(tuned).startswith("Recommended: random 10")


def test_a_plan_that_fails_on_held_out_pictures_ends_the_search() -> None:
    """Faultless on the pictures that choose, and so is the cheapest: nothing behind a failure is tried."""
    tuned = run(lambda scene, keep: keep == 10 and scene % 3 > 0)
    assert tuned.plan == PLANS[0]
    assert [m.plan for m in tuned.confirmed] == PLANS[:2]


def test_without_a_plan_that_is_good_enough_all_tokens_are_kept() -> None:
    tuned = run(lambda scene, keep: True)
    assert tuned.plan is tuned.best is tuned.bound is None
    assert "keep all tokens" in recommendation(tuned)


def test_plans_that_lose_to_another_are_not_on_the_front() -> None:
    tuned = run(lambda scene, keep: keep == 10 and scene % 2 == 0)
    assert [m.plan for m in tuned.front] == [PLANS[0], PLANS[2]]
    assert tuned.plan == PLANS[2]


def test_a_plan_costs_the_mean_of_its_questions_and_the_median_of_their_times() -> None:
    def made(one: Asked, plans: Sequence[PrunePlan]) -> list[Trial]:
        scene = float(one.scene)
        known = Trial(True, scene / 10, scene**2, scene + 1, 1e9 * scene)
        return [known, replace(known, flops=None if one.scene == 3 else 1.0)]

    first, second = tune(questions(), PLANS[:2], made, max_loss=0.1).explored
    pictures = [float(scene) for scene in range(0, 66, 3)]
    mean, middle = sum(pictures) / 22, (30.0**2 + 33.0**2) / 2
    figures = (first.kl, first.prefill_ms, first.layer_average, first.flops)
    assert figures == pytest.approx((mean / 10, middle, mean + 1, 1e9 * mean))
    assert second.flops is None, "no count of one question is no count of the plan"
    assert [one.cost("flops") for one in (first, second)] == pytest.approx([1e9 * mean, mean + 1])
    assert (first.cost("tokens"), first.cost("time")) == pytest.approx((mean + 1, middle))


def test_the_bound_is_over_pictures_not_questions() -> None:
    many = made_asked(66, 3)
    tuned = tune(many, PLANS[:1], trials(lambda scene, keep: False), max_loss=0.1)
    assert tuned.best is not None
    assert len(tuned.best.losses) == 44


def test_text_dense_pictures_are_told_apart() -> None:
    dense = {scene: DENSE if scene == 1 else 0.99 * DENSE for scene in range(66)}
    tuned = run(lambda scene, keep: keep == 5 and scene == 1, densities=dense)
    assert tuned.plan == PLANS[2]
    assert tuned.best is not None
    assert tuned.dense_loss(tuned.best) == 1.0
    milder = tuned.milder()
    assert milder is not None
    assert milder.plan == PLANS[1]
    assert "prune these more mildly (random 10 stays within 10.0% there)" in recommendation(tuned)
    assert "| 100.0 |" in tuning_table(tuned)


def test_what_cannot_run_is_told_and_the_others_go_on() -> None:
    def made(one: Asked, plans: Sequence[PrunePlan]) -> list[Trial]:
        rows = trials(lambda scene, keep: False)(one, plans)
        return [Trial(False, 0, 0, 0, None, "no CLS") if p == PLANS[0] else t for p, t in zip(plans, rows, strict=True)]

    tuned = tune(questions(), PLANS, made, max_loss=0.1)
    assert tuned.left_out == [{"name": "random 20", "reason": "no CLS"}]
    assert tuned.plan == PLANS[2]
    assert tuned.to_dict()["recommended"] == PLANS[2].to_dict()
    assert "not run: random 20: no CLS" in tuning_table(tuned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_loss": 0.05}, "66 pictures cannot show a loss of at most 5.0% with 90% confidence: that takes 68"),
        ({"max_loss": 0.0}, "max_loss is a share"),
        ({"confidence": 1.5}, "confidence is a share"),
        ({"cost": "watts"}, "unknown cost 'watts'"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_the_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        tune(questions(), PLANS, lambda *_: pytest.fail("measured"), **{"max_loss": 0.1, **options})
    assert message in str(caught.value)


def test_agreement_and_divergence_are_those_of_two_plain_runs() -> None:
    """All tokens: nothing changes. Few: agreement and divergence are those of two answers."""
    model, processor = load_embedded()
    plans = [PrunePlan.of(*plan, num_layers=8) for plan in (("random", 1.0), ("grid", 8), ("vlm-pruner", 192))]
    meter, found = Meter(model, processor), []
    for one in ask_split(model, processor, "validation", 1)[:4]:
        same, *rows = meter.trials(one, plans)
        assert (same.agrees, same.kl) == (True, 0.0)
        inputs = processor(images=list(one.images), text=[one.prompt], return_tensors="pt")
        greedy = {"do_sample": False, "max_new_tokens": 12, "output_scores": True, "return_dict_in_generate": True}
        full = model.generate(**inputs, **greedy)
        for plan, trial in zip(plans[1:], rows, strict=True):
            with torch.inference_mode(), prune(model, plan) as session:
                pruned = model.generate(**inputs, **greedy)
            assert trial.agrees == (full.sequences.tolist() == pruned.sequences.tolist())
            assert trial.layer_average == session.report.layer_average
            assert trial.flops == session.report.flops_pruned
            found.append(trial.agrees)
            if len(full.scores) == len(pruned.scores) and trial.agrees:
                both = [[s[0].log_softmax(-1) for s in run.scores] for run in (full, pruned)]
                each = [float((p.exp() * (p - q)).nan_to_num().sum()) for p, q in zip(*both, strict=True)]
                assert trial.kl == pytest.approx(sum(each) / len(each), abs=1e-5)
    assert set(found) == {True, False}


def test_a_token_that_the_pruned_model_rules_out_counts_as_far_as_a_number_can_say() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([1.0, 0.0, 0.0]).log()
    assert _divergence(p, q) == pytest.approx(math.log(0.5) + 0.5 * 1e4, abs=0.1)
    assert _divergence(q, p) == pytest.approx(math.log(2))


def test_a_method_that_cannot_run_is_a_trial_with_the_reason() -> None:
    model, processor = load_embedded()
    one = ask_split(model, processor, "validation", 1)[0]
    plans = [PrunePlan((Stage("grid", 64, layer),)) for layer in (20, 2)]
    broken, good = Meter(model, processor).trials(one, plans)
    assert "layer 20 does not exist" in broken.refused
    assert broken == Trial(False, 0.0, 0.0, 0.0, None, broken.refused)
    assert good.refused == ""


@pytest.mark.parametrize(("mean", "most", "n"), [(0.25, 0.5, 8), (0.125, 0.2, 40), (0.5, 0.75, 16)])
def test_losses_between_0_and_1_have_the_bound_of_hoeffding_and_bentkus(mean: float, most: float, n: int) -> None:
    """The smaller of two: exp(-n KL(mean, most)), and e times the binomial tail at the rounded-up sum."""
    kl = mean * math.log(mean / most) + (1 - mean) * math.log((1 - mean) / (1 - most))
    sum_up = math.ceil(n * mean)
    binomial = sum(math.comb(n, k) * most**k * (1 - most) ** (n - k) for k in range(sum_up + 1))
    assert tail([mean] * n, most) == pytest.approx(min(1.0, math.exp(-n * kl), math.e * binomial))
