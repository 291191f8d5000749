"""The mask of the unpruned sequence, read at the places of what is stored."""

from __future__ import annotations

import pytest
import torch

from vlm_pruner.engine.masks import Places, remap_mask

HIDDEN = torch.zeros(1, 1, 4)
KEYS = {  # places (+ 1) of the stored keys, first column, first places with columns of their own -> seen by one query
    "padding": ([0, 1, 3], 0, 0, [False, True, True]),
    "hidden": ([1, 2, 4], 0, 0, [True, False, True]),
    "behind the last column": ([1, 5, 6], 0, 0, [True, False, False]),
    "in front of the first column": ([2, 3, 6], 2, 0, [False, True, True]),
    "a first place and what slid away": ([1, 2, 4, 5, 6], 1, 1, [True, False, True, True, False]),
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("kind", ["flash", "sdpa", "eager"])
def test_a_key_is_seen_where_its_column_is(name: str, kind: str) -> None:
    """Columns: seen, hidden, seen, seen. What has no column is not seen."""
    key, offset, first, expected = KEYS[name]
    whole = torch.tensor([[True, False, True, True]])
    places = Places(torch.tensor([[9]]), torch.tensor([key]), offset, first)
    if kind == "flash":
        found = remap_mask(whole, places, None, True, True, HIDDEN, "flash_attention_2")
    elif kind == "sdpa":
        found = remap_mask(whole[:, None, None], places, None, True, True, HIDDEN, "sdpa")[0, 0]
    else:
        lowest = torch.finfo(torch.float32).min
        mask = torch.zeros(1, 1, 1, 4).masked_fill(~whole[:, None, None], lowest)
        found = remap_mask(mask, places, None, True, True, HIDDEN, "eager")[0, 0]
        assert set(found.unique().tolist()) <= {0.0, lowest}
        found = found == 0
    assert found.tolist() == [expected]
