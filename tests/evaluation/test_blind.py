"""Masks of questions that must not see their picture; answers of blinded models are compared in test_decode.py."""

from __future__ import annotations

import torch

from vlm_pruner.evaluation.blind import _without

VISUAL = torch.tensor([False, True, True])
QUERY = torch.zeros(2, 1, 8)


def test_a_single_query_without_a_mask_is_blinded_too() -> None:
    """`generate` gives none where the query sees everything."""
    found = _without(None, VISUAL, QUERY, 5)
    assert found[0, 0].tolist() == found[1, 0].tolist() == [[True, False, False, True, True]]


def test_what_a_mask_closes_already_stays_closed() -> None:
    seen = torch.tensor([False, True, True, False, True]).expand(2, 1, 1, 5)
    assert _without(seen, VISUAL, QUERY, 5)[1, 0, 0].tolist() == [False, False, False, False, True]
    lowest = torch.finfo(torch.float32).min
    added = torch.zeros(2, 1, 1, 5).masked_fill(~seen, lowest)
    assert _without(added, VISUAL, QUERY, 5)[1, 0, 0].tolist() == [lowest] * 4 + [0.0]
