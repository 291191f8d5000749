"""Aggregation on the device: tokens sorted by owner, then a program for each strip of each kept row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.basic import together
from vlm_pruner.ops.launch import OPTIONS, at_home, interpreted

__all__ = ["merge"]

_ON_DEVICE = {"ROWS": 16, "COLUMNS": 256}  # rows one after another would each wait for the memory
_INTERPRETED = {"ROWS": 16, "COLUMNS": 4096}


@triton.jit(do_not_specialize=["n", "slots"])
def _fold(
    features, index, member, begin, weight, merged, self_weight,
    n, d, slots, row_b, row_n, row_d, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    slot, b = tl.program_id(0), tl.program_id(1).to(tl.int64)  # the first axis of a grid alone may exceed 65,535
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    mask = column < d
    rows = features + b * row_b + column * row_d
    kept = tl.load(index + b * slots + slot)
    end = tl.load(begin + b * (slots + 1) + slot + 1)
    total = 0.0
    summed = tl.zeros((COLUMNS,), tl.float32)
    for start in range(tl.load(begin + b * (slots + 1) + slot), end, ROWS):
        place = start + tl.arange(0, ROWS)
        token = tl.load(member + b * n + place, mask=place < end, other=0)
        share = tl.load(weight + b * n + token, mask=(place < end) & (token != kept), other=0.0)
        real = (place < end)[:, None] & mask[None, :]
        part = tl.load(rows[None, :] + token[:, None] * row_n, mask=real, other=0.0).to(tl.float32)
        total += tl.sum(share, 0)
        summed += tl.sum(share[:, None] * part, 0)
    own = tl.load(rows + kept * row_n, mask=mask, other=0.0).to(tl.float32)
    mean = summed / tl.maximum(total, 1e-8)
    row = tl.where(total > 0, self_weight * own + (1 - self_weight) * mean, own)
    tl.store(merged + (b * slots + slot) * d + column, row.to(merged.dtype.element_ty), mask=mask)


@at_home
def merge(
    features: Sequence[Tensor], index: Tensor, source: Tensor, weight: Tensor, self_weight: float
) -> list[Tensor]:
    """B tensors [k, d]; see `vlm_pruner.ops.merge.merge`. Sums are in float32, in one order always."""
    images = together(features)  # [B, n, d]
    (batch, n, d), slots = images.shape, index.shape[1]
    by_slot = source.sort(dim=1, stable=True)
    every = torch.arange(slots + 1, device=source.device).expand(batch, -1).contiguous()
    begin = torch.searchsorted(by_slot.values, every)  # [B, k + 1]
    merged = torch.empty(batch, slots, d, dtype=images.dtype, device=images.device)
    blocks = _INTERPRETED if interpreted() else _ON_DEVICE
    _fold[slots, batch, triton.cdiv(d, blocks["COLUMNS"])](
        images, index.contiguous(), by_slot.indices, begin, weight.contiguous(), merged, float(self_weight),
        n, d, slots, *images.stride(), **blocks, **OPTIONS,
    )  # fmt: skip
    return list(merged.unbind())
