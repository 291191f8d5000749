"""Max-min diversity on the device: lengths, nearest neighbours, then one launch per token, and nothing is read.

Every program looks after a few tokens and leaves its best one; the next launch begins by comparing those.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.launch import best_in, best_of, inverse, share

__all__ = ["spread"]


@triton.jit
def _part(features, token, real, channel, d, row_n, row_d):
    address = token.to(tl.int64)[:, None] * row_n + channel[None, :] * row_d
    return tl.load(features + address, mask=real[:, None] & (channel < d)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _lengths(features, length, largest, n, d, row_n, row_d, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):
    """1 / length and 1 / largest entry of every row; both 0 for a row of zeros. No square overflows or vanishes."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    real = token < n
    most = tl.zeros((TOKENS,), tl.float32)
    for start in range(0, d, CHANNELS):
        part = _part(features, token, real, start + tl.arange(0, CHANNELS), d, row_n, row_d)
        most = tl.maximum(most, tl.max(tl.abs(part), 1))
    scale = inverse(most)
    square = tl.zeros((TOKENS,), tl.float32)
    for start in range(0, d, CHANNELS):
        part = _part(features, token, real, start + tl.arange(0, CHANNELS), d, row_n, row_d) * scale[:, None]
        square += tl.sum(part * part, 1)
    tl.store(largest + token, scale, mask=real)
    tl.store(length + token, inverse(tl.sqrt(square)), mask=real)


@triton.jit
def _cosines(features, length, largest, one, other, n, d, row_n, row_d, A: tl.constexpr, CHANNELS: tl.constexpr):
    """[A, A] cosines of two sets of tokens."""
    total = tl.zeros((A, A), tl.float32)
    left_scale = tl.load(largest + one, mask=one < n, other=0.0)[:, None]
    right_scale = tl.load(largest + other, mask=other < n, other=0.0)[:, None]
    for start in range(0, d, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        left = _part(features, one, one < n, channel, d, row_n, row_d) * left_scale
        right = _part(features, other, other < n, channel, d, row_n, row_d) * right_scale
        total = tl.dot(left, tl.trans(right), total, input_precision="ieee")
    left_length = tl.load(length + one, mask=one < n, other=0.0)
    return total * (left_length[:, None] * tl.load(length + other, mask=other < n, other=0.0)[None, :])  # symmetric


@triton.jit
def _neighbours(
    features, length, largest, scores, tokens, n, d, row_n, row_d, TOKENS: tl.constexpr, CHANNELS: tl.constexpr
):
    """The token of this program whose nearest neighbour is farthest."""
    program = tl.program_id(0)
    token = program * TOKENS + tl.arange(0, TOKENS)
    closest = tl.full((TOKENS,), float("-inf"), tl.float32)
    for start in range(0, n, TOKENS):
        other = start + tl.arange(0, TOKENS)
        cosine = _cosines(features, length, largest, token, other, n, d, row_n, row_d, TOKENS, CHANNELS)
        itself = (token[:, None] == other[None, :]) | (other >= n)[None, :]
        closest = tl.maximum(closest, tl.max(tl.where(itself, float("-inf"), cosine), 1))
    best, which = best_in(-closest, token, token < n)
    tl.store(scores + program, best)
    tl.store(tokens + program, which)


@triton.jit
def _step(
    features, length, largest, covered, scores, tokens, next_scores, next_tokens, chosen, t,
    n, d, row_n, row_d, TOKENS: tl.constexpr, CHANNELS: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Choose token t - 1, then bring the tokens of this program up to date with it."""
    program = tl.program_id(0)
    latest = best_of(scores, tokens, tl.num_programs(0), PROGRAMS)
    if program == 0:
        tl.store(chosen + t - 1, latest.to(tl.int64))
    token = program * TOKENS + tl.arange(0, TOKENS)
    real = token < n
    scale = tl.load(largest + token, mask=real, other=0.0)[:, None]
    other_scale = tl.load(largest + latest)
    dot = tl.zeros((TOKENS,), tl.float32)
    for start in range(0, d, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        row = features + latest.to(tl.int64) * row_n + channel * row_d
        other = tl.load(row, mask=channel < d, other=0.0).to(tl.float32) * other_scale
        dot += tl.sum(_part(features, token, real, channel, d, row_n, row_d) * scale * other[None, :], 1)
    cosine = dot * tl.load(length + token, mask=real, other=0.0) * tl.load(length + latest)
    most = tl.maximum(tl.load(covered + token, mask=real, other=0.0), cosine)
    most = tl.where(token == latest, float("inf"), most)
    tl.store(covered + token, most, mask=real)
    best, which = best_in(-most, token, real)
    tl.store(next_scores + program, best)
    tl.store(next_tokens + program, which)


def spread(features: Tensor, keep: int) -> Tensor:
    """[keep] tokens; see `vlm_pruner.ops.maxmin.spread`. O(n) memory, keep + 2 launches."""
    n, d = features.shape
    tokens_each, device = share(features), features.device
    programs = triton.cdiv(n, tokens_each)
    length, largest = torch.zeros(2, n, device=device).unbind()
    covered = torch.full((n,), -torch.inf, device=device)
    scores = torch.full((keep + 1, programs), -torch.inf, device=device)
    tokens = torch.zeros(keep + 1, programs, dtype=torch.int32, device=device)
    chosen = torch.zeros(keep, dtype=torch.int64, device=device)
    sizes = (n, d, *features.stride())
    blocks = {"TOKENS": tokens_each, "CHANNELS": 64 if features.is_cuda else 512}
    _lengths[programs,](features, length, largest, *sizes, **blocks)
    _neighbours[programs,](features, length, largest, scores[0], tokens[0], *sizes, **blocks)
    for t in range(1, keep + 1):
        _step[programs,](
            features, length, largest, covered, scores[t - 1], tokens[t - 1], scores[t], tokens[t], chosen, t,
            *sizes, **blocks, PROGRAMS=triton.next_power_of_2(programs),
        )  # fmt: skip
    return chosen
