"""Max-min diversity with a running maximum cosine per token; cosines are computed for few tokens, many at a time.

Where values may be read (CPU), the first token is found by branch and bound: every cosine seen bounds the nearest
neighbour of a token from below, and a token whose bound exceeds the best exact value is out. The rows computed on the
way serve the later steps, which tend to choose the same isolated tokens. All of that is float32, whose rounding is
known; where it leaves more than one token to choose, their cosines are computed again, exactly, and those decide.
Elsewhere all cosines are exact. The first step goes over the upper triangle in strips and every later one is a product
with one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor

from vlm_pruner.ops.basic import cosines, inverse_norms, normalise
from vlm_pruner.ops.sync import declared_sync, may_read

__all__ = ["Cosines", "first_bounded", "spread"]

_ROWS = 32
_CACHED = 1024  # tokens whose cosines are held: 4 n q floats with q = 256
_PLAIN = (1e-30, 1e30)  # inverse lengths by which float32 can be multiplied


def spread(features: Sequence[Tensor], keep: int, start: int | None, weight: Sequence[Tensor] | None) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.maxmin.spread`. Holds at most 1024 rows of cosines."""
    weights = [None] * len(features) if weight is None else weight
    return torch.stack([_one(f, keep, start, w) for f, w in zip(features, weights, strict=True)])


def _one(features: Tensor, keep: int, start: int | None, weight: Tensor | None) -> Tensor:
    if not may_read(features):
        return _unread(features, keep, start, weight)
    with declared_sync():
        found = Cosines(features, inverse_norms(features))
        held: dict[int, Tensor] = {}
        first = first_bounded(found, held) if start is None else start
        return _Growth(found, first, keep, weight, held).order()


def _unread(features: Tensor, keep: int, start: int | None, weight: Tensor | None) -> Tensor:
    """[keep] tokens by exact cosines alone; no value is read."""
    if start is None:
        chosen = [_closest_of_all(features).argmin().view(1)]
    else:
        chosen = [torch.full((1,), start, device=features.device)]
    covered = torch.full((len(features),), -torch.inf, dtype=torch.float64, device=features.device)
    taken = torch.zeros_like(covered)
    while len(chosen) < keep:
        covered = covered.maximum(_exact_rows(features, chosen[-1])[0])
        taken = taken.index_fill_(0, chosen[-1], -torch.inf)
        distance = (1 - covered) if weight is None else weight.double() * (1 - covered)
        chosen.append((distance.nan_to_num(nan=0.0) + taken).argmax().view(1))
    return torch.cat(chosen)


def _exact_rows(features: Tensor, index: Tensor, start: int = 0) -> Tensor:
    """[m, n - start] exact cosines of the tokens `index` with the tokens from `start` on."""
    some = normalise(features.index_select(0, index))
    parts = [cosines(some, normalise(part)) for part in torch.split(features[start:], _CACHED)]
    return torch.cat(parts, 1).nan_to_num_(nan=0.0)


def _closest_of_all(features: Tensor) -> Tensor:
    """[n] the largest cosine of each token with another one, from the upper triangle, in strips."""
    n = len(features)
    closest = torch.full((n,), -torch.inf, dtype=torch.float64, device=features.device)
    for start in range(0, n, 4 * _ROWS):
        strip = torch.arange(start, min(start + 4 * _ROWS, n), device=closest.device)
        cosine = _exact_rows(features, strip, start)
        cosine.diagonal().fill_(-torch.inf)
        closest[strip] = closest[strip].maximum(cosine.amax(1))
        closest[start:] = closest[start:].maximum(cosine.amax(0))
    return closest


class Cosines:
    """Rows of the matrix of all cosines, on demand: in float32, each at most `off` from the truth, or exactly."""

    def __init__(self, features: Tensor, inverse: Tensor) -> None:
        self.features, self.count, d = features, len(features), features.shape[1]
        self.off = (d + isqrt(d) + 64) * 2.0**-24
        if bool(((inverse > _PLAIN[0]) & (inverse < _PLAIN[1]) | (inverse == 0)).all()):
            self.scaled, self.inverse = features, inverse.float()  # [n]
        else:
            self.scaled, self.inverse = normalise(features), torch.ones_like(inverse, dtype=torch.float32)

    def rows(self, index: Tensor) -> Tensor:
        """[m, n] cosines of the tokens `index` with all tokens, in float32."""
        some = self.scaled.index_select(0, index).float() * self.inverse[index, None]  # [m, d]
        if self.scaled.dtype != torch.float32:
            dots = [some @ part.float().T for part in torch.split(self.scaled, _CACHED)]
            return torch.cat(dots, 1).mul_(self.inverse).nan_to_num_(nan=0.0)
        return (some @ self.scaled.T).mul_(self.inverse).nan_to_num_(nan=0.0)

    def pairs(self, one: Tensor, other: Tensor) -> Tensor:
        """[p] exact cosines of the tokens `one` [p] with the tokens `other` [p]."""
        parts = zip(torch.split(one, _ROWS), torch.split(other, _ROWS), strict=True)
        rows = self.features.index_select
        made = [(normalise(rows(0, a)).double() * normalise(rows(0, b)).double()).sum(1) for a, b in parts]
        return torch.cat(made).nan_to_num_(nan=0.0)

    def closest(self, token: int, row: Tensor) -> float:
        """The exact cosine of a token's nearest neighbour, given its `row` [n] in float32."""
        row = row.index_fill(0, torch.tensor([token], device="cpu"), -torch.inf)
        near = (row >= row.max() - 2 * self.off).nonzero().flatten()
        one = torch.full_like(near, token)
        if len(near) <= _ROWS:
            return float(self.pairs(one, near).max())
        exact = _exact_rows(self.features, one[:1])[0]
        exact[token] = -torch.inf
        return float(exact.max())


