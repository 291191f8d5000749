"""CDPruner: the most probable set of a determinantal point process over similarity and relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._order import TokenByToken
from vlm_pruner.methods._signals import question
from vlm_pruner.ops import dpp
from vlm_pruner.ops.basic import cosines, inverse_norms, mean, normalise
from vlm_pruner.types import Signal, VisualTokens

__all__ = ["CDPruner", "relevance"]


def relevance(image: Tensor, text: Tensor, negate: bool = True) -> Tensor:
    """[n] in (0, 1]: mean cosine of `image` [n, c] to `text` [m, c], negated as released, min-max scaled."""
    cosine = mean(cosines(normalise(image), normalise(text)), 1)
    cosine = -cosine if negate else cosine
    low, high = cosine.min(), cosine.max()
    return torch.where(high > low, (cosine - low + 1e-6) / torch.where(high > low, high - low, 1.0), 1.0)


@final
@dataclass(frozen=True)
class CDPruner(TokenByToken):
    """Keeps the set of largest volume under cosine similarity, each token scaled by its relevance to the question.

    Source: Zhang et al., "Beyond Attention or Similarity: Maximizing Conditional Diversity", arXiv:2506.10967, NeurIPS
    2025; Theia-4869/CDPruner.
    Deviates: nothing on the given embeddings; `negate=True` keeps the sign of the released code, which negates the
    cosine to the question. Without a shared image-text space (no CLIP text tower) it compares the projected tokens
    with the word embeddings of the question, as its authors' followers do on Qwen2.5-VL. The kernel is never
    held.
    Cost: O(n d keep) at most.
    """

    name: ClassVar[str] = "cdpruner"
    title: ClassVar[str] = "CDPruner"
    source: ClassVar[str] = "arXiv:2506.10967"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.SHARED_SPACE, Signal.WORDS})
    question_aware: ClassVar[bool] = True

    negate: bool = True

    def orders(self, tokens: Sequence[VisualTokens], keep: int) -> Tensor:
        asked = [relevance(*question(self, t), self.negate) for t in tokens]
        weights = [w * inverse_norms(t.features) for w, t in zip(asked, tokens, strict=True)]
        return dpp([t.features for t in tokens], weights, keep)
