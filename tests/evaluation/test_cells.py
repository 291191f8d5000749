from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tests.support.families import tiny

from vlm_pruner.budget import Keep, layer_average
from vlm_pruner.engine import decoder_costs
from vlm_pruner.errors import PlanError
from vlm_pruner.evaluation.cells import (
    BLIND,
    DOWNSAMPLE,
    LAYER_AVERAGE,
    Cell,
    build_grid,
    default_methods,
    equal_cost,
    price_named,
)
from vlm_pruner.flops import prefill_flops
from vlm_pruner.methods import PruningMethod, create, registry
from vlm_pruner.types import Selection, Signal, VisualTokens

LAYERS, TOKENS = 8, 576


@dataclass(frozen=True)
class First(PruningMethod):
    """Keeps the first tokens, at given layers, each stage half of the one before."""

    name: ClassVar[str] = "random"  # so that a plan can be written down
    sites: tuple[int, ...] = (2,)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return Selection(torch.arange(keep))

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        last = len(self.sites) - 1
        return [(self, keep * 2 ** (last - i), site) for i, site in enumerate(self.sites)]


def average(cell: Cell) -> float:
    return layer_average(cell.plan.lengths(TOKENS, LAYERS))


def test_every_registered_method_is_there_by_default() -> None:
    names = default_methods()
    assert set(names) == set(registry()) | {BLIND, DOWNSAMPLE}
    assert len(names) == len(set(names))
    grid = build_grid(names, [64], seeds=1, layers=LAYERS, tokens=TOKENS)
    assert {c.label for c in grid.cells} | {item["label"] for item in grid.left_out} == set(names)


def test_a_seed_of_ones_own_is_kept_where_one_is_enough() -> None:
    for tokens, budget in ((TOKENS, 64), (None, 0.25)):
        (cell,) = build_grid({"mine": create("random", seed=3)}, [budget], seeds=1, layers=LAYERS, tokens=tokens).cells
        assert cell.plan.stages[0].method.params() == {"seed": 3}


def test_budgets_and_seeds() -> None:
    grid = build_grid(["none", "random", "blind", "downsample"], [64, 32], seeds=3, layers=LAYERS, tokens=TOKENS)
    found = [(c.label, c.budget, c.seed) for c in grid.cells]
    assert [f for f in found if f[0] == "random"] == [("random", b, s) for b in (64, 32) for s in range(3)]
    assert [f for f in found if f[0] in ("none", "blind")] == [("none", 576, 0), ("blind", 576, 0)]
    small = {c.budget: c for c in grid.cells if c.label == "downsample"}
    assert (small[64].small_picture, small[64].plan.stages[0].keep) == (64, 64)
    assert next(c for c in grid.cells if c.label == "blind").blind_from == 2
    assert not grid.left_out


@pytest.mark.parametrize("budgets", [[0], [64, 577]])
def test_budgets_that_no_picture_has_are_refused(budgets: list[int]) -> None:
    with pytest.raises(PlanError, match="not between 1 and the 576"):
        build_grid(["random"], budgets, layers=LAYERS, tokens=TOKENS)


def test_a_schedule_never_asks_for_more_tokens_than_there_are() -> None:
    grid = build_grid({"halving": First(sites=(1, 2, 3))}, [192], layers=LAYERS, tokens=TOKENS)
    assert [s.keep for s in grid.cells[0].plan.stages] == [576, 384, 192]


@pytest.mark.parametrize(
    ("sites", "target", "keep"),
    [((0,), 100, 100), ((2,), 192, 64), ((2,), 288, 192), ((2,), 145, 1), ((1, 3), 150, 69), ((4,), 432, 288)],
)
def test_equal_cost_is_the_largest_budget_within_the_target(sites: tuple[int, ...], target: int, keep: int) -> None:
    method = First(sites=sites)
    assert equal_cost(method, target, LAYERS, TOKENS) == keep
    within, above = (build_grid({"x": method}, [k], layers=LAYERS, tokens=TOKENS).cells[0] for k in (keep, keep + 1))
    assert average(within) <= target < average(above)