def first_bounded(found: Cosines, held: dict[int, Tensor]) -> int:
    """The token whose nearest neighbour is farthest; `held` gets the rows of cosines on the way."""
    n = found.count
    if n == 1:
        return 0
    bound = found.inverse.new_full((n,), -torch.inf)  # [n] of the largest cosine to another token, from below
    exact = torch.zeros(n, dtype=torch.bool, device="cpu")
    index = torch.arange(0, n, max(1, n // _ROWS), device="cpu")  # spread over the image
    while len(index):
        cosine = found.rows(index)
        if len(held) < _CACHED:
            held.update(zip(index.tolist(), cosine, strict=True))
        others = cosine.scatter(1, index[:, None], -torch.inf)
        bound = bound.maximum(others.amax(0))
        bound[index] = bound[index].maximum(others.amax(1))
        exact[index] = True
        least = bound[exact].min()
        left = ((bound <= least + 2 * found.off) & ~exact).nonzero().flatten()
        index = left[bound[left].sort(stable=True).indices[:_ROWS]]
    doubtful = (exact & (bound <= least + 2 * found.off)).nonzero().flatten()  # what is not exact exceeds the best
    if len(doubtful) == 1:
        return int(doubtful)
    if len(doubtful) > _ROWS:  # as in an image of equal tokens
        return int(doubtful[_closest_of(found.features, doubtful).argmin()])
    rows = [held[i] if i in held else found.rows(doubtful[j : j + 1])[0] for j, i in enumerate(doubtful.tolist())]
    nearest = [found.closest(i, row) for i, row in zip(doubtful.tolist(), rows, strict=True)]
    return int(doubtful[torch.tensor(nearest, dtype=torch.float64, device="cpu").argmin()])


def _closest_of(features: Tensor, index: Tensor) -> Tensor:
    """[m] the exact cosine of the nearest neighbour of each of the tokens `index`."""
    parts = []
    for some in torch.split(index, _CACHED):
        parts.append(_exact_rows(features, some).scatter_(1, some[:, None], -torch.inf).amax(1))
    return torch.cat(parts)


class _Growth:
    """The choice after the first token, on a CPU."""

    def __init__(self, found: Cosines, first: int, keep: int, weight: Tensor | None, held: dict[int, Tensor]) -> None:
        self.found, self.keep, self.held, self.chosen = found, keep, held, [first]
        n = found.count
        self.weight = None if weight is None else weight.double().nan_to_num(nan=0.0)
        self.covered = torch.full((n,), -torch.inf, dtype=torch.float64, device="cpu")  # the largest cosine, nearly
        self.exact = torch.full_like(self.covered, -torch.inf)  # the same exactly, to `known` [n] of the chosen tokens
        self.known = torch.zeros(n, dtype=torch.int64, device="cpu")
        self.taken = torch.zeros_like(self.covered)
        self.units = torch.empty(keep, found.features.shape[1], dtype=torch.float32, device="cpu")

    def order(self) -> Tensor:
        """[keep] tokens."""
        while len(self.chosen) < self.keep:
            latest, count = torch.tensor(self.chosen[-1:], device="cpu"), len(self.chosen)
            row = self.held.get(self.chosen[-1])
            self.covered = self.covered.maximum(self.found.rows(latest)[0] if row is None else row)
            self.taken[latest] = -torch.inf
            self.units[count - 1] = normalise(self.found.features.index_select(0, latest))[0]
            most = self._distance(self.covered - self.found.off) + self.taken
            least = self._distance(self.covered + self.found.off) + self.taken
            doubtful = (most >= least.max()).nonzero().flatten()
            self.chosen.append(int(doubtful if len(doubtful) == 1 else self._farthest(doubtful, count)))
        return torch.tensor(self.chosen, device="cpu")

    def _distance(self, covered: Tensor) -> Tensor:
        return 1 - covered if self.weight is None else self.weight * (1 - covered)

    def _farthest(self, doubtful: Tensor, count: int) -> Tensor:
        """The one of some tokens that is farthest from all chosen ones, exactly."""
        begin = int(self.known[doubtful].min())
        for some in torch.split(doubtful, _CACHED):
            unit = normalise(self.found.features.index_select(0, some))
            nearest = cosines(unit, self.units[begin:count]).nan_to_num_(nan=0.0).amax(1)
            self.exact[some] = self.exact[some].maximum(nearest)
        self.known[doubtful] = count
        distance = self._distance(self.exact) + self.taken
        return doubtful[distance[doubtful].argmax()]
