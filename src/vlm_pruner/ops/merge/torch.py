"""Aggregation as one weighted sum of rows per kept token: a bag of row numbers with a weight each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["merge"]

_COLUMNS = 256  # of a half-precision image, converted at a time


def merge(
    features: Sequence[Tensor], index: Tensor, source: Tensor, weight: Tensor, self_weight: float
) -> list[Tensor]:
    """B tensors [k, d]; see `vlm_pruner.ops.merge.merge`. Every row is read once, in a fixed order of summation."""
    return [_one(f, i, s, w, self_weight) for f, i, s, w in zip(features, index, source, weight, strict=True)]


def _one(features: Tensor, index: Tensor, source: Tensor, weight: Tensor, self_weight: float) -> Tensor:
    weight = weight.index_fill(0, index, 0.0)  # [n]
    member, begin = _bags(source, len(index))
    total = torch.segment_reduce(weight[member], "sum", offsets=begin)  # [k]
    received = total > 0
    share = ((1 - self_weight) / total.clamp(min=1e-8)).where(received, 0.0)  # [k]
    weight = weight * share[source]
    weight[index] = torch.full_like(total, self_weight).where(received, 1.0)
    bags = (member, begin[:-1], weight[member])
    if features.dtype == torch.float32:
        return _weighted_sum(features, *bags)
    parts = [_weighted_sum(part.float(), *bags).to(features.dtype) for part in torch.split(features, _COLUMNS, dim=1)]
    return torch.cat(parts, 1)


def _bags(source: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """(tokens [n] sorted by slot, then index; where each slot begins among them [slots + 1])."""
    by_slot = source.sort(stable=True)
    begin = torch.searchsorted(by_slot.values, torch.arange(slots + 1, device=source.device))
    return by_slot.indices, begin


def _weighted_sum(rows: Tensor, member: Tensor, begin: Tensor, weight: Tensor) -> Tensor:
    """[k, d] the weighted sum of each bag of rows, in a fixed order of summation."""
    return torch.nn.functional.embedding_bag(member, rows, begin, mode="sum", per_sample_weights=weight)
