"""Facility location on the device: one launch per candidate, and nothing is read.

Every program looks after a few candidates and leaves its best one; the next launch begins by comparing those. What has
been reached is written by the first program alone, beside what it was before, which the others still read.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.launch import best_in, best_of, share

__all__ = ["facility"]

_ROWS = 128


@triton.jit
def _step(
    cover, row_weight, candidate_weight, reached, next_reached, taken, scores, tokens, next_scores, next_tokens, chosen,
    t, n, m, cover_n, cover_m, CANDIDATES: tl.constexpr, ROWS: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Choose candidate t - 1 (none at t = 0), then find what the candidates of this program would add."""
    program = tl.program_id(0)
    latest = best_of(scores, tokens, tl.num_programs(0), PROGRAMS)
    if (program == 0) & (t > 0):
        tl.store(chosen + t - 1, latest.to(tl.int64))
    candidate = program * CANDIDATES + tl.arange(0, CANDIDATES)
    real = candidate < n
    gain = tl.zeros((CANDIDATES,), tl.float32)
    for start in range(0, m, ROWS):
        row = start + tl.arange(0, ROWS)
        before = tl.load(reached + row, mask=row < m, other=0.0)
        added = tl.load(cover + latest.to(tl.int64) * cover_n + row * cover_m, mask=row < m, other=0.0)
        now = tl.where(t > 0, tl.maximum(before, added), before)
        if program == 0:
            tl.store(next_reached + row, now, mask=row < m)
        address = candidate.to(tl.int64)[:, None] * cover_n + row[None, :] * cover_m
        mask = real[:, None] & (row < m)[None, :]
        above = tl.maximum(tl.load(cover + address, mask=mask, other=0.0) - now[None, :], 0.0)
        gain += tl.sum(above * tl.load(row_weight + row, mask=row < m, other=0.0)[None, :], 1)
    gone = tl.load(taken + candidate, mask=real, other=1)
    gone = tl.where((candidate == latest) & (t > 0), 1, gone)
    tl.store(taken + candidate, gone, mask=real)
    gain = gain * tl.load(candidate_weight + candidate, mask=real, other=0.0)
    best, which = best_in(tl.where(gone == 0, gain, float("-inf")), candidate, real)
    tl.store(next_scores + program, best)
    tl.store(next_tokens + program, which)


def facility(cover: Tensor, keep: int, row_weight: Tensor | None, candidate_weight: Tensor | None) -> Tensor:
    """[keep] candidates; see `vlm_pruner.ops.facility.facility`. O(n m) a step, keep + 1 launches."""
    (n, m), device = cover.shape, cover.device
    each = share(cover)
    programs = triton.cdiv(n, each)
    rows = torch.ones(m, device=device) if row_weight is None else row_weight.contiguous()
    candidates = torch.ones(n, device=device) if candidate_weight is None else candidate_weight.contiguous()
    reached = torch.zeros(2, m, device=device)
    taken = torch.zeros(n, dtype=torch.int32, device=device)
    scores = torch.full((keep + 2, programs), -torch.inf, device=device)
    tokens = torch.zeros(keep + 2, programs, dtype=torch.int32, device=device)
    chosen = torch.zeros(keep, dtype=torch.int64, device=device)
    for t in range(keep + 1):
        _step[programs,](
            cover, rows, candidates, reached[t % 2], reached[1 - t % 2], taken, scores[t], tokens[t], scores[t + 1],
            tokens[t + 1], chosen, t, n, m, *cover.stride(), CANDIDATES=each, ROWS=_ROWS,
            PROGRAMS=triton.next_power_of_2(programs),
        )  # fmt: skip
    return chosen
