"""Facility location on the device in one launch: every program keeps its own account of what has been reached."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.launch import Crew, at_home, best_of_crew, better, interpreted, lowest, share

__all__ = ["facility"]

_ON_DEVICE, _INTERPRETED = 128, 1024  # rows at a time


@triton.jit(do_not_specialize=["keep", "n", "m"])
def _choose(
    cover, row_weight, candidate_weight, reached, taken, scores, tokens, arrivals, chosen,
    keep, n, m, cover_b, cover_n, cover_m, CANDIDATES: tl.constexpr, ROWS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    cover, reached = cover + b * cover_b, reached + (b * tl.num_programs(1) + tl.program_id(1)) * m
    row_weight, candidate_weight, taken = row_weight + b * m, candidate_weight + b * n, taken + b * n
    scores, tokens, arrivals = scores + b * 2 * SLOTS, tokens + b * 2 * SLOTS, arrivals + b
    for begin in range(0, m, ROWS):
        row = begin + tl.arange(0, ROWS)
        tl.store(reached + row, tl.zeros((ROWS,), tl.float64), mask=row < m)
    for start in range(tl.program_id(1) * CANDIDATES, n, tl.num_programs(1) * CANDIDATES):
        candidate = start + tl.arange(0, CANDIDATES)
        tl.store(taken + candidate, tl.zeros((CANDIDATES,), tl.int32), mask=candidate < n)
    tl.debug_barrier()
    for step in range(keep):
        best, which = lowest(), 0
        for start in range(tl.program_id(1) * CANDIDATES, n, tl.num_programs(1) * CANDIDATES):
            candidate = start + tl.arange(0, CANDIDATES)
            real = candidate < n
            gain = tl.zeros((CANDIDATES,), tl.float64)
            for begin in range(0, m, ROWS):
                row = begin + tl.arange(0, ROWS)
                address = candidate.to(tl.int64)[:, None] * cover_n + row.to(tl.int64)[None, :] * cover_m
                value = tl.load(cover + address, mask=real[:, None] & (row < m)[None, :], other=0.0).to(tl.float64)
                above = tl.maximum(value - tl.load(reached + row, mask=row < m, other=0.0)[None, :], 0.0)
                gain += tl.sum(above * tl.load(row_weight + row, mask=row < m, other=0.0)[None, :], 1)
            gain *= tl.load(candidate_weight + candidate, mask=real, other=0.0)
            free = tl.load(taken + candidate, mask=real, other=1) == 0
            best, which = better(best, which, gain, candidate, real & free)
        best, latest = best_of_crew(best, which, scores, tokens, arrivals, step, SLOTS)
        for begin in range(0, m, ROWS):
            row = begin + tl.arange(0, ROWS)
            value = tl.load(cover + latest.to(tl.int64) * cover_n + row.to(tl.int64) * cover_m, mask=row < m, other=0.0)
            before = tl.load(reached + row, mask=row < m, other=0.0)
            tl.store(reached + row, tl.maximum(before, value.to(tl.float64)), mask=row < m)
        tl.store(taken + latest, 1)  # by all programs alike, of which one will ask
        if tl.program_id(1) == 0:
            tl.store(chosen + b * keep + step, latest.to(tl.int64))
        tl.debug_barrier()


@at_home
def facility(cover: Tensor, keep: int, row_weight: Tensor, candidate_weight: Tensor) -> Tensor:
    """[B, keep] candidates; see `vlm_pruner.ops.facility.facility`. O(n m) a step, m numbers for each program."""
    (batch, n, m), device = cover.shape, cover.device
    crew = Crew(batch, triton.cdiv(n, share()), device)
    rows, candidates = row_weight.double().contiguous(), candidate_weight.double().contiguous()
    reached = torch.empty(batch, crew.size, m, dtype=torch.float64, device=device)
    taken = torch.empty(batch, n, dtype=torch.int32, device=device)
    chosen = torch.empty(batch, keep, dtype=torch.int64, device=device)
    _choose[crew.grid](
        cover, rows, candidates, reached, taken, crew.scores, crew.tokens, crew.arrivals, chosen,
        keep, n, m, *cover.stride(), CANDIDATES=share(), ROWS=_INTERPRETED if interpreted() else _ON_DEVICE,
        **crew.options,
    )  # fmt: skip
    return chosen
