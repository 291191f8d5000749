"""How plans are called, and what is told of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vlm_pruner.asking import name_of, one_token, title_of
from vlm_pruner.asking.answers import Run, Times, _Clock
from vlm_pruner.asking.wording import facts, timed
from vlm_pruner.plan import PrunePlan, Stage
from vlm_pruner.report import ImageReport, PruneReport


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


def test_facts_in_units_and_digits() -> None:
    plan, image = PrunePlan.of("divprune", 64, num_layers=8), ImageReport(0, 0, "image", (1, 24, 24), 576, 64, 66.25)
    times = Times(12.345, 6.789, 1.2345, 3.4567, 1)
    run = Run(plan, "a", 1, times, PruneReport((image,), plan, flops_pruned=1_234_567_890, kv_bytes_pruned=7_654_321))
    assert facts(run) == {
        "visual tokens asked for": "64", "left at the end": "64/576", "per layer, mean": "66.2",
        "first token, ms": "12.3", "prefill, ms": "6.8", "of it selection, ms": "1.23", "decode, ms per token": "3.46",
        "prefill, GFLOPs": "1.23", "KV cache, MB": "7.65",
    }  # fmt: skip
    bare = facts(replace(run, times=Times(12.345, 6.789, None, None, 1), report=PruneReport((), plan)))
    assert [name for name, text in bare.items() if text == "-"] == [
        name for name in bare if name not in ("first token, ms", "prefill, ms")
    ]


@pytest.mark.parametrize(("images", "said"), [(3, "9/36 + 9/36 + 9/36"), (4, "4 x 9/36"), (1, "9/36")])
def test_what_is_left_of_several_images(images: int, said: str) -> None:
    plan = PrunePlan.of("divprune", 9, num_layers=8)
    every = tuple(ImageReport(0, number, "image", (1, 6, 6), 36, 9, 9.0) for number in range(images))
    assert facts(Run(plan, "a", 1, Times(1.0, 1.0, None, None, 1), PruneReport(every, plan)))["left at the end"] == said


def test_milliseconds_to_the_first_token_and_from_one_to_the_next() -> None:
    clock = _Clock()
    clock.marks = [1.0, 1.25, 1.5, 1.75, 2.75]  # the start, the prompt, and three tokens
    assert clock.gaps() == [500.0, 250.0, 1000.0]


def test_times_of_one_run_are_no_medians() -> None:
    assert timed(1) == "Times are those of one run after a warm-up"
    assert timed(5) == "Times are medians of 5 runs, taken in turn after a warm-up"
