"""Max-min pivots on the device: one launch per pivot, each of which reads the keys once, and one for the last choice.

Every program looks after a few tokens and leaves its best one; the next launch begins by comparing those.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.launch import best_in, best_of, inverse, share, together

__all__ = ["farthest_points"]


@triton.jit
def _norms(
    keys, scores, tokens, heads, n, width, key_b, key_h, key_n, key_c, TOKENS: tl.constexpr, WIDTH: tl.constexpr
):
    b, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = program * TOKENS + tl.arange(0, TOKENS)
    channel = tl.arange(0, WIDTH)
    mask = (token < n)[:, None] & (channel < width)[None, :]
    rows = keys + b * key_b + token.to(tl.int64)[:, None] * key_n + channel[None, :] * key_c
    norm = tl.zeros((TOKENS,), tl.float32)
    for head in range(heads):
        norm += tl.sum(tl.abs(tl.load(rows + head * key_h, mask=mask, other=0.0).to(tl.float32)), 1)
    best, which = best_in(norm, token, token < n)
    place = b * tl.num_programs(1) + program
    tl.store(scores + place, best)
    tl.store(tokens + place, which)


@triton.jit
def _step(
    keys, near, largest, scores, tokens, next_scores, next_tokens, chosen, t, count,
    heads, n, width, key_b, key_h, key_n, key_c, TOKENS: tl.constexpr, WIDTH: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Choose pivot t - 1, then bring the distances of the tokens of this program up to date with it."""
    b, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    programs = tl.num_programs(1)
    pivot = best_of(scores + b * programs, tokens + b * programs, programs, PROGRAMS)
    if program == 0:
        tl.store(chosen + b * count + t - 1, pivot.to(tl.int64))
    lane = tl.arange(0, PROGRAMS)
    norm = tl.max(tl.load(largest + b * programs + lane, mask=lane < programs, other=0.0), 0)
    scale = inverse(norm)  # no entry exceeds the largest L1 norm: no square overflows
    token = program * TOKENS + tl.arange(0, TOKENS)
    channel = tl.arange(0, WIDTH)
    inside = channel < width
    mask = (token < n)[:, None] & inside[None, :]
    rows = keys + b * key_b + token.to(tl.int64)[:, None] * key_n + channel[None, :] * key_c
    row = keys + b * key_b + pivot.to(tl.int64) * key_n + channel * key_c
    apart = tl.zeros((TOKENS,), tl.float32)
    for head in range(heads):
        one = tl.load(rows + head * key_h, mask=mask, other=0.0).to(tl.float32) * scale
        other = tl.load(row + head * key_h, mask=inside, other=0.0).to(tl.float32) * scale
        apart += tl.sum((one - other[None, :]) * (one - other[None, :]), 1)
    before = tl.load(near + b * n + token, mask=token < n, other=0.0)
    apart = tl.where(token == pivot, -1.0, tl.minimum(before, apart))
    tl.store(near + b * n + token, apart, mask=token < n)
    best, which = best_in(apart, token, token < n)
    tl.store(next_scores + b * programs + program, best)
    tl.store(next_tokens + b * programs + program, which)


def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`. Distances are direct differences in float32."""
    images = together(keys)  # [B, heads, n, head_dim]
    batch, heads, n, width = images.shape
    tokens_each = share(images)
    programs = triton.cdiv(n, tokens_each)
    near = torch.full((batch, n), torch.inf, device=images.device)
    scores = torch.full((count + 1, batch, programs), -torch.inf, device=images.device)
    tokens = torch.zeros(count + 1, batch, programs, dtype=torch.int32, device=images.device)
    chosen = torch.zeros(batch, count, dtype=torch.int64, device=images.device)
    sizes = (heads, n, width, *images.stride())
    blocks = {"TOKENS": tokens_each, "WIDTH": triton.next_power_of_2(width)}
    _norms[batch, programs](images, scores[0], tokens[0], *sizes, **blocks)
    for t in range(1, count + 1):
        _step[batch, programs](
            images, near, scores[0], scores[t - 1], tokens[t - 1], scores[t], tokens[t], chosen, t, count,
            *sizes, **blocks, PROGRAMS=triton.next_power_of_2(programs),
        )  # fmt: skip
    return chosen
