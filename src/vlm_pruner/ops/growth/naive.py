"""The definition of the growth, in float64: every block is compared afresh with everything kept."""

from __future__ import annotations

import torch
from torch import Tensor

from vlm_pruner.ops.growth import Grown
from vlm_pruner.ops.growth.rule import GrowthRule

__all__ = ["grow"]


def grow(unit: Tensor, place: Tensor, diagonal: Tensor, pivots: Tensor, keep: int, rule: GrowthRule) -> Grown:
    """`vlm_pruner.ops.growth.grow` as its text says: [B, keep] order, [B, n] owner and similarity, image by image.

    Every block is a product with all that is kept, O(keep n q) each pass; reads the kept set on the host.
    """
    images = [_one(u, p, d, first, keep, rule) for u, p, d, first in zip(unit, place, diagonal, pivots, strict=True)]
    return Grown(*(torch.stack(parts) for parts in zip(*images, strict=True)))


def _one(
    unit: Tensor, place: Tensor, diagonal: Tensor, pivots: Tensor, keep: int, rule: GrowthRule
) -> tuple[Tensor, Tensor, Tensor]:
    kept: list[int] = pivots.tolist()
    unit, place, diagonal = unit.double(), place.double(), diagonal.double()

    def redundancy(tokens: Tensor) -> Tensor:
        cosine = (unit[tokens] @ unit[kept].T).amax(1)
        apart = (place[tokens][:, None] - place[kept][None]).square().sum(-1).sqrt()  # [tokens, |S|]
        nearest = apart.nan_to_num(nan=torch.inf).amin(1)
        return cosine * (1 + rule.spatial_weight * nearest.where(nearest.isfinite(), 0.0) / diagonal)

    for threshold in rule.thresholds():
        before = len(kept)
        outside = torch.ones(len(unit), dtype=torch.bool, device=unit.device)
        outside[kept] = False
        candidates = outside.nonzero().flatten()  # ascending
        ordered = candidates[redundancy(candidates).argsort(stable=True)]
        for block in torch.split(ordered, rule.token_batch):
            score = redundancy(block)
            fits = score < threshold
            room = keep - len(kept)
            if int(fits.sum()) > room:
                fits = score.argsort(stable=True).argsort() < room
            kept += block[fits].tolist()
        if len(kept) == keep or (len(kept) == before and not rule.fill):
            break
    best = (unit @ unit[kept].T).max(1)
    order = torch.tensor(kept + [-1] * (keep - len(kept)), device=unit.device)
    return order, best.indices, best.values.float()
