"""HoloV: every stretch of the image gets a quota by its attention and its variety."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._signals import SALIENCE, salience
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import ranking
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["HoloV", "holov"]


def holov(rows: Tensor, attention: Tensor, keep: int, chunks: int = 16, beta: float = 0.09) -> Tensor:
    """[keep] tokens, chunk after chunk and by falling attention inside one.

    The raster order is cut into `chunks` equal stretches. One scores its mean attention (times 1000) plus `beta` times
    the spread of its cosines, brought to that scale; its share of the scores gives its quota of tokens by attention
    alone.

    Args:
        rows: [n, d] projected tokens.
        attention: [n] of the [CLS] row.
    """
    n, p = rows.shape[0], min(chunks, rows.shape[0])
    sizes = [n // p + (c < n % p) for c in range(p)]
    parts = zip(torch.split(rows, sizes), torch.split(1000 * attention.double(), sizes), strict=True)
    value = torch.stack([_value(part, mass, beta) for part, mass in parts])  # [p]
    weight = value / (value.sum() + 1e-6)
    quota = (weight * keep).floor()
    quota = quota + (ranking(weight).argsort() < keep - quota.sum())
    rank = torch.cat([ranking(part).argsort() for part in torch.split(attention, sizes)])  # [n] in its chunk
    inside = torch.cat([rank_c < q for rank_c, q in zip(torch.split(rank, sizes), quota.unbind(), strict=True)])
    by_attention = ranking(attention)
    taken = by_attention.index_select(0, ranking(inside.index_select(0, by_attention).int()))[:keep]
    chunk = torch.cat([torch.full_like(r, c) for c, r in enumerate(torch.split(rank, sizes))])
    return taken.index_select(0, (chunk * n + rank).index_select(0, taken).argsort())


def _value(rows: Tensor, mass: Tensor, beta: float) -> Tensor:
    """Mean of attention `mass` [m] and `beta` times the variety of `rows` [m, d], brought to the scale of the mass."""
    variety = _variety(rows)
    value: Tensor = (mass + beta * variety * (mass.abs().mean() / (variety.abs().mean() + 1e-6))).mean()
    return value


def _variety(rows: Tensor) -> Tensor:
    """[m] spread of each row's cosines to its chunk [m, d], the zeroed diagonal among them."""
    m = rows.shape[0]
    rows = rows.float().double()
    rows = rows / rows.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    unit = rows / (rows.norm(dim=-1, keepdim=True) + 1e-6)
    cosine = (unit @ unit.T).fill_diagonal_(0.0)
    mean = cosine.sum(1, keepdim=True) / max(1, m - 1)
    spread: Tensor = (cosine - mean).square().sum(1) / max(1, m - 1)
    return spread


@final
@dataclass(frozen=True)
class HoloV(PruningMethod):
    """Keeps the best-attended tokens of every stretch of the image, more of them where attention and variety are high.

    Source: Zou et al., "Don't Just Chase 'Highlighted Tokens'", arXiv:2510.02912, NeurIPS 2025; obananas/HoloV.
    Deviates: quotas that a stretch cannot fill, or that rounding leaves over, go to the best-attended tokens
    elsewhere; the released code pads with zero rows. Tokens are put back into raster order. Cosines are [n / 16, n /
    16] per stretch. Towers without [CLS] give the mean attention received.
    Cost: O(n^2 d / chunks).
    """

    name: ClassVar[str] = "holov"
    title: ClassVar[str] = "HoloV"
    source: ClassVar[str] = "arXiv:2510.02912"
    wants: ClassVar[frozenset[Signal]] = SALIENCE

    chunks: int = 16
    beta: float = 0.09

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = holov(tokens.features, salience(self, tokens), keep, self.chunks, self.beta)
        return Selection(index=order.sort().values, order=order)
