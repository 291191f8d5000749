"""Plans are data: checked when they are made, and the same after a round trip through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vlm_pruner import PlanError, PrunePlan, Stage
from vlm_pruner.methods.base import create
from vlm_pruner.plan import parse_layer

TWO = PrunePlan((Stage(create("random", seed=3), 0.5, None), Stage(create("divprune"), 0.111, 2)))


def test_round_trip() -> None:
    again = PrunePlan.from_json(TWO.to_json())
    assert again == TWO
    assert again.fingerprint() == TWO.fingerprint()
    assert json.loads(TWO.to_json())["version"] == 1
    assert json.loads(TWO.to_json())["stages"][0] == {
        "method": "random", "params": {"seed": 3}, "keep": 0.5, "layer": None
    }  # fmt: skip


@pytest.mark.parametrize("keep", [1, 1.0])
def test_one_token_is_not_all_tokens(keep: float) -> None:
    plan = PrunePlan.of("random", keep, num_layers=4)
    again = PrunePlan.from_json(plan.to_json()).stages[0].keep
    assert type(again) is type(keep)


def test_fingerprint_names_the_plan() -> None:
    other = PrunePlan(TWO.stages, min_visual_tokens=8)
    assert other.fingerprint() != TWO.fingerprint()
    assert (
        PrunePlan.of("random", 1, num_layers=4).fingerprint() != PrunePlan.of("random", 1.0, num_layers=4).fingerprint()
    )
    assert len(TWO.fingerprint()) == 12
    assert int(TWO.fingerprint(), 16) >= 0


def test_a_stage_before_the_tower_is_data_like_any_other() -> None:
    plan = PrunePlan((Stage("random", 0.5, "tower"), Stage("random", 0.4), Stage("random", 0.2, 2)))
    assert [stage.site for stage in plan.stages] == [0, 0, 2]
    assert [stage.place for stage in plan.stages] == [
        "before the tower", "before the language model", "at decoder layer 2",
    ]  # fmt: skip
    assert PrunePlan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json())["stages"][0]["layer"] == "tower"
    assert plan.lengths(100, 4) == [40, 40, 20, 20]
    assert PrunePlan.of("grid", 7, "tower", num_layers=4).stages[0].layer == "tower"
    assert (parse_layer("tower"), parse_layer("0"), parse_layer("3")) == ("tower", 0, 3)
    with pytest.raises(PlanError, match=r"'towr' is not a decoder layer: .* or 'tower' for before the vision tower"):
        parse_layer("towr")


def test_layer_zero_is_before_the_language_model() -> None:
    assert Stage(create("random"), 4, 0) == Stage(create("random"), 4, None)
    assert Stage(create("random"), 4, 0).layer is None
    assert Stage(create("random"), 4, 0).site == 0


def changed(**changes: Any) -> str:
    return json.dumps({**TWO.to_dict(), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"not a plan: not JSON: Expecting property name"),
        ("[]", r"a plan is a JSON object with \['stages', 'version'\], got list"),
        ("{}", r"a plan needs \['stages', 'version'\]"),
        (changed(version=2), r"plan version 2 cannot be read; this library reads version 1"),
        (changed(stagez=[]), r"unknown key of a plan 'stagez'; did you mean 'stages'\?"),
        (changed(stages=[]), r"a plan needs at least one stage"),
        (changed(stages=[{"method": "random"}]), r"a stage needs \['keep'\]"),
        (
            changed(stages=[{"method": "random", "keep": 4, "kep": 4}]),
            r"unknown key of a stage 'kep'; did you mean 'keep'",
        ),
        (changed(stages=[{"method": "rndom", "keep": 4}]), r"unknown method 'rndom'; did you mean 'random'\?"),
        (changed(stages=[{"method": "random", "keep": 4, "params": {"sed": 1}}]), r"unknown parameter of random 'sed'"),
        (changed(positions="repackt"), r"unknown positions 'repackt'; did you mean 'repacked'\?"),
        (changed(min_visual_tokens="few"), r"min_visual_tokens='few' is not a whole number"),
    ],
)
def test_unreadable_plans(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        PrunePlan.from_json(text)


def stages(*pairs: tuple[float | int, int | None]) -> tuple[Stage, ...]:
    return tuple(Stage(create("random"), keep, layer) for keep, layer in pairs)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0.5, 2), (0.4, 2)], r"the layers of the stages must ascend, got \[2, 2\]"),
        ([(0.5, 3), (0.4, 1)], r"the layers of the stages must ascend, got \[3, 1\]"),
        ([(0.2, 1), (0.4, 3)], r"layer 3 cannot keep 0.4: layer 1 leaves only 0.2"),
        ([(8, None), (16, 3)], r"layer 3 cannot keep 16: layer 0 leaves only 8"),
    ],
)
def test_stages_in_disorder(pairs: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        PrunePlan(stages(*pairs))


def test_repacked_positions_need_a_stage_before_the_language_model() -> None:
    with pytest.raises(PlanError, match=r"positions can only be repacked before the language model, not at layer 2"):
        PrunePlan(stages((0.5, 2)), positions="repacked")
    assert PrunePlan(stages((0.5, 0), (0.2, 2)), positions="repacked").positions == "repacked"


def test_of_leaves_the_layer_to_the_method() -> None:
    assert PrunePlan.of("vlm-pruner", 64, num_layers=32).stages[0].layer == 2
    assert PrunePlan.of("divprune", 64, num_layers=32).stages[0].layer is None
    assert PrunePlan.of("vlm-pruner", 64, 0, num_layers=32).stages[0].layer is None
    assert PrunePlan.of("vlm-pruner", 64, 5, num_layers=32).stages[0].layer == 5


def test_of_a_method_with_stages_of_its_own() -> None:
    plan = PrunePlan.of("pyramiddrop", 0.25, num_layers=32)
    assert len(plan.stages) > 1
    with pytest.raises(
        PlanError, match=r"layer=4 cannot be met: pyramiddrop prunes at several layers, here \[.*without layer="
    ):
        PrunePlan.of("pyramiddrop", 0.25, 4, num_layers=32)


def test_of_a_finished_plan() -> None:
    assert PrunePlan.of(TWO, num_layers=5) is TWO
    with pytest.raises(PlanError, match=r"a plan already says how much, where and how"):
        PrunePlan.of(TWO, 64, num_layers=5)
    with pytest.raises(PlanError, match=r"layer 2 does not exist: the model has 2 layers \(0 to 1\)"):
        PrunePlan.of(TWO, num_layers=2)


def test_no_pruning_needs_no_budget() -> None:
    assert PrunePlan.of("none", num_layers=4).stages[0].keep == 1.0


def test_who_made_a_plan_is_told_and_is_no_part_of_what_it_does() -> None:
    made = PrunePlan.of("v2drop", 64, num_layers=8)
    assert (made.asked, made.made_by) == (64, "v2drop")
    again = PrunePlan.from_json(made.to_json())
    assert (again.asked, again.made_by, again) == (64, "v2drop", made)
    written = PrunePlan(made.stages)
    assert (written, written.fingerprint()) == (made, made.fingerprint())
    assert "asked" not in written.to_dict()
    assert (made.asked_of(576), written.asked_of(576), made.asked_of(32)) == (64, made.stages[-1].keep, 32)
    assert PrunePlan.of("none", 64, num_layers=8).asked_of(576) == 576


def test_tokens_that_enter_each_layer() -> None:
    plan = PrunePlan((Stage("random", 300, 1), Stage("random", 0.1, 3)))
    assert plan.lengths(576, 5) == [576, 300, 300, 58, 58]
    assert plan.lengths(100, 5) == [100, 100, 100, 10, 10]


def test_old_pictures_keep_less_and_plans_without_say_nothing_of_it() -> None:
    plan = PrunePlan.of("random", 64, num_layers=4, older=[32, 0.1])
    assert PrunePlan.from_json(plan.to_json()) == plan
    assert [plan.most(100, age) for age in range(4)] == [100, 32, 10, 10]
    assert [plan.asked_of(100, age) for age in range(4)] == [64, 32, 10, 10]
    assert plan.asked_of(20, 1) == 20
    plain = PrunePlan.of("random", 64, num_layers=4)
    assert "older" not in plain.to_dict()
    assert plan.fingerprint() != plain.fingerprint()


@pytest.mark.parametrize(
    ("older", "given", "why"),
    [
        ([0], {}, "keep=0 keeps nothing"),
        ("64", {}, "not a list of numbers"),
        ([8], {"per": "frame"}, "whole pictures after the vision tower"),
        ([8], {"layer": "tower"}, "whole pictures after the vision tower"),
    ],
)
def test_ages_that_cannot_be_had(older: Any, given: dict[str, Any], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        PrunePlan.of("random", 64, num_layers=4, older=older, **given)
