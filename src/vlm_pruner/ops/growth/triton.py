"""The growth on the device: one program per image goes through all passes, and the host waits for nothing.

The whole growth is one launch, the order of each pass included. Beyond 16,384 tokens a single program per image would
leave the rest of the device idle for too long; the masked steps of `masked.py` use all of it, and read nothing either.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.growth import Grown, masked
from vlm_pruner.ops.growth.kernels import fits_in, following, order_of, redundancy, take_in
from vlm_pruner.ops.growth.rule import GrowthRule

__all__ = ["grow"]

_ONE_PROGRAM = 16384  # tokens
_ON_DEVICE = {"TILE": 128, "CHANNELS": 32}
_INTERPRETED = {"TILE": 512, "CHANNELS": 256}  # which has no registers to fill, and a price for every operation


@triton.jit
def _one_pass(
    image, vectors, sizes, order, inside, ranked, threshold, size, first,
    WIDTH: tl.constexpr, WAITING: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """(size, first) after a pass in the order `ranked`; tokens of `order` from `first` on wait to be taken in."""
    n, keep, width = sizes[0], sizes[3], sizes[4]
    outside, begin = n - size, 0
    while (begin < outside) & (size < keep):
        lane = tl.arange(0, WIDTH)
        real = (lane < width) & (begin + lane < outside)
        block = tl.load(ranked + begin + lane, mask=real, other=0)
        score = redundancy(image, vectors, sizes, order, block, real, first, size - first, WIDTH, CHANNELS)
        enters = fits_in(score, real & (score < threshold), keep - size, lane)
        slot = size + tl.cumsum(enters.to(tl.int32), 0) - 1
        tl.store(order + slot, block.to(tl.int64), mask=enters)
        tl.store(inside + block, 1, mask=enters)
        tl.debug_barrier()
        added = tl.sum(enters.to(tl.int32), 0)
        size += added
        begin += width
        if (added == 0) | (size - first > WAITING):
            take_in(image, vectors, sizes, order, first, size - first, TILE, CHANNELS)
            first = size
        if added == 0:
            begin = following(image, vectors, ranked, threshold, begin, outside, width, TILE)
    return size, first


@triton.jit
def _whole(
    unit, place, slope, rungs, order, owner, similarity, near, inside, score, ranked,
    n, q, axes, keep, width, begin, levels, unit_b, unit_n, unit_q,
    FILL: tl.constexpr, RUNGS: tl.constexpr,
    WIDTH: tl.constexpr, WAITING: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    image = (unit + b * unit_b, unit_n, unit_q, place + b * n * axes, tl.load(slope + b))
    vectors = (owner + b * n, similarity + b * n, near + b * n)
    sizes = (n, q, axes, keep, width)
    order, inside, score, ranked = order + b * keep, inside + b * n, score + b * n, ranked + b * n
    rung = tl.arange(0, RUNGS)
    ladder_ = tl.load(rungs + rung, mask=rung < levels, other=float("inf"))
    size, first, level, going = begin, 0, -1, begin < keep
    while going:
        take_in(image, vectors, sizes, order, first, size - first, TILE, CHANNELS)
        first = size
        least = order_of(image, vectors, inside, score, ranked, n, TILE)
        level += 1
        if FILL:
            level = tl.maximum(level, tl.sum((ladder_ <= least).to(tl.int32), 0))
        threshold = tl.load(rungs + tl.minimum(level, levels - 1))
        before = size
        size, first = _one_pass(
            image, vectors, sizes, order, inside, ranked, threshold, size, first, WIDTH, WAITING, TILE, CHANNELS
        )
        going = size < keep
        if not FILL:
            going = going & (size > before)
    take_in(image, vectors, sizes, order, first, size - first, TILE, CHANNELS)


def grow(unit: Tensor, place: Tensor, diagonal: Tensor, pivots: Tensor, keep: int, rule: GrowthRule) -> Grown:
    """`vlm_pruner.ops.growth.grow`: [B, keep] order, [B, n] owner and similarity.

    O(n q) time for every token kept, O(n) memory beyond the input; nothing is read off the device.
    """
    batch, n, q = unit.shape
    if n > _ONE_PROGRAM:
        return masked.grow(unit, place, diagonal, pivots, keep, rule)
    device = unit.device
    order = torch.full((batch, keep), -1, dtype=torch.int64, device=device)
    order[:, : pivots.shape[1]] = pivots
    owner = torch.zeros(batch, n, dtype=torch.int64, device=device)
    similarity, near = (torch.full((batch, n), value, device=device) for value in (-torch.inf, torch.inf))
    inside = torch.zeros(batch, n, dtype=torch.int32, device=device).scatter_(1, pivots, 1)
    ranked = torch.zeros(batch, n, dtype=torch.int32, device=device)
    rungs = masked.ladder(rule, device)
    width = triton.next_power_of_2(max(16, rule.token_batch))
    _whole[(batch,)](
        unit, place.contiguous(), rule.spatial_weight / diagonal, rungs, order, owner, similarity, near, inside,
        torch.empty_like(near), ranked,
        n, q, place.shape[2], keep, rule.token_batch, pivots.shape[1], len(rungs), *unit.stride(),
        FILL=rule.fill, RUNGS=triton.next_power_of_2(len(rungs)),
        WIDTH=width, WAITING=64, **(_ON_DEVICE if unit.is_cuda else _INTERPRETED),
    )  # fmt: skip
    return Grown(order, owner, similarity)