def test_what_cannot_be_reached_is_said_with_its_least_cost() -> None:
    with pytest.raises(PlanError, match=r"cannot come down to 128 visual tokens per layer: .* has 144\.8"):
        equal_cost(First(sites=(2,)), 128, LAYERS, TOKENS)
    grid = build_grid({"late": First(sites=(6,))}, [192, 64], layers=LAYERS, tokens=TOKENS, equal=LAYER_AVERAGE)
    assert not grid.cells
    assert [item["budget"] for item in grid.left_out] == [192, 64]


def test_the_price_of_a_budget_is_what_vlm_pruner_has_at_it() -> None:
    methods = {"early": First(sites=(0,)), "same": First(sites=(2,)), "vlm-pruner": "vlm-pruner"}
    grid = build_grid(methods, [64], layers=LAYERS, tokens=TOKENS, equal=LAYER_AVERAGE)
    assert [(c.label, c.budget, c.plan.stages[0].keep, average(c)) for c in grid.cells] == [
        ("early", 64, 192, 192.0),
        ("same", 64, 64, 192.0),
        ("vlm-pruner", 64, 64, 192.0),
    ]
    assert grid.equal == "layer-average"


def test_flops_are_a_price_too() -> None:
    """Attention is a square: fewer tokens early are cheaper than the same mean over the layers."""
    _, model = tiny("llava")
    price = price_named("flops", model)
    assert price is not None
    costs, layers = decoder_costs(model), 5
    methods = {"early": First(sites=(0,)), "vlm-pruner": "vlm-pruner"}
    grid = build_grid(methods, [64], layers=layers, tokens=TOKENS, equal=price)
    early, own = grid.cells
    spent = [prefill_flops(costs, [64 + n for n in cell.plan.lengths(TOKENS, layers)]) for cell in (early, own)]
    more = dataclasses.replace(early.plan.stages[0], keep=early.plan.stages[0].keep + 1)
    assert spent[0] <= spent[1] < prefill_flops(costs, [64 + more.keep] * layers)
    assert (own.plan.stages[0].keep, grid.equal) == (64, "flops")
    assert (
        early.plan.stages[0].keep
        != build_grid(methods, [64], layers=layers, tokens=TOKENS, equal=LAYER_AVERAGE).cells[0].plan.stages[0].keep
    )
    assert price_named("nominal", model) is price_named(None, model) is None
    with pytest.raises(PlanError, match="did you mean 'flops'"):
        price_named("flop", model)


@pytest.mark.parametrize("signal", [Signal.TEXT, Signal.WORDS, Signal.LAST_QUERY_ATTENTION, Signal.TEXT_ATTENTION])
def test_a_method_that_sees_text_is_never_taken_for_question_agnostic(signal: Signal) -> None:
    reader = dataclasses.make_dataclass("Reader", [], bases=(First,), frozen=True)
    reader.needs = frozenset({signal})
    for method, aware in ((First(), False), (reader(), True)):
        assert build_grid({"x": method}, [64], layers=LAYERS, tokens=TOKENS).cells[0].question_aware is aware


def test_the_key_of_a_cell_depends_on_all_that_its_answers_depend_on() -> None:
    context = {"model": "abc"}
    cell = build_grid(["random"], [64], seeds=1, layers=LAYERS, tokens=TOKENS).cells[0]
    others = [
        cell.key({"model": "abd"}),
        *(c.key(context) for c in build_grid(["random"], [64], seeds=2, layers=LAYERS, tokens=TOKENS).cells[1:]),
        build_grid(["random"], [63], seeds=1, layers=LAYERS, tokens=TOKENS).cells[0].key(context),
        dataclasses.replace(cell, small_picture=64).key(context),
        dataclasses.replace(cell, blind_from=2).key(context),
    ]
    assert len({cell.key(context), *others}) == 1 + len(others)
    assert dataclasses.replace(cell, label="another name").key(context) == cell.key(context)


def test_one_method_instance_can_have_many_labels() -> None:
    variants = {f"seed {s}": create("none") for s in range(2)}
    assert [c.label for c in build_grid(variants, [64], layers=LAYERS, tokens=TOKENS).cells] == ["seed 0", "seed 1"]
