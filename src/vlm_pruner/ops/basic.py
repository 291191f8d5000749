"""Small pieces that most methods share: the same on every processor, stable in ties, and no value leaves the device.

Cosines are exact. Rows of unit length are put on a grid of steps of 2^-26: products of two such numbers are multiples
of 2^-52, and sums of them that stay below 2 have a place in float64, so that nothing is rounded, in whatever order a
processor adds. Tokens that are alike are then alike to the last digit, and a choice between two that are not does not
depend on who computes it. The grid is finer than the steps of float32 at 1/4 and above; below, a number moves by 2^-27.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "STEP",
    "chosen",
    "cosines",
    "first_largest",
    "inverse_norms",
    "mean",
    "minmax",
    "normalise",
    "others",
    "pool",
    "products",
    "ranking",
    "together",
    "top",
]


STEP = 2.0**-26
"""Entries of rows of unit length are multiples of it."""

_CHUNK = 1 << 20  # numbers in float64 at a time


def normalise(x: Tensor) -> Tensor:
    """Rows of `x` [..., d] at unit length, float32 on the grid of `STEP`; a zero row stays zero, no row overflows."""
    rows = x.float().reshape(-1, x.shape[-1])
    parts = [
        _unit(part.to(torch.float64, copy=True)) for part in torch.split(rows, max(1, _CHUNK // max(1, rows.shape[1])))
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(x.shape)


def _unit(rows: Tensor) -> Tensor:
    inverse = _inverse(torch.linalg.vector_norm(rows, dim=1, keepdim=True))
    return rows.mul_(inverse / STEP).round_().float().mul_(STEP)


def _inverse(length: Tensor) -> Tensor:
    return torch.where(length > 0, 1 / length, 0.0)


def inverse_norms(rows: Tensor) -> Tensor:
    """[n] float64: 1 / length of each of `rows` [n, d], 0 for a row of zeros; without a copy of all of them."""
    parts = torch.split(rows, max(1, _CHUNK // max(1, rows.shape[1])))
    return torch.cat([_inverse(torch.linalg.vector_norm(part.float().double(), dim=1)) for part in parts])


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """[n, m] float64, exact: products of rows [n, d] and [m, d] that `normalise` made."""
    return one.double() @ other.double().T


def mean(x: Tensor, *dims: int) -> Tensor:
    """The mean over some dimensions, float32 and rounded once: what is equal but for rounding is a tie everywhere."""
    return x.double().mean(dims).float()


def products(rows: Tensor, vector: Tensor) -> Tensor:
    """[n] float64 products of `rows` [n, d] with a `vector` [d], each added up by itself: equal rows get one number."""
    parts = torch.split(rows, max(1, _CHUNK // max(1, rows.shape[1])))
    return torch.cat([(part.double() * vector.double()).sum(1) for part in parts])


def first_largest(score: Tensor) -> Tensor:
    """[1] the first of those whose `score` [n], float64, is the largest but for rounding (2^-40 of itself)."""
    most = score.amax()
    return (score >= most - 2.0**-40 * most.abs()).to(torch.uint8).argmax().view(1)


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


def pool(
    rows: Tensor, slot: Tensor, k: int, weight: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """[k, d] `dtype` sum of the `rows` [n, d] of each slot, times `weight` [n]; a slot of -1 takes no part.

    One product with a [k, n] matrix, since scattered additions are not deterministic on a GPU.
    """
    share = (slot[None] == torch.arange(k, device=slot.device)[:, None]).to(dtype)  # [k, n]
    return (share if weight is None else share * weight[None].to(dtype)) @ rows.to(dtype)


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
