"""Layers of a cache that remember what was dropped."""

from __future__ import annotations

from tests.support.families import tiny
from tests.support.pruning import generate, plan

from vlm_pruner import prune


def test_a_cache_that_grows_on_the_host_counts_there() -> None:
    family, model = tiny("llava")
    with prune(model, plan((0.4, 2))):
        cache = generate(model, family.inputs([family.prompt(3, 1)]), max_new_tokens=2).past_key_values
    assert [type(layer.get_seq_length()) for layer in cache.layers] == [int] * len(cache.layers)
