"""Density peaks (DPC-kNN) in every frame of a video at once."""

from __future__ import annotations

import torch
from torch import Tensor

from vlm_pruner.methods._video import settled
from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["Peaks", "nearest", "peaks"]

Peaks = tuple[Tensor, Tensor]
"""[f, m] score and [f, m, m] squared distances."""

_BLOCK = {True: 1 << 20, False: 1 << 24}  # numbers in float64 at a time: in a cache, on another device


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
    parts = []
    for part in _frames(rows):
        if not _nobody(group[part]):
            k = neighbours if isinstance(neighbours, int) else neighbours[part]
            parts.append(_peaks(rows[part].double(), group[part], k, most))
            continue
        score = torch.full_like(group[part], -torch.inf, dtype=torch.float64)
        parts.append((score, score[:, :, None].neg().expand(-1, -1, rows.shape[1])))
    scores, squares = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(squares)


def _frames(rows: Tensor) -> list[slice]:
    """Which of the frames of `rows` [f, m, d] are worked on together: on a CPU, what a cache holds."""
    f, m, d = rows.shape
    step = max(1, _BLOCK[may_read(rows)] // (m * d))
    return [slice(begin, begin + step) for begin in range(0, f, step)] or [slice(0)]


def _nobody(group: Tensor) -> bool:
    """Is the group of all rows 0? Only asked where it costs nothing."""
    if not may_read(group):
        return False
    with declared_sync():
        return not bool((group > 0).any())


def _peaks(rows: Tensor, group: Tensor, neighbours: Tensor | int, most: int) -> Peaks:
    """`peaks` of frames that are worked on together, in float64."""
    together = (group[:, :, None] == group[:, None, :]) & (group > 0)[:, :, None]
    square = _squares(rows).masked_fill_(~together, torch.inf)
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
    """[f, m, m] squared distances / d of the rows [f, m, d] of every frame; equal rows are at distance 0."""
    product = torch.bmm(rows, rows.mT)
    length = product.diagonal(dim1=1, dim2=2)
    largest = length.amax(1)[:, None, None].clamp_min(torch.finfo(torch.float64).tiny)
    square = (length[:, :, None] + length[:, None, :]).sub_(product, alpha=2)
    square = settled(square.div_(largest).clamp_min_(0)).mul_(largest / rows.shape[2])
    return square.masked_fill_(torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device), 0.0)


def nearest(square: Tensor, centre: Tensor) -> Tensor:
    """[f, m] place of the `centre` [f, m] nearest to each row by `square` [f, m, m]; ties to the lower place.

    Rows whose group has no centre get a place that means nothing.
    """
    return square.masked_fill(~centre[:, None, :], torch.inf).argmin(2)
