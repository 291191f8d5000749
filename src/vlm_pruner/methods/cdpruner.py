"""CDPruner: the most probable set of a determinantal point process over similarity and relevance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._signals import question
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import normalise
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["CDPruner", "dpp", "relevance"]


def relevance(image: Tensor, text: Tensor, negate: bool = True) -> Tensor:
    """[n] in (0, 1]: mean cosine of `image` [n, c] to `text` [m, c], negated as released, min-max scaled."""
    cosine = (normalise(image) @ normalise(text).T).mean(1)
    cosine = -cosine if negate else cosine
    low, high = cosine.min(), cosine.max()
    return torch.where(high > low, (cosine - low + 1e-6) / torch.where(high > low, high - low, 1.0), 1.0)


def dpp(rows: Tensor, weight: Tensor, keep: int) -> Tensor:
    """[keep] greedy maximum a posteriori of the kernel diag(w) R R^T diag(w) for `rows` R [n, d], in order.

    Kernel rows are computed when they are chosen, so memory is O(n (d + keep)). Where nothing adds volume any more
    (a residual of 1e-10 of the largest, or less), the update is left out.
    """
    scaled = rows.float() * weight[:, None]  # [n, d]
    residual = scaled.square().sum(1)
    least = residual.max() * 1e-10
    factors = scaled.new_zeros(keep, len(scaled))  # rows of the Cholesky factor
    taken = torch.zeros_like(residual)
    order = []
    for t in range(keep):
        best = (residual + taken).argmax().view(1)
        order.append(best)
        taken = taken.index_fill(0, best, -torch.inf)
        row = scaled @ scaled.index_select(0, best).squeeze(0)  # [n]
        known = factors[:t]
        row = row - known.index_select(1, best).squeeze(1) @ known
        height = residual.index_select(0, best)
        factor = torch.where(height > least, row / height.clamp_min(1e-30).sqrt(), 0.0)
        factors[t] = factor
        residual = residual - factor.square()
    return torch.cat(order)


@final
@dataclass(frozen=True)
class CDPruner(PruningMethod):
    """Keeps the set of largest volume under cosine similarity, each token scaled by its relevance to the question.

    Source: Zhang et al., "Beyond Attention or Similarity: Maximizing Conditional Diversity", arXiv:2506.10967, NeurIPS
    2025; Theia-4869/CDPruner.
    Deviates: nothing on the given embeddings; `negate=True` keeps the sign of the released code, which negates the
    cosine to the question. Without a shared image-text space (no CLIP text tower) it compares the projected tokens
    with the word embeddings of the question, as its authors' followers do on Qwen2.5-VL. Kernel rows are made on
    demand.
    Cost: O(n d keep).
    """

    name: ClassVar[str] = "cdpruner"
    title: ClassVar[str] = "CDPruner"
    source: ClassVar[str] = "arXiv:2506.10967"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.SHARED_SPACE, Signal.WORDS})
    question_aware: ClassVar[bool] = True

    negate: bool = True

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        image, text = question(self, tokens)
        order = dpp(normalise(tokens.features), relevance(image, text, self.negate), keep)
        return Selection(index=order.sort().values, order=order)
