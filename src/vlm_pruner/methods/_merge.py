"""What every merging method ends with: slots put into ascending order of the tokens they stand at."""

from __future__ import annotations

import torch
from torch import Tensor

from vlm_pruner.ops.merge import held
from vlm_pruner.types import Selection

__all__ = ["merged"]


def merged(order: Tensor, features: Tensor, slot: Tensor, dtype: torch.dtype) -> Selection:
    """A `Selection` of the tokens `order` [k] with replacement rows `features` [k, d], both in the order of selection.

    Args:
        slot: [n] place in `order` that represents each token, -1 where none does.
        dtype: of the replacement rows.
    """
    index, rank = order.sort()
    place = rank.argsort()  # place in `order` -> place in `index`
    source = torch.where(slot >= 0, place.index_select(0, slot.clamp_min(0)), -1)
    return Selection(index=index, order=order, features=held(features.index_select(0, rank), dtype), source=source)
