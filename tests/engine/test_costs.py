"""What the layers of every family cost, against torch's own counter and against the caches that the models fill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.support.families import FAMILIES, of_each_kind, tiny
from tests.support.pruning import generate
from tests.support.versions import cache_in
from torch.utils.flop_counter import FlopCounterMode

from vlm_pruner.engine import decoder_costs, prune
from vlm_pruner.engine.support import take_apart
from vlm_pruner.errors import UnsupportedModelError
from vlm_pruner.flops import DecoderCosts, kv_bytes, prefill_flops
from vlm_pruner.plan import PrunePlan, Stage

TOKENS = 24  # more than the windows of these models
INDEXED = {"dots3_note", "hy_v4_vl", "mistral_large4"}  # what the indexer does besides its products is left out
CHOOSING = {"qwen4_exp"}  # its indexer scores query by query, in products that are no batched ones
NOT_COUNTED = {"ernie4_5_vl_moe"}
STORED = ("keys", "values", "prefill_keys", "prefill_values")  # a prompt in front of a window stands apart
PADDED = {"inkling_mm_model"}  # short convolutions beside attention pad their ends
EVERY_EXPERT = {"llama4"}  # transformers runs all of them, whatever a token is sent to
STREAMS = {"gemma3n"}  # products between its residual streams are left out


def recurrent(model: Any) -> bool:
    parts = take_apart(model)
    kinds = {str(kind) for kind in getattr(parts.text_config, "layer_types", None) or ()}
    return bool(kinds & {"linear_attention", "conv", "moe", "mlp"})


def counted(model: Any, costs: DecoderCosts) -> tuple[dict[Any, int], Any]:
    """FLOPs by operation of a prefill of words alone, and the cache that it filled."""
    ids = torch.randint(10, 30, (1, TOKENS))
    asked = {} if costs.whole_head else {"logits_to_keep": 1}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = model(input_ids=ids, use_cache=True, **asked)
    return counter.get_flop_counts()["Global"], cache_in(output)


@pytest.mark.parametrize("name", of_each_kind(sorted(set(FAMILIES) - NOT_COUNTED)))
def test_prefills_and_caches_cost_what_the_modules_say(name: str) -> None:
    _, model = tiny(name, "eager")
    costs = decoder_costs(model)
    operations, cache = counted(model, costs)
    lengths = [TOKENS] * len(costs.layers)
    if recurrent(model):  # what it does inside are batched products, which attention makes, too
        flat = replace(costs, layers=tuple(replace(layer, pair=0) for layer in costs.layers))
        linear = sum(n for name, n in operations.items() if str(name) in ("aten.mm", "aten.addmm", "aten.convolution"))
        rest = 0.03 if name in CHOOSING else 5e-3  # convolutions pad their ends
        assert prefill_flops(flat, lengths) == pytest.approx(linear, rel=rest)
    elif name in EVERY_EXPERT:
        assert 0 < prefill_flops(costs, lengths) < sum(operations.values())
    else:
        rest = 0.015 if name in INDEXED else 0.05 if name in STREAMS else 5e-3 if name in PADDED else 0.0
        assert prefill_flops(costs, lengths) == pytest.approx(sum(operations.values()), rel=rest, abs=0)
    if cache is not None:
        parts = [getattr(layer, name, None) for layer in cache.layers for name in STORED]
        assert kv_bytes(costs, lengths, 1) == sum(part.numel() for part in parts if part is not None)


def test_what_has_no_count_is_said() -> None:
    with pytest.raises(
        UnsupportedModelError, match="words and pictures have separate experts, whose FLOPs are not counted"
    ):
        decoder_costs(tiny("ernie4_5_vl_moe")[1])


@pytest.mark.parametrize("name", ["qwen3_5", "gemma3n", "gemma4", "dots3_note", "lfm2_vl"])
def test_reports_of_layers_that_are_not_alike_have_costs(name: str) -> None:
    family, model = tiny(name)
    with prune(model, PrunePlan((Stage("random", 0.25),), min_visual_tokens=1)) as session:
        generate(model, family.inputs([family.prompt(1, 1)]))
    report = session.report
    assert 0 < report.flops_pruned < report.flops_full
    assert 0 < report.kv_bytes_pruned < report.kv_bytes_full
