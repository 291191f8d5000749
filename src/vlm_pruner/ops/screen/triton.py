"""Channel screening on the device: one launch for the variances, a sort, one launch for the unit rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlm_pruner.ops.basic import together
from vlm_pruner.ops.launch import OPTIONS, at_home, interpreted, inverse, on_grid, share

__all__ = ["screen"]

_COLUMNS, _TOKENS = 32, 64
_ON_DEVICE, _INTERPRETED = 1 << 12, 1 << 20  # entries of unit rows that a program holds


@triton.jit(do_not_specialize=["n"])
def _variances(features, variance, n, d, row_b, row_n, row_d, COLUMNS: tl.constexpr, TOKENS: tl.constexpr):
    """n times the variance, by deviations from the first row: exactly zero where a channel does not vary."""
    b = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows = features + b * row_b + column[None, :] * row_d
    first = tl.load(features + b * row_b + column * row_d, mask=column < d, other=0.0).to(tl.float32).to(tl.float64)
    total, square = tl.zeros((COLUMNS,), tl.float64), tl.zeros((COLUMNS,), tl.float64)
    for start in range(0, n, TOKENS):
        token = start + tl.arange(0, TOKENS)
        mask = (token < n)[:, None] & (column < d)[None, :]
        part = tl.load(rows + token.to(tl.int64)[:, None] * row_n, mask=mask, other=0.0).to(tl.float32).to(tl.float64)
        part = tl.where(mask, part - first[None, :], 0.0)
        total += tl.sum(part, 0)
        square += tl.sum(part * part, 0)
    tl.store(variance + b * d + column, square - total * total / n, mask=column < d)


@triton.jit(do_not_specialize=["n"])
def _unit_rows(features, channels, unit, n, q, row_b, row_n, row_d, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):
    """Rows of unit length on the grid; squares of float32 neither overflow nor vanish in float64."""
    b = tl.program_id(1).to(tl.int64)
    token = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    lane = tl.arange(0, CHANNELS)
    channel = tl.load(channels + b * q + lane, mask=lane < q, other=0)
    mask = (token < n)[:, None] & (lane < q)[None, :]
    address = b * row_b + token[:, None] * row_n + channel[None, :] * row_d
    rows = tl.load(features + address, mask=mask, other=0.0).to(tl.float32).to(tl.float64)
    rows = on_grid(rows * inverse(tl.sqrt(tl.sum(rows * rows, 1)))[:, None])
    rows = tl.where(rows == rows, rows, 0.0)  # of a row that is not finite nothing is left
    tl.store(unit + (b * n + token[:, None]) * q + lane[None, :], rows.to(tl.float32), mask=mask)


@at_home
def screen(features: Sequence[Tensor], channels: int) -> Tensor:
    """[B, n, q] unit rows; see `vlm_pruner.ops.screen.screen`."""
    images = together(features)  # [B, n, d]
    batch, n, d = images.shape
    q, device = min(channels, d), images.device
    variance = torch.empty(batch, d, dtype=torch.float64, device=device)
    _variances[batch, triton.cdiv(d, _COLUMNS)](
        images, variance, n, d, *images.stride(), COLUMNS=_COLUMNS, TOKENS=_TOKENS, **OPTIONS
    )
    best = variance.sort(dim=1, descending=True, stable=True).indices[:, :q].sort(dim=1).values.contiguous()
    unit = torch.empty(batch, n, q, dtype=torch.float32, device=device)
    width = triton.next_power_of_2(q)
    each = max(1, min(share(), (_INTERPRETED if interpreted() else _ON_DEVICE) // width))
    _unit_rows[triton.cdiv(n, each), batch](
        images, best, unit, n, q, *images.stride(), TOKENS=each, CHANNELS=width, **OPTIONS
    )
    return unit
