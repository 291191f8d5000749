"""What the parts of a layer are called, on stand-ins that have nothing else."""

from __future__ import annotations

from types import SimpleNamespace as Made

import pytest
from torch.nn import Linear

from vlm_pruner.adapters.modules import active_share, attention_of, entry_size, looked_through, output_of


def test_attention_is_what_projects_queries() -> None:
    attention, state = Made(q_proj=Linear(4, 4)), Made(in_proj=Linear(4, 4))
    assert attention_of(Made(self_attn=attention)) is attention
    assert attention_of(Made(mixer=attention)) is attention
    assert attention_of(Made(mixer=state)) is None
    assert attention_of(Made()) is None


@pytest.mark.parametrize("name", ["o_proj", "out_proj", "dense"])
def test_the_output_has_one_of_three_names(name: str) -> None:
    projection = Linear(4, 4)
    assert output_of(Made(**{name: projection})) is projection
    assert output_of(Made(other=projection)) is None


def test_an_indexer_looks_with_its_query_at_each_key_or_pool() -> None:
    heads = {"index_n_heads": 3, "index_head_dim": 8}
    assert looked_through(Made(**heads)) == 2 * 24
    assert looked_through(Made(**heads, wq_b=Linear(4, 12))) == 2 * 12
    assert looked_through(Made(**heads, q_proj=Linear(4, 16), index_kpool=4)) == 2 * 16 // 4
    assert looked_through(Made(**heads, compress_ratio=8)) == 2 * 24 // 8


def test_an_entry_is_a_key_and_a_value_of_all_heads() -> None:
    keys, values = Linear(4, 12), Linear(4, 20)
    assert entry_size(Made(k_proj=keys, v_proj=values), 64) == 32
    assert entry_size(Made(k_proj=keys, v_proj=None), 64) == 24
    assert entry_size(Made(num_key_value_groups=4), 64) == 16
    assert entry_size(Made(), 64) == 64
    assert entry_size(Made(k_proj=keys, kv_a_proj_with_mqa=Linear(4, 10)), 64) == 10


def test_a_token_runs_some_of_the_experts() -> None:
    assert active_share(Made(num_local_experts=8, num_experts_per_tok=2)) == 0.25
    assert active_share(Made(hidden_size=8)) == 1.0
