"""Equal cover: as many tokens of each image as it takes to come equally near to all that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Budget
from vlm_pruner.errors import PlanError
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops import spread
from vlm_pruner.ops.basic import cosines, normalise, ranking
from vlm_pruner.ops.sync import declared_sync
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["Cover", "gains"]


def gains(features: Tensor, order: Tensor) -> Tensor:
    """[k] float64 cosine distance of each token of `order` [k] from the nearest one before it, never rising.

    A token that is chosen for being the farthest from all before it leaves every other one at most that far away. The
    first has an infinite distance.
    """
    rows = normalise(features.float())[order]
    near = cosines(rows, rows).tril(-1) + torch.full((len(order),) * 2, -torch.inf, device=order.device).triu()
    return (1 - near.amax(1)).cummin(0).values


@final
@dataclass(frozen=True)
class Cover(PruningMethod):
    """Max-min diverse tokens; the images of a call share one radius, so images that show more get more tokens.

    Tokens are added in the order of DivPrune. The distance of each from those before it is how far the image was from
    being covered. A common radius is drawn where all images together keep `keep` on average, so that a plain image
    gives its tokens to a full one. With a `radius` of one's own, images stand alone and `keep` is a ceiling.

    Args:
        radius: cosine distance from which on a token is worth keeping, 0 to 2; None is the one that the images share.
        most: no image keeps more than so many times its own budget.

    Deviates from DivPrune in the counts alone.
    Cost: as DivPrune's for `most` times the budget, and O(most^2 keep^2 d).

    Raises:
        PlanError: a parameter outside its range.
    """

    name: ClassVar[str] = "cover"
    title: ClassVar[str] = "Equal cover"
    source: ClassVar[str] = "this package; order of arXiv:2503.02175"

    radius: float | None = None
    most: float = 4.0

    def __post_init__(self) -> None:
        if self.radius is not None and not 0 <= self.radius <= 2:
            raise PlanError(f"radius={self.radius} must lie in [0, 2]")
        if not self.most >= 1:
            raise PlanError(f"most={self.most} must be at least 1")

    @property
    def budget(self) -> Budget:
        return "mean" if self.radius is None else "ceiling"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return self.select_batch([tokens], [keep])[0]

    def select_batch(self, tokens: Sequence[VisualTokens], keep: Sequence[int]) -> list[Selection]:
        alone = len(tokens) == 1 or self.radius is not None
        longest = [k if alone else min(len(t), int(self.most * k)) for t, k in zip(tokens, keep, strict=True)]
        orders = [spread([t.features], k)[0] for t, k in zip(tokens, longest, strict=True)]
        gained = [gains(t.features, order) for t, order in zip(tokens, orders, strict=True)]
        with declared_sync():  # how many stay is seen in the images alone
            counts = self._counts(gained, sum(keep))
        kept = [order[:count] for order, count in zip(orders, counts, strict=True)]
        return [Selection(order.sort().values, order) for order in kept]

    def _counts(self, gained: list[Tensor], total: int) -> list[int]:
        """How many tokens each image keeps: those of the largest gain, `total` of all or as many as pass the radius."""
        if self.radius is not None:
            return [int((gain > self.radius).sum()) for gain in gained]
        owner = torch.repeat_interleave(torch.tensor([len(gain) for gain in gained]))
        best = ranking(torch.cat(gained).cpu())[:total]
        return torch.bincount(owner[best], minlength=len(gained)).tolist()
