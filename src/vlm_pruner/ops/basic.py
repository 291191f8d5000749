"""Small pieces that most methods share: float32, stable in ties, and no value ever leaves the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["PLAIN", "chosen", "inverse_norms", "minmax", "normalise", "others", "pool", "ranking", "together", "top"]


PLAIN = (1e-12, 1e15)
"""Lengths whose squares neither vanish nor overflow in float32."""


def normalise(x: Tensor) -> Tensor:
    """Rows of `x` [..., d] at unit length in float32; a zero row stays zero, and no finite row overflows."""
    x = x.float()
    x = x / x.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    unit: Tensor = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return unit


def inverse_norms(rows: Tensor) -> Tensor:
    """[n] float32: 1 / length of each of `rows` [n, d], 0 for a row of zeros; without a copy of all of them."""
    if rows.dtype == torch.float32 and may_read(rows):
        norm = torch.linalg.vector_norm(rows, dim=1)
        with declared_sync():
            if bool(((norm > PLAIN[0]) & (norm < PLAIN[1])).all()):
                inverse: Tensor = norm.reciprocal_()
                return inverse
    return torch.cat([_scaled_inverse_norms(part.float()) for part in torch.split(rows, 256)])


def _scaled_inverse_norms(rows: Tensor) -> Tensor:
    largest = rows.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny)
    norm = torch.linalg.vector_norm(rows / largest[:, None], dim=1)
    return torch.where(norm > 0, 1 / (norm * largest), 0.0)


def ranking(score: Tensor) -> Tensor:
    """Indices of `score` [n] from the largest on; ties go to the lower index."""
    return torch.argsort(score, descending=True, stable=True)


def top(score: Tensor, k: int) -> Tensor:
    """The first `k` of `ranking(score)`."""
    return ranking(score)[:k]


def minmax(x: Tensor, eps: float = 0.0) -> Tensor:
    """`x` moved and scaled to [0, 1] (`eps` is added to both parts of the fraction); a constant `x` gives ones."""
    low, high = x.min(), x.max()
    span = high - low + eps
    return torch.where(high > low, (x - low + eps) / torch.where(span > 0, span, 1.0), 1.0)


def chosen(index: Tensor, n: int) -> Tensor:
    """[n] bool, true at `index`."""
    return torch.zeros(n, dtype=torch.bool, device=index.device).index_fill(0, index, True)


def others(index: Tensor, n: int) -> Tensor:
    """[n - k] the tokens that are not among the k different ones of `index`, ascending."""
    return torch.argsort(chosen(index, n).int(), stable=True)[: n - index.shape[0]]


def pool(rows: Tensor, slot: Tensor, k: int, weight: Tensor | None = None) -> Tensor:
    """[k, d] float32 sum of the `rows` [n, d] of each slot, times `weight` [n]; a slot of -1 takes no part.

    One product with a [k, n] matrix, since scattered additions are not deterministic on a GPU.
    """
    share = (slot[None] == torch.arange(k, device=slot.device)[:, None]).float()  # [k, n]
    return (share if weight is None else share * weight[None]) @ rows.float()


def together(images: Sequence[Tensor]) -> Tensor:
    """[B, ...] the images in one tensor: a view where they lie evenly in one storage, as the rows of a batch do."""
    first, last = images[0], images[-1]
    step = (last.storage_offset() - first.storage_offset()) // max(1, len(images) - 1)
    home = first.untyped_storage().data_ptr()
    for i, image in enumerate(images[1:], 1):
        even = step >= 0 and image.storage_offset() == first.storage_offset() + i * step
        if not (home and even and image.stride() == first.stride() and image.untyped_storage().data_ptr() == home):
            return torch.stack(list(images))
    return first.as_strided((len(images), *first.shape), (step, *first.stride()))
