"""Max-min diversity with a running maximum cosine per token; cosines are computed for few tokens, many at a time.

Where values may be read (CPU), the first token is found by branch and bound: every cosine seen bounds the nearest
neighbour of a token from below, and a token whose bound exceeds the best exact value is out. The rows computed on the
way serve the later steps, which tend to choose the same isolated tokens. Elsewhere the first step goes over the upper
triangle in strips and every later one is a product with one row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["spread"]

_ROWS = 32
_CACHED = 1024  # tokens whose cosines are held: 4 n q floats with q = 256


def spread(features: Sequence[Tensor], keep: int) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.maxmin.spread`. Holds at most 1024 rows of cosines."""
    return torch.stack([_one(f, keep) for f in features])


def _one(features: Tensor, keep: int) -> Tensor:
    cosines = _Cosines(features)
    if may_read(features):
        with declared_sync():
            held: dict[int, Tensor] = {}
            return _grow_cached(cosines, _first_bounded(cosines, held), keep, held)
    chosen = [cosines.closest_of_all().argmin()]
    covered = features.new_full((len(features),), -torch.inf, dtype=torch.float32)
    while len(chosen) < keep:
        covered = covered.maximum(cosines.rows(chosen[-1][None])[0]).index_fill_(0, chosen[-1], torch.inf)
        chosen.append(covered.argmin())
    return torch.stack(chosen)


class _Cosines:
    """Rows of the matrix of all cosines, on demand."""

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.inverse = _inverse_norms(features)  # [n]
        self.count = len(features)

    def rows(self, index: Tensor, start: int = 0) -> Tensor:
        """[m, n - start] cosines of the tokens `index` with the tokens from `start` on."""
        some = self.features.index_select(0, index).float() * self.inverse[index, None]  # [m, d]
        others = self.features[start:]
        if others.dtype != torch.float32:
            dots = [some @ part.float().T for part in torch.split(others, _CACHED)]
            return torch.cat(dots, 1).mul_(self.inverse[start:]).nan_to_num_(nan=0.0)
        return (some @ others.T).mul_(self.inverse[start:]).nan_to_num_(nan=0.0)

    def closest_of_all(self) -> Tensor:
        """[n] the largest cosine of each token with another one, from the upper triangle, in strips."""
        closest = self.inverse.new_full((self.count,), -torch.inf)
        for start in range(0, self.count, 4 * _ROWS):
            strip = torch.arange(start, min(start + 4 * _ROWS, self.count), device=closest.device)
            cosine = self.rows(strip, start)
            cosine.diagonal().fill_(-torch.inf)
            closest[strip] = closest[strip].maximum(cosine.amax(1))
            closest[start:] = closest[start:].maximum(cosine.amax(0))
        return closest


def _inverse_norms(features: Tensor) -> Tensor:
    """[n] 1 / length of each row, 0 for a row of zeros."""
    if features.dtype == torch.float32 and may_read(features):
        norm = torch.linalg.vector_norm(features, dim=1)
        with declared_sync():
            if bool(((norm > 1e-12) & (norm < 1e15)).all()):  # no square has overflown or vanished
                inverse: Tensor = norm.reciprocal_()
                return inverse
    return torch.cat([_scaled_inverse_norms(part.float()) for part in torch.split(features, _ROWS)])


def _scaled_inverse_norms(rows: Tensor) -> Tensor:
    largest = rows.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny)
    norm = torch.linalg.vector_norm(rows / largest[:, None], dim=1)
    return torch.where(norm > 0, 1 / (norm * largest), 0.0)


def _first_bounded(cosines: _Cosines, held: dict[int, Tensor]) -> int:
    """The token whose nearest neighbour is farthest; rows of cosines computed on the way go to `held`."""
    n = cosines.count
    bound = cosines.inverse.new_full((n,), -torch.inf)  # [n] of the largest cosine to another token, from below
    exact = torch.zeros(n, dtype=torch.bool, device="cpu")
    index = torch.arange(0, n, max(1, n // _ROWS), device="cpu")  # spread over the image
    while len(index):
        cosine = cosines.rows(index)
        if len(held) < _CACHED:
            held.update(zip(index.tolist(), cosine, strict=True))
        others = cosine.scatter(1, index[:, None], -torch.inf)
        bound = bound.maximum(others.amax(0))
        bound[index] = others.amax(1)
        exact[index] = True
        best = bound[exact].min()
        left = ((bound <= best) & ~exact).nonzero().flatten()
        index = left[bound[left].sort(stable=True).indices[:_ROWS]]
    return int(bound.argmin())  # what is not exact exceeds the best


def _grow_cached(cosines: _Cosines, first: int, keep: int, held: dict[int, Tensor]) -> Tensor:
    chosen = [first]
    covered = cosines.inverse.new_full((cosines.count,), -torch.inf)  # [n] largest cosine to a chosen token
    while len(chosen) < keep:
        row = held.get(chosen[-1])
        if row is None:
            row = cosines.rows(torch.tensor(chosen[-1:], device="cpu"))[0]
        covered = covered.maximum(row)
        covered[chosen[-1]] = torch.inf
        chosen.append(int(covered.argmin()))
    return torch.tensor(chosen, device="cpu")
