"""What holds for every budget, every plan and every batch: hypothesis looks for one for which it does not."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from benchmarks.fuzz_targets import told
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from tests.support.families import tiny
from tests.support.pruning import close, dropped, generate, plan

from vlm_pruner import PlanError, PrunePlan, prune
from vlm_pruner.budget import check_keep, keep_count, parse_keep, share_budget, split_budget
from vlm_pruner.engine import Session
from vlm_pruner.verify.reference import masked

SHORT = settings(max_examples=100, deadline=None, derandomize=True, database=None)
ENGINE = settings(SHORT, suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink))

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


MODELS = (
    "llava", "llava_next", "qwen2_vl-video", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "gemma3", "gemma3n",
    "paligemma2", "qwen3_5", "lfm2_vl",
)  # fmt: skip
WAYS = ({}, {"num_beams": 2}, {"use_cache": False}, {"cache_implementation": "static"}, {"do_sample": True})
rows = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2), st.integers(1, 6)), min_size=1, max_size=3)
stages = st.tuples(
    st.lists(st.sampled_from([0.2, 0.4, 0.6, 0.9]), min_size=1, max_size=3, unique=True)
    | st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 4), min_size=3, max_size=3, unique=True),
)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("examples", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_any_batch_is_answered_as_by_the_full_model_and_as_its_rows_alone(name: str, examples: int) -> None:
    settings(ENGINE, max_examples=examples)(given(st.just(name), rows, stages, st.sampled_from(WAYS))(_answered))()


def _answered(name: str, batch: Any, drawn: Any, way: dict[str, Any]) -> None:
    """The full model has the dropped tokens hidden. With beams and samples, rows are not asked alone:
    they would draw other numbers."""
    family, model = tiny(name)
    prompts = [family.prompt(*one) for one in batch]
    assume(any(prompt.tokens for prompt in prompts) and (name != "idefics3" or prompts[0].tokens))
    assume(name != "paligemma2" or "cache_implementation" not in way)  # transformers fails with them, pruned or not
    keeps, layers = sorted(drawn[0], reverse=True), sorted(layer for layer in drawn[1] if layer in family.sites)
    places = list(zip(keeps, layers, strict=False))
    inputs = family.inputs(prompts, model.dtype)
    torch.manual_seed(5)
    with prune(model, plan(*places)) as session:
        together, gone = generate(model, inputs, **way), dropped(session, prompts)
        kept, alone = _chosen(session), []
        for row, prompt in enumerate(prompts):
            if not {"num_beams", "do_sample"} & set(way):
                answer = generate(model, family.inputs([prompt], model.dtype), **way)
                close([one[0] for one in answer.logits], [one[row] for one in together.logits], model)
                alone += _chosen(session)
    torch.manual_seed(5)
    with masked(model, gone):
        full = generate(model, inputs, **{**way, "cache_implementation": None})  # it hides tokens in ordinary caches
    assert torch.equal(together.sequences, full.sequences)
    close(together.logits, full.logits, model)
    assert alone in ([], kept)


def _chosen(session: Session) -> list[list[list[int]]]:
    """Of every picture, what stayed after each stage."""
    return [[selection.index.tolist() for _, _, selection in image.stages] for image in session.images]
