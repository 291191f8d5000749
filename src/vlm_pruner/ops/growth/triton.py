"""The growth on the device: one launch goes through all passes, the order of each included, for any number of tokens.

Each image has a crew of programs, one for a few tiles of tokens. They meet when tokens are taken in and at the ends of
a pass; in between each of them judges the blocks for itself, since to compute that again is cheaper than to wait.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.growth import Grown, masked
from vlm_pruner.ops.growth.kernels import begin_with, fits_in, following, hand_over, order_of, redundancy, take_in
from vlm_pruner.ops.growth.rule import GrowthRule
from vlm_pruner.ops.launch import Crew, at_home, interpreted

__all__ = ["grow"]

_ON_DEVICE = {"TILE": 64, "RIVALS": 64, "CHANNELS": 16, "WAITING": 64}
_WIDEST = 64  # tokens judged together, beyond which all pairs of them do not fit into registers
_INTERPRETED = {"TILE": 512, "RIVALS": 2048, "CHANNELS": 256, "WAITING": 64}  # no registers to fill, calls to pay for


@triton.jit
def _one_pass(
    image, vectors, sizes, order, inside, ranked, threshold, size, first, slots, arrivals, rounds,
    WIDTH: tl.constexpr, WAITING: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """(size, first, meetings) after a pass in the order `ranked`; tokens of `order` from `first` on are not taken in.

    What a block adds is stored by all programs alike, so that each of them can read it without a meeting.
    """
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
            rounds = take_in(
                image, vectors, sizes, order, first, size - first, arrivals, rounds, TILE, CHANNELS, SLOTS == 1
            )
            first = size
        if added == 0:
            begin, rounds = following(
                image, vectors, ranked, threshold, begin, outside, width, slots, arrivals, rounds, TILE, SLOTS
            )
    return size, first, rounds


@triton.jit(do_not_specialize=["n", "keep", "width", "begin", "levels", "place_b", "diagonal_b"])
def _whole(
    unit, place, diagonal, pivots, rungs, order, owner, similarity, near, answer, inside, score, ranked, slots,
    arrivals, n, q, axes, keep, width, begin, levels, place_b, diagonal_b, unit_b, unit_n, unit_q, WEIGHT: tl.constexpr,
    FILL: tl.constexpr, RUNGS: tl.constexpr, WIDTH: tl.constexpr, WAITING: tl.constexpr,
    TILE: tl.constexpr, RIVALS: tl.constexpr, CHANNELS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    # As Python divides a number by a tensor. The weight is no argument: a launch would round it to float32.
    slope = 1.0 / tl.load(diagonal + b * diagonal_b).to(tl.float64) * tl.full((), WEIGHT, tl.float64)
    image = (unit + b * unit_b, unit_n, unit_q, place + b * place_b, slope)
    vectors = (owner + b * n, similarity + b * n, near + b * n)
    sizes = (n, q, axes, keep, width)
    order, inside, score, ranked = order + b * keep, inside + b * n, score + b * n, ranked + b * n
    slots, arrivals = slots + b * 2 * SLOTS, arrivals + b
    begin_with(pivots + b * begin, begin, vectors, inside, order, n, keep, TILE)
    rung = tl.arange(0, RUNGS)
    ladder_ = tl.load(rungs + rung, mask=rung < levels, other=float("inf"))
    size, first, level, rounds, going = begin, 0, -1, 0, begin < keep
    while going:
        rounds = take_in(
            image, vectors, sizes, order, first, size - first, arrivals, rounds, TILE, CHANNELS, SLOTS == 1
        )
        first = size
        least, rounds = order_of(image, vectors, inside, score, ranked, n, arrivals, rounds, TILE, RIVALS, SLOTS == 1)
        level += 1
        if FILL:
            level = tl.maximum(level, tl.sum((ladder_ <= least).to(tl.int32), 0))
        threshold = tl.load(rungs + tl.minimum(level, levels - 1))
        before = size
        size, first, rounds = _one_pass(
            image, vectors, sizes, order, inside, ranked, threshold, size, first, slots, arrivals, rounds,
            WIDTH, WAITING, TILE, CHANNELS, SLOTS,
        )  # fmt: skip
        going = size < keep
        if not FILL:
            going = going & (size > before)
    take_in(image, vectors, sizes, order, first, size - first, arrivals, rounds, TILE, CHANNELS, SLOTS == 1)
    hand_over(similarity + b * n, answer + b * n, n, TILE)


@at_home
def grow(unit: Tensor, place: Tensor, diagonal: Tensor, pivots: Tensor, keep: int, rule: GrowthRule) -> Grown:
    """`vlm_pruner.ops.growth.grow`: [B, keep] order, [B, n] owner and similarity.

    O(n q) time for every token kept, O(n) memory beyond the input; nothing is read off the device. Blocks too wide for
    a program are left to torch.
    """
    if rule.token_batch > _WIDEST:
        return masked.grow(unit, place, diagonal, pivots, keep, rule)
    (batch, n, q), device = unit.shape, unit.device
    blocks = _INTERPRETED if interpreted() else _ON_DEVICE
    crew = Crew(batch, triton.cdiv(n, blocks["TILE"]), device)
    order, owner = (torch.empty(batch, size, dtype=torch.int64, device=device) for size in (keep, n))
    inside, ranked = (torch.empty(batch, n, dtype=torch.int32, device=device) for _ in range(2))
    similarity, near, score = (torch.empty(batch, n, dtype=torch.float64, device=device) for _ in range(3))
    answer = torch.empty(batch, n, dtype=torch.float32, device=device)
    rungs, place = masked.ladder(rule, device), place if place[0].is_contiguous() else place.contiguous()
    _whole[crew.grid](
        unit, place, diagonal, pivots.contiguous(), rungs, order, owner, similarity, near,
        answer, inside, score, ranked, crew.tokens, crew.arrivals,
        n, q, place.shape[2], keep, rule.token_batch, pivots.shape[1], len(rungs),
        place.stride(0), diagonal.stride(0), *unit.stride(), WEIGHT=float(rule.spatial_weight),
        FILL=rule.fill, RUNGS=triton.next_power_of_2(len(rungs)),
        WIDTH=triton.next_power_of_2(max(16, rule.token_batch)), **blocks, **crew.options,
    )  # fmt: skip
    return Grown(order, owner, answer)
