"""The greedy choice on the device in one launch: the Cholesky factor grows by a row with every token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.basic import together
from vlm_pruner.ops.dpp import LEAST
from vlm_pruner.ops.launch import Crew, at_home, best_of_crew, better, interpreted, lowest, part, share

__all__ = ["dpp"]

_ON_DEVICE = {"CHANNELS": 128, "ROWS": 64}
_INTERPRETED = {"CHANNELS": 512, "ROWS": 256}


@triton.jit
def _across(rows, weight, token, real, latest, sizes, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):
    """[TOKENS] entries of the kernel: of each token with `latest`, or with itself where that is negative."""
    own = tl.load(weight + token, mask=real, other=0.0)[:, None]
    it = tl.maximum(latest, 0)
    its = tl.load(weight + it)
    entry = tl.zeros((TOKENS,), tl.float64)
    for start in range(0, sizes[1], CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        mine = part(rows, token, real, channel, sizes) * own
        row = tl.load(rows + it.to(tl.int64) * sizes[2] + channel * sizes[3], mask=channel < sizes[1], other=0.0)
        other = tl.where(latest < 0, mine, (row.to(tl.float32).to(tl.float64) * its)[None, :])
        entry += tl.sum(mine * other, 1)
    return entry


@triton.jit(do_not_specialize=["keep", "n", "least"])
def _whole(
    features, weight, factors, residual, scores, tokens, arrivals, chosen, least, keep, n, d, row_b, row_n, row_d,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Every step takes the token of the largest residual, and brings those of all others up to date in the next."""
    b = tl.program_id(0).to(tl.int64)
    rows, sizes = features + b * row_b, (n, d, row_n, row_d)
    weight, residual, factors = weight + b * n, residual + b * n, factors + b * n * keep
    scores, tokens, arrivals = scores + b * 2 * SLOTS, tokens + b * 2 * SLOTS, arrivals + b
    latest, height, floor = -1, lowest(), lowest()
    last = factors  # the row that is being written
    for step in range(keep):
        best, which = lowest(), 0
        for start in range(tl.program_id(1) * TOKENS, n, tl.num_programs(1) * TOKENS):
            token = start + tl.arange(0, TOKENS)
            real = token < n
            left = _across(rows, weight, token, real, latest, sizes, TOKENS, CHANNELS)
            if step > 0:
                entry, known = left, step - 1
                for begin in range(0, known, ROWS):
                    row = begin + tl.arange(0, ROWS)
                    there, line = row < known, factors + row.to(tl.int64) * n
                    mine = tl.load(line[:, None] + token[None, :], mask=there[:, None] & real[None, :], other=0.0)
                    its = tl.load(line + latest, mask=there, other=0.0, cache_modifier=".cg")  # another program's
                    entry -= tl.sum(mine * its[:, None], 0)
                entry = tl.where(height > floor, entry / tl.sqrt(tl.maximum(height, 1e-300)), 0.0)
                tl.store(last + token, entry, mask=real)
                before = tl.load(residual + token, mask=real, other=0.0)
                left = before - entry * entry
                left = tl.where(left > floor, left, 0.0)  # what adds no volume comes last
                left = tl.where((token == latest) | (before == float("-inf")), float("-inf"), left)
            tl.store(residual + token, left, mask=real)
            best, which = better(best, which, left, token, real)
        if step > 0:
            last += n
        height, latest = best_of_crew(best, which, scores, tokens, arrivals, step, SLOTS)
        floor = tl.where(step == 0, height * least, floor)
        if tl.program_id(1) == 0:
            tl.store(chosen + b * keep + step, latest.to(tl.int64))


@at_home
def dpp(rows: Sequence[Tensor], weight: Sequence[Tensor], keep: int) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.dpp.dpp`. B n (keep + 1) numbers beyond the input."""
    images, weights = together(rows), torch.stack([w.double() for w in weight])  # [B, n, d], [B, n]
    (batch, n, d), device = images.shape, images.device
    crew = Crew(batch, triton.cdiv(n, share()), device)
    factors = torch.empty(batch, keep, n, dtype=torch.float64, device=device)
    residual = torch.empty(batch, n, dtype=torch.float64, device=device)
    chosen = torch.empty(batch, keep, dtype=torch.int64, device=device)
    _whole[crew.grid](
        images, weights, factors, residual, crew.scores, crew.tokens, crew.arrivals, chosen, LEAST, keep,
        n, d, *images.stride(), TOKENS=share(), **(_INTERPRETED if interpreted() else _ON_DEVICE), **crew.options,
    )  # fmt: skip
    return chosen
