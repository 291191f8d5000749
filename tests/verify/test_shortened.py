"""The reference that runs layers over shortened rows: what entered them in earlier turns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from vlm_pruner.verify.shortened import _with_earlier


def test_a_later_turn_goes_on_with_the_rows_places_and_tables_of_the_earlier_ones() -> None:
    cache, told = SimpleNamespace(layers=[None]), {}
    whole = torch.randn(1, 5, 4)
    table = torch.randn(1, 5, 8)

    def turn(begin: int, end: int, rotary: Tensor) -> tuple[Tensor, dict[str, Any]]:
        places = torch.arange(begin, end)[None]
        kwargs = {"position_ids": places, "position_embeddings": (rotary, -rotary), "words": places + 7}
        return _with_earlier(told, cache, 0, whole[:, begin:end], kwargs)

    turn(0, 3, table[:, :3])
    hidden, kwargs = turn(3, 5, table[:, 3:])
    assert torch.equal(hidden, whole)
    assert all(map(torch.equal, kwargs["position_embeddings"], (table, -table)))
    assert kwargs["position_ids"].tolist() == [[0, 1, 2, 3, 4]]
    assert kwargs["words"].tolist() == [[7, 8, 9, 10, 11]]


def test_tables_of_all_turns_are_left_as_they_are() -> None:
    cache, told, table = SimpleNamespace(layers=[None]), {}, torch.randn(1, 5, 8)
    for rows in (3, 2):
        _, kwargs = _with_earlier(told, cache, 0, torch.randn(1, rows, 4), {"position_embeddings": (table, table)})
        assert kwargs["position_embeddings"][0] is table
        assert kwargs["position_ids"] is None
