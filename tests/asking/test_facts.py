"""How plans are called, and what is told of them."""

from __future__ import annotations

import pytest

from vlm_pruner.asking import name_of, one_token, title_of
from vlm_pruner.plan import PrunePlan, Stage


@pytest.mark.parametrize(
    ("plan", "name", "title"),
    [
        (PrunePlan.of("vlm-pruner", 64, num_layers=8), "vlm-pruner 64", "VLM-Pruner, 64 tokens"),
        (PrunePlan.of("random", 1, num_layers=8), "random 1", "Random, 1 token"),
        (PrunePlan.of("random", 0.111, num_layers=8), "random 0.111", "Random, 11.1 % of the tokens"),
        (
            PrunePlan(
                (Stage("v2drop", 96, 2), Stage("v2drop", 48, 4), Stage("v2drop", 1, 6)), made_by="v2drop", asked=64
            ),
            "v2drop 64",
            "V2Drop: 96, 48, 1 tokens at layers 2, 4, 6",
        ),
        (
            PrunePlan((Stage("tome", 0.5), Stage("tome", 0.25, 4))),
            "tome 0.5 + tome 0.25",
            "ToMe: 50, 25 % of the tokens before the language model and at layer 4",
        ),
        (
            PrunePlan((Stage("divprune", 192), Stage("vlm-pruner", 64, 4))),
            "divprune 192 + vlm-pruner 64",
            "DivPrune: 192 tokens before the language model + VLM-Pruner: 64 tokens at layer 4",
        ),
        (PrunePlan.of("none", num_layers=8), "all tokens", "No pruning, 100 % of the tokens"),
    ],
)
def test_names_and_titles(plan: PrunePlan, name: str, title: str) -> None:
    assert (name_of(plan), title_of(plan)) == (name, title)


def test_a_schedule_of_two_methods_goes_by_the_name_that_was_asked_for() -> None:
    plan = PrunePlan.of("star-pro", 64, num_layers=32)
    assert name_of(plan) == "star-pro 64"
    assert title_of(plan).startswith("STAR-Pro = Pivoted QR")


@pytest.mark.parametrize(("keep", "said"), [(1, True), (1.0, False), (2, False)])
def test_who_asks_for_one_token_is_told_so(keep: int | float, said: bool) -> None:
    assert (one_token([64, keep], 576) == "keep 1 keeps 1 token of 576; all of them is 1.0") is said
    assert one_token([keep], 1) == ""
