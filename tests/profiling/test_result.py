"""What is derived from samples, on numbers that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from math import isclose, nan

import pytest

from vlm_pruner.flops import DecoderShape, prefill_flops
from vlm_pruner.profiling import ProfileResult, Variant
from vlm_pruner.profiling.show import first_token_parts, table

SHAPE = DecoderShape(4, 64, 128, 4, 4, 16, 256)


def result(pruned_prefill: float, selection: float = 2.0) -> ProfileResult:
    full = Variant("unpruned", (), {"prefill": [100.0], "first_token": [150.0], "encoder": [40.0]}, 10, 20)
    samples = {"prefill": [pruned_prefill], "first_token": [50 + pruned_prefill], "selection": [selection]}
    pruned = Variant("keep 100", ((2, 100),), {**samples, "encoder": [40.0]}, 5, 10)
    machine = {"processor": "test", "threads": 1, "torch": "0"}
    return ProfileResult("M", "m at layer 2", machine, SHAPE, 50, (500,), 2, 4, None, (full, pruned))


def share() -> float:
    return prefill_flops(SHAPE, [550, 550, 150, 150]) / prefill_flops(SHAPE, [550] * 4)


def test_ideal_and_rest() -> None:
    found = result(80.0)
    variant = found.variants[1]
    assert isclose(found.ideal_prefill_ms(variant), 100 * share())
    assert isclose(found.rest_ms(variant), 80 - 100 * share() - 2)
    assert isclose(found.ideal_first_token_ms(variant), 50 + 100 * share())


def test_parts_of_the_first_token_sum_up() -> None:
    found = result(80.0)
    assert isclose(sum(first_token_parts(found, found.variants[1]).values()), 130.0)
    assert isclose(sum(first_token_parts(found, found.unpruned).values()), 150.0)


def test_the_rest_is_hooks_and_short_inputs() -> None:
    found = replace(result(80.0), hooks=Variant("hooks alone", ((2, 1.0),), {"prefill": [103.0]}, 10, 20))
    assert found.hooks_ms == 3.0
    lines = {line[:18].strip(): line.split()[-2] for line in table(found).splitlines() if " ms" in line}
    assert float(lines["hooks"]) + float(lines["short input"]) == pytest.approx(float(lines["rest"]), abs=0.02)


def test_break_even_is_where_saved_time_exceeds_the_cost() -> None:
    found = result(80.0)
    variant = found.variants[1]
    cost = 80 - 100 * share()
    rate = 100 / prefill_flops(SHAPE, [550] * 4)

    def saved(n: int, kept: int) -> float:
        full, left = prefill_flops(SHAPE, [50 + n] * 4), prefill_flops(SHAPE, [50 + n] * 2 + [50 + kept] * 2)
        return rate * (full - left)

    fewest, most = found.pays_from(variant), found.pays_up_to(variant)
    assert fewest is not None
    assert saved(fewest, 100) > cost >= saved(fewest - 1, 100)
    assert most is not None
    assert saved(500, most) > cost >= saved(500, most + 1)


def test_pruning_that_costs_more_than_it_could_ever_save_never_pays() -> None:
    found = result(1e9)
    assert found.pays_from(found.variants[1]) is None
    assert found.pays_up_to(found.variants[1]) is None
    assert "never pays on this model; of 500 image tokens, no budget pays" in table(found)


def test_pruning_without_cost_pays_from_the_first_dropped_token() -> None:
    found = result(100 * share() - 1e-9)
    assert found.pays_from(found.variants[1]) in (100, 101)
    assert found.pays_up_to(found.variants[1]) == 499


def test_what_was_not_measured_is_said_so() -> None:
    text = table(result(80.0))
    assert text.splitlines()[1].endswith("one run of each")
    assert text.splitlines()[3].split() == ["unpruned", "keep", "100"]
    assert next(line for line in text.splitlines() if line.startswith("projector")).count("not measured") == 2
    assert result(80.0).unpruned.ms("decode") == pytest.approx(nan, nan_ok=True)
