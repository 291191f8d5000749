"""Max-min diversity on the device in three launches: lengths, nearest neighbours, and all of the choosing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.basic import together
from vlm_pruner.ops.launch import (
    OPTIONS,
    Crew,
    at_home,
    best_of_crew,
    better,
    interpreted,
    inverse,
    lower,
    lowest,
    on_grid,
    part,
    share,
)

__all__ = ["spread"]

_ON_DEVICE = {"TILE": 64, "CHANNELS": 32}  # of the matrix of cosines
_INTERPRETED = {"TILE": 256, "CHANNELS": 512}


@triton.jit(do_not_specialize=["n"])
def _lengths(features, length, closest, n, d, row_b, row_n, row_d, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):
    """1 / length of every row, 0 for a row of zeros; `closest`, which is raised afterwards, begins with -inf."""
    b = tl.program_id(1).to(tl.int64)
    rows, sizes = features + b * row_b, (n, d, row_n, row_d)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    real = token < n
    square = tl.zeros((TOKENS,), tl.float64)
    for start in range(0, d, CHANNELS):
        x = part(rows, token, real, start + tl.arange(0, CHANNELS), sizes)
        square += tl.sum(x * x, 1)
    tl.store(closest + b * n + token, tl.full((TOKENS,), float("-inf"), tl.float64), mask=real)
    tl.store(length + b * n + token, inverse(tl.sqrt(square)), mask=real)


@triton.jit(do_not_specialize=["n"])
def _neighbours(features, length, closest, n, d, row_b, row_n, row_d, TILE: tl.constexpr, CHANNELS: tl.constexpr):
    """Raise `closest` of the tokens of two tiles to the largest cosine with a token of the other one."""
    if tl.program_id(1) <= tl.program_id(2):  # the matrix is symmetric
        b = tl.program_id(0).to(tl.int64)
        rows, sizes = features + b * row_b, (n, d, row_n, row_d)
        length, closest = length + b * n, closest + b * n
        one, other = tl.program_id(1) * TILE + tl.arange(0, TILE), tl.program_id(2) * TILE + tl.arange(0, TILE)
        left_scale = tl.load(length + one, mask=one < n, other=0.0)[:, None]
        right_scale = tl.load(length + other, mask=other < n, other=0.0)[:, None]
        cosine = tl.zeros((TILE, TILE), tl.float64)
        for start in range(0, d, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)
            left = on_grid(part(rows, one, one < n, channel, sizes) * left_scale)
            right = on_grid(part(rows, other, other < n, channel, sizes) * right_scale)
            cosine = tl.dot(left, tl.trans(right), cosine, input_precision="ieee", out_dtype=tl.float64)
        cosine = tl.where(cosine == 0, 0.0, cosine)  # no -0: the maximum of floats is that of their bits
        cosine = tl.where((one[:, None] == other[None, :]) | (one >= n)[:, None], float("-inf"), cosine)
        cosine = tl.where((other >= n)[None, :], float("-inf"), cosine)
        tl.atomic_max(closest + one, tl.max(cosine, 1), mask=one < n, sem="relaxed")
        tl.atomic_max(closest + other, tl.max(cosine, 0), mask=other < n, sem="relaxed")


@triton.jit
def _cosines(rows, length, token, real, latest, sizes, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):
    """[TOKENS] cosines with the token `latest`, exactly."""
    scale = tl.load(length + token, mask=real, other=0.0)[:, None]
    other_scale = tl.load(length + latest)
    cosine = tl.zeros((TOKENS,), tl.float64)
    for start in range(0, sizes[1], CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        row = rows + latest.to(tl.int64) * sizes[2] + channel * sizes[3]
        other = tl.load(row, mask=channel < sizes[1], other=0.0).to(tl.float32).to(tl.float64)
        own = on_grid(part(rows, token, real, channel, sizes) * scale)
        cosine += tl.sum(own * on_grid(other * other_scale)[None, :], 1)
    return cosine


@triton.jit(do_not_specialize=["start_at", "keep", "n"])
def _choose(
    features, length, closest, weight, near, scores, tokens, arrivals, chosen, start_at, keep,
    n, d, row_b, row_n, row_d, WEIGHTED: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
    SLOTS: tl.constexpr,
):  # fmt: skip
    """Step 0 takes the token whose nearest neighbour is farthest, or `start_at` where that is not negative; every other
    one takes the token that is farthest from those chosen."""
    b = tl.program_id(0).to(tl.int64)
    rows, sizes = features + b * row_b, (n, d, row_n, row_d)
    length, closest, near = length + b * n, closest + b * n, near + b * n
    scores, tokens, arrivals = scores + b * 2 * SLOTS, tokens + b * 2 * SLOTS, arrivals + b
    latest = 0
    for step in range(keep):
        best, which = lowest(), 0
        for start in range(tl.program_id(1) * TOKENS, n, tl.num_programs(1) * TOKENS):
            token = start + tl.arange(0, TOKENS)
            real = token < n
            if step == 0:
                score = -tl.load(closest + token, mask=real, other=0.0)
                score = tl.where(start_at < 0, score, (token == start_at).to(tl.float64))
                tl.store(near + token, tl.full((TOKENS,), float("inf"), tl.float64), mask=real)
            else:
                score = -_cosines(rows, length, token, real, latest, sizes, TOKENS, CHANNELS)
                score = lower(near, score, token, real, latest)
                if WEIGHTED:
                    own = tl.load(weight + b * n + token, mask=real, other=0.0).to(tl.float64)
                    score = tl.where(score == float("-inf"), score, own * (1 + tl.maximum(score, -2.0)))
            best, which = better(best, which, score, token, real)
        best, latest = best_of_crew(best, which, scores, tokens, arrivals, step, SLOTS)
        if tl.program_id(1) == 0:
            tl.store(chosen + b * keep + step, latest.to(tl.int64))


@at_home
def spread(features: Sequence[Tensor], keep: int, start: int | None, weight: Sequence[Tensor] | None) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.maxmin.spread`. O(n) memory beyond the input."""
    images = together(features)  # [B, n, d]
    (batch, n, d), device = images.shape, images.device
    matrix = _INTERPRETED if interpreted() else _ON_DEVICE
    crew = Crew(batch, triton.cdiv(n, share()), device)
    length, closest, near = (torch.empty(batch, n, dtype=torch.float64, device=device) for _ in range(3))
    weights = near if weight is None else torch.stack(list(weight)).contiguous()  # [B, n]; not read where there is none
    chosen = torch.empty(batch, keep, dtype=torch.int64, device=device)
    sizes = (n, d, *images.stride())
    blocks = {"TOKENS": share(), "CHANNELS": 512 if interpreted() else 128}
    _lengths[triton.cdiv(n, share()), batch](images, length, closest, *sizes, **blocks, **OPTIONS)
    if start is None:
        sides = triton.cdiv(n, matrix["TILE"])
        _neighbours[batch, sides, sides](images, length, closest, *sizes, **matrix, **OPTIONS)
    _choose[crew.grid](
        images, length, closest, weights, near, crew.scores, crew.tokens, crew.arrivals, chosen,
        -1 if start is None else start, keep, *sizes, WEIGHTED=weight is not None, **blocks, **crew.options,
    )  # fmt: skip
    return chosen
