"""ApET: tokens that a small basis cannot rebuild stay; the others are folded into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Keep
from vlm_pruner.methods._merge import merged
from vlm_pruner.methods._signals import site_rows
from vlm_pruner.methods._stages import layers, scaled
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import cosines, normalise, pool, products, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["ApET", "apet", "basis"]


def basis(rows: Tensor, count: int) -> Tensor:
    """[count] tokens far apart (Euclidean) in `rows` [n, c], the first the one farthest from the mean."""
    distance = (rows - rows.mean(0)).square().sum(1)
    taken = torch.zeros_like(distance)
    order, nearest = [], torch.full_like(distance, torch.inf)
    for _ in range(count):
        best = (distance + taken).argmax().view(1)
        order.append(best)
        taken = taken.index_fill(0, best, -torch.inf)
        nearest = torch.minimum(nearest, (rows - rows.index_select(0, best)).square().sum(1))
        distance = nearest
    return torch.cat(order)


def apet(rows: Tensor, keep: int, size: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Basis tokens [q] with q = min(size, keep - 1), the `keep` - q others of the largest error, and who takes whom in.

    The error of a row of `rows` [n, c] is its distance to the span of the basis. The third value [n] is the place,
    among the chosen others, of the one with the highest cosine.
    """
    x = rows.float().double()
    x = x / x.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    base = basis(x, min(size, keep - 1)) if keep > 1 else torch.zeros(0, dtype=torch.int64, device=rows.device)
    rest = x
    for b in base.unbind():
        row = rest.index_select(0, b.view(1)).squeeze(0)
        direction = row / row.norm().clamp_min(1e-6)
        rest = rest - torch.outer(products(rest, direction), direction)
    error = rest.norm(dim=1).index_fill(0, base, -torch.inf)
    far = top(error, keep - len(base))
    unit = normalise(x)
    return base, far, cosines(unit, unit.index_select(0, far)).argmax(1)


@final
@dataclass(frozen=True)
class ApET(PruningMethod):
    """Keeps ten basis tokens and the tokens that these rebuild worst; each kept token becomes the mean of its group.

    `keep` by name is the paper's layer average: 192 of 576 gives 288 before the language model and 96 at layer 16 of
    32.

    Source: "ApET: Approximation-Error Guided Token Compression", CVPR 2026; MaQianKun0/ApET.
    Deviates: the first basis token is the one farthest from the mean, not a random one. The error is the exact
    distance to the span; the code solves it with a ridge of 1e-5. Basis tokens stand at their own places. Rows are
    merged after the projector, with the groups found before it.
    Cost: O(n c keep).
    """

    name: ClassVar[str] = "apet"
    title: ClassVar[str] = "ApET"
    source: ClassVar[str] = "CVPR 2026, MaQianKun0/ApET"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_FEATURES})

    size: int = 10

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        rows = tokens.features
        base, far, owner = apet(site_rows(self, tokens), keep, self.size)
        count = len(far)
        own = torch.arange(count, device=rows.device)
        slot = owner.index_copy(0, far, own).index_fill(0, base, -1)
        total = pool(torch.ones_like(rows[:, :1]), slot, count)
        features = torch.cat([pool(rows, slot, count) / total, rows.index_select(0, base).float()])
        slot = slot.index_copy(0, base, count + torch.arange(len(base), device=rows.device))
        return merged(torch.cat([far, base]), features, slot, rows.dtype)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        if isinstance(keep, float) and keep == 1.0:
            return [(self, keep, None)]
        return [(self, scaled(keep, 1.5), None), (self, scaled(keep, 0.5), layers((16,), num_layers)[0])]
