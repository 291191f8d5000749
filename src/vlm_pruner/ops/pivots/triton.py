"""Max-min pivots on the device in one launch, which reads the keys once for the norms and once for each pivot."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.basic import together
from vlm_pruner.ops.launch import Crew, at_home, best_of_crew, better, lower, lowest, share

__all__ = ["farthest_points"]


@triton.jit
def _number(address, mask):
    """What is there in float64, as float32 has it."""
    return tl.load(address, mask=mask, other=0.0).to(tl.float32).to(tl.float64)


@triton.jit
def _norms(rows, token, real, sizes, TOKENS: tl.constexpr, WIDTH: tl.constexpr):
    """[TOKENS] L1 norms."""
    channel = tl.arange(0, WIDTH)
    mask = real[:, None] & (channel < sizes[2])[None, :]
    part = rows + token.to(tl.int64)[:, None] * sizes[4] + channel[None, :] * sizes[5]
    norm = tl.zeros((TOKENS,), tl.float64)
    for _ in range(sizes[0]):
        norm += tl.sum(tl.abs(_number(part, mask)), 1)
        part += sizes[3]
    return norm


@triton.jit
def _apart(rows, token, real, pivot, sizes, TOKENS: tl.constexpr, WIDTH: tl.constexpr):
    """[TOKENS] squared distances to the pivot."""
    channel = tl.arange(0, WIDTH)
    inside = channel < sizes[2]
    mask = real[:, None] & inside[None, :]
    part = rows + token.to(tl.int64)[:, None] * sizes[4] + channel[None, :] * sizes[5]
    own = rows + pivot.to(tl.int64) * sizes[4] + channel * sizes[5]
    apart = tl.zeros((TOKENS,), tl.float64)
    for _ in range(sizes[0]):
        step = _number(part, mask) - _number(own, inside)[None, :]
        apart += tl.sum(step * step, 1)
        part += sizes[3]
        own += sizes[3]
    return apart


@triton.jit(do_not_specialize=["count", "n"])
def _whole(
    keys, near, scores, tokens, arrivals, chosen, count, heads, n, width, key_b, key_h, key_n, key_c,
    TOKENS: tl.constexpr, WIDTH: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Step 0 finds the largest norm, every other one the token farthest from the pivots."""
    b = tl.program_id(0).to(tl.int64)
    rows, near = keys + b * key_b, near + b * n
    scores, tokens, arrivals = scores + b * 2 * SLOTS, tokens + b * 2 * SLOTS, arrivals + b
    sizes = (heads, n, width, key_h, key_n, key_c)
    pivot = -1
    for step in range(count):
        best, which = lowest(), 0
        for start in range(tl.program_id(1) * TOKENS, n, tl.num_programs(1) * TOKENS):
            token = start + tl.arange(0, TOKENS)
            real = token < n
            if step == 0:
                score = _norms(rows, token, real, sizes, TOKENS, WIDTH)
                tl.store(near + token, tl.full((TOKENS,), float("inf"), tl.float64), mask=real)
            else:
                score = _apart(rows, token, real, pivot, sizes, TOKENS, WIDTH)
                score = lower(near, score, token, real, pivot)
            best, which = better(best, which, score, token, real)
        best, pivot = best_of_crew(best, which, scores, tokens, arrivals, step, SLOTS)
        if tl.program_id(1) == 0:
            tl.store(chosen + b * count + step, pivot.to(tl.int64))


@at_home
def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`. Distances are direct differences."""
    images = together(keys)  # [B, heads, n, head_dim]
    (batch, heads, n, width), device = images.shape, images.device
    crew = Crew(batch, triton.cdiv(n, share()), device)
    near = torch.empty(batch, n, dtype=torch.float64, device=device)
    chosen = torch.empty(batch, count, dtype=torch.int64, device=device)
    _whole[crew.grid](
        images, near, crew.scores, crew.tokens, crew.arrivals, chosen, count, heads, n, width, *images.stride(),
        TOKENS=share(), WIDTH=triton.next_power_of_2(width), **crew.options,
    )  # fmt: skip
    return chosen
