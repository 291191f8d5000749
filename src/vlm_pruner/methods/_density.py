"""Density peaks (DPC-kNN) in every frame of a video at once."""

from __future__ import annotations

import torch
from torch import Tensor

from vlm_pruner.methods._video import settled

__all__ = ["Peaks", "nearest", "peaks"]

Peaks = tuple[Tensor, Tensor]
"""[f, m] score and [f, m, m] squared distances."""

_BLOCK = 1 << 22  # numbers in float64 at a time


def peaks(rows: Tensor, group: Tensor, neighbours: Tensor | int, most: int = 7) -> Peaks:
    """How well each row stands for its neighbourhood, and the squared distances of all rows of one group.

    The density of a row is exp(-mean squared distance of its nearest rows, itself among them), distances divided by
    sqrt(d); its score is the density times the distance to the nearest row of higher density, which for the densest is
    the largest distance in its group. Of equally dense rows the earlier one counts as the denser, so that copies of a
    row are one peak. The score is given as its logarithm, which no distance takes out of range.

    Source: Du et al., "Study on density peaks clustering based on k-nearest neighbors", 2016.

    Args:
        rows: [f, m, d] float.
        group: [f, m] int64; rows of one frame and group are compared, those of group 0 take no part.
        neighbours: of each row [f, m], from 1 to `most`; fewer where the group is smaller.

    Returns:
        [f, m] float64 score, -inf in group 0; [f, m, m] float64 squared distances / d, inf between groups.
    """
    together = (group[:, :, None] == group[:, None, :]) & (group > 0)[:, :, None]
    square = _squares(rows).masked_fill(~together, torch.inf)
    size = together.sum(2).clamp_min(1)
    k = size.clamp_max(neighbours)
    near = square.topk(min(most, square.shape[2]), 2, largest=False).values.cumsum(2)  # sorted: sums of the nearest
    density = settled(-near.gather(2, k[:, :, None] - 1).squeeze(2) / k)
    density = density.where(group > 0, -torch.inf)
    place = torch.arange(rows.shape[1], device=rows.device)
    one, other = density[:, :, None], density[:, None, :]
    denser = together & ((other > one) | ((other == one) & (place < place[:, None])))
    apart = square.masked_fill(~denser, torch.inf).amin(2)
    farthest = square.masked_fill(~together, -torch.inf).amax(2)
    farthest = farthest[:, None, :].masked_fill(~together, -torch.inf).amax(2)
    apart = apart.where(denser.any(2), farthest)
    score = settled(density + apart.clamp_min(0).log() / 2)
    return score.where(group > 0, -torch.inf), square


def _squares(rows: Tensor) -> Tensor:
    """[f, m, m] float64 squared distances / d of the rows of every frame; equal rows are at distance 0."""
    m, d = rows.shape[1:]
    parts = []
    for x in torch.split(rows, max(1, _BLOCK // (m * d))):
        x = x.double()
        length = (x * x).sum(2)
        largest = length.amax(1)[:, None, None].clamp_min(torch.finfo(torch.float64).tiny)
        square = length[:, :, None] + length[:, None, :] - 2 * torch.bmm(x, x.mT)
        square = settled((square / largest).clamp_min(0)) * largest / d
        parts.append(square.masked_fill(torch.eye(m, dtype=torch.bool, device=rows.device), 0.0))
    return torch.cat(parts)


def nearest(square: Tensor, centre: Tensor) -> Tensor:
    """[f, m] place of the `centre` [f, m] nearest to each row by `square` [f, m, m]; ties to the lower place.

    Rows whose group has no centre get a place that means nothing.
    """
    return square.masked_fill(~centre[:, None, :], torch.inf).argmin(2)
