"""What methods share that take one token after the other and drop the rest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from vlm_pruner.methods.base import PruningMethod, select_alike
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["TokenByToken"]


class TokenByToken(PruningMethod):
    """Chooses from images of equal shape and budget together; a concrete method says in which order."""

    @abstractmethod
    def orders(self, tokens: Sequence[VisualTokens], keep: int) -> Tensor:
        """[B, keep] tokens of each of B images, whose features have one shape and dtype, in order of selection."""

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return self._select_alike([tokens], keep)[0]

    def select_batch(self, tokens: Sequence[VisualTokens], keep: Sequence[int]) -> list[Selection]:
        """Images of equal shape and budget are chosen from together."""
        return select_alike(tokens, keep, lambda t: (t.features.shape, t.features.dtype, t.device), self._select_alike)

    def _select_alike(self, tokens: Sequence[VisualTokens], keep: int) -> list[Selection]:
        orders = self.orders(tokens, keep)
        return [Selection(index=i, order=o) for i, o in zip(orders.sort(1).values, orders, strict=True)]
