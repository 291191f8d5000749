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

from vlm_pruner.ops.basic import inverse_norms
from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["Cosines", "first_bounded", "spread"]

_ROWS = 32
_CACHED = 1024  # tokens whose cosines are held: 4 n q floats with q = 256


def spread(features: Sequence[Tensor], keep: int, start: int | None, weight: Sequence[Tensor] | None) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.maxmin.spread`. Holds at most 1024 rows of cosines."""
    weights = [None] * len(features) if weight is None else weight
    return torch.stack([_one(f, keep, start, w) for f, w in zip(features, weights, strict=True)])


def _one(features: Tensor, keep: int, start: int | None, weight: Tensor | None) -> Tensor:
    cosines = Cosines(features)
    if may_read(features):
        with declared_sync():
            held: dict[int, Tensor] = {}
            first = first_bounded(cosines, held) if start is None else start
            return _grow_cached(cosines, first, keep, weight, held)
    if start is None:
        chosen = [cosines.closest_of_all().argmin().view(1)]
    else:
        chosen = [torch.full((1,), start, device=features.device)]
    covered, taken = _nothing_covered(cosines)
    while len(chosen) < keep:
        covered = covered.maximum(cosines.rows(chosen[-1])[0])
        taken = taken.index_fill_(0, chosen[-1], -torch.inf)
        chosen.append((_distance(covered, weight) + taken).argmax().view(1))
    return torch.cat(chosen)


def _nothing_covered(cosines: Cosines) -> tuple[Tensor, Tensor]:
    """[n] the largest cosine to a chosen token, and 0 or, where chosen, -inf."""
    return torch.full_like(cosines.inverse, -torch.inf), torch.zeros_like(cosines.inverse)


def _distance(covered: Tensor, weight: Tensor | None) -> Tensor:
    """[n] what orders tokens as their weighted distance does, without rounding where nothing is weighted."""
    return -covered if weight is None else weight * (1 - covered)


class Cosines:
    """Rows of the matrix of all cosines, on demand."""

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.inverse = inverse_norms(features)  # [n]
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


def first_bounded(cosines: Cosines, held: dict[int, Tensor] | None = None) -> int:
    """The token whose nearest neighbour is farthest; `held` gets the rows of cosines on the way."""
    n = cosines.count
    bound = cosines.inverse.new_full((n,), -torch.inf)  # [n] of the largest cosine to another token, from below
    exact = torch.zeros(n, dtype=torch.bool, device="cpu")
    index = torch.arange(0, n, max(1, n // _ROWS), device="cpu")  # spread over the image
    while len(index):
        cosine = cosines.rows(index)
        if held is not None and len(held) < _CACHED:
            held.update(zip(index.tolist(), cosine, strict=True))
        others = cosine.scatter(1, index[:, None], -torch.inf)
        bound = bound.maximum(others.amax(0))
        bound[index] = bound[index].maximum(others.amax(1))  # each cosine both ways: two of one value stay equal
        exact[index] = True
        best = bound[exact].min()
        left = ((bound <= best) & ~exact).nonzero().flatten()
        index = left[bound[left].sort(stable=True).indices[:_ROWS]]
    return int(bound.argmin())  # what is not exact exceeds the best


def _grow_cached(cosines: Cosines, first: int, keep: int, weight: Tensor | None, held: dict[int, Tensor]) -> Tensor:
    chosen, (covered, taken) = [first], _nothing_covered(cosines)
    while len(chosen) < keep:
        row = held.get(chosen[-1])
        if row is None:
            row = cosines.rows(torch.tensor(chosen[-1:], device="cpu"))[0]
        covered = covered.maximum(row)
        taken[chosen[-1]] = -torch.inf
        chosen.append(int((_distance(covered, weight) + taken).argmax()))
    return torch.tensor(chosen, device="cpu")
