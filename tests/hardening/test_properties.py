"""What holds for every budget, every plan and every batch: hypothesis looks for one for which it does not."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import torch
from benchmarks.fuzz_targets import told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.families import tiny
from tests.support.pruning import close, generate, plan

from vlm_pruner import PlanError, PrunePlan, prune
from vlm_pruner.budget import check_keep, keep_count, parse_keep, share_budget, split_budget

SHORT = settings(max_examples=100, deadline=None, derandomize=True, database=None)
ENGINE = settings(SHORT, max_examples=10, suppress_health_check=list(HealthCheck))

totals = st.integers(1, 100_000)
shares = st.floats(0.0, 1.0, exclude_min=True)
anything: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@SHORT
@given(totals, shares)
def test_a_share_is_rounded_up_and_never_nothing(total: int, share: float) -> None:
    count = keep_count(total, share)
    exact = Fraction(repr(share)) * total
    assert count == max(1, math.ceil(exact))
    assert 1 <= count <= total


@SHORT
@given(totals, shares, shares)
def test_more_is_never_less(total: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert keep_count(total, low) <= keep_count(total, high)


@SHORT
@given(st.lists(st.integers(1, 900), min_size=1, max_size=12), st.data())
def test_budgets_are_dealt_out_whole(sizes: list[int], data: Any) -> None:
    keep = data.draw(st.integers(len(sizes), sum(sizes)))
    weights = data.draw(st.lists(st.floats(0, 1e6), min_size=len(sizes), max_size=len(sizes)))
    for dealt in (split_budget(sizes, keep), share_budget(weights, sizes, keep)):
        assert sum(dealt) == keep
        assert all(1 <= count <= size for count, size in zip(dealt, sizes, strict=True))


@SHORT
@given(anything)
def test_a_budget_is_a_number_or_refused(thing: Any) -> None:
    try:
        found = check_keep(thing)
    except PlanError as error:
        told(error)
        return
    assert parse_keep(repr(found)) == found


@SHORT
@given(anything, st.sampled_from(["version", "stages", "positions", "per", "older", "asked", "min_visual_tokens"]))
def test_a_plan_is_read_or_refused(thing: Any, key: str) -> None:
    data = {"version": 1, "stages": [{"method": "grid", "keep": 64, "layer": 2}]}
    for made in (thing, {**data, key: thing}, {**data, "stages": [{**data["stages"][0], "layer": thing}]}):  # type: ignore[index]
        try:
            found = PrunePlan.from_json(json.dumps(made))
        except PlanError:
            continue
        assert PrunePlan.from_json(found.to_json()) == found


batches = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3), st.integers(1, 6)), min_size=1, max_size=3)
stages = st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.integers(0, 4)), min_size=1, max_size=3)


@ENGINE
@given(batches, stages, st.sampled_from([{}, {"num_beams": 2}, {"use_cache": False}]))
def test_a_row_of_any_batch_is_answered_as_alone(batch: Any, drawn: Any, way: dict[str, Any]) -> None:
    family, model = tiny("llava")
    made: dict[int, float] = {}
    for keep, layer in sorted(drawn, key=lambda one: one[1]):
        made.setdefault(layer, min(keep, *made.values(), 1.0))
    pruning = plan(*((keep, layer) for layer, keep in made.items()))
    prompts = [family.prompt(before, images, tail=after) for before, images, after in batch]
    with prune(model, pruning) as session:
        together = generate(model, family.inputs(prompts, model.dtype), **way)
        kept = [image.selection.index.tolist() for image in session.images]
        alone: list[list[int]] = []
        for row, prompt in enumerate(prompts):
            answer = generate(model, family.inputs([prompt], model.dtype), **way)
            assert torch.equal(answer.sequences[0, -4:], together.sequences[row, -4:])
            if "num_beams" not in way:
                close([one[:1] for one in answer.logits], [one[row : row + 1] for one in together.logits], model)
            alone += [image.selection.index.tolist() for image in session.images]
    assert alone == kept
