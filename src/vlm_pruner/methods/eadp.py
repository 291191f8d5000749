"""EADP: facility location weighted by relevance to the sharpest words of the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._signals import question, raster
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import cosines, mean, minmax, normalise, top
from vlm_pruner.ops.facility import facility
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["Eadp", "eadp", "smooth", "word_relevance"]


def word_relevance(
    image: Tensor, pooled: Tensor, words: Tensor, alpha: float = 0.5, share: float = 0.2, sign: float = -1.0
) -> Tensor:
    """[n] relevance: `alpha` parts of the cosine to the pooled text, the rest from its sharpest positions.

    A position is sharp where the softmax of its cosines over the image (times 100) has a low entropy; the `share` of
    the lowest are weighed by the softmax of minus their entropy at temperature 0.01.

    Args:
        image: [n, c]; pooled: [m, c]; words: [m, l, c], all in one space.
        sign: -1 as released, where cosines are negated.
    """
    rows = normalise(image)
    whole = sign * cosines(rows, normalise(pooled))  # [n, m]
    each = sign * cosines(rows, normalise(words).flatten(0, 1)).view(-1, *words.shape[:2])  # [n, m, l]
    chance = (100 * each).softmax(0)
    entropy = -(chance * (chance + 1e-12).log()).sum(0)  # [m, l]
    count = max(1, int(share * words.shape[1]))
    sharp = torch.stack([top(-row, count) for row in entropy.unbind()])  # [m, count]
    weight = (-entropy.gather(1, sharp) / 0.010001).softmax(-1)
    index = sharp[None].expand(rows.shape[0], -1, -1)
    local = (each.gather(2, index) * weight).sum(-1)  # [n, m]
    return mean(alpha * whole + (1 - alpha) * local, 1)


def smooth(relevance: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """[n] `relevance` of a (t, h, w) grid after a 3 x 3 Gaussian of sigma 1 on every frame, borders reflected."""
    frames, h, w = grid
    if min(h, w) < 2:
        return relevance
    side = torch.arange(-1, 2, dtype=relevance.dtype, device=relevance.device).square().mul(-0.5).exp()
    kernel = torch.outer(side, side) / side.sum().square()
    padded = torch.nn.functional.pad(relevance.view(frames, 1, h, w), (1, 1, 1, 1), mode="reflect")
    return torch.nn.functional.conv2d(padded, kernel[None, None]).flatten()


def eadp(rows: Tensor, weight: Tensor, keep: int) -> Tensor:
    """[keep] tokens that greedily raise the coverage (1 + cosine) / 2 of `rows` [n, d], each counted by `weight` [n].

    Needs the [n, n] cosines: what a candidate adds is measured on every token.
    """
    unit = normalise(rows)
    cover = cosines(unit, unit).clamp_(-1, 1).add_(1).mul_(0.5)
    return facility(cover.float()[None], keep, row_weight=weight[None])[0]


@final
@dataclass(frozen=True)
class Eadp(PruningMethod):
    """Keeps the tokens that cover the image best where the sharpest words of the question look.

    Source: "EADP", 2026; SJTU-DeepVisionLab/EADP.
    Deviates: cosines stay negated, as released (`negate`). Without a shared image-text space it takes the word
    embeddings of the question, their mean and the projected tokens, as the authors do for Qwen2.5-VL. Tokens that are
    no full grid are not smoothed. The [n, n] cosines are needed.
    Cost: O(n^2 (d + keep)), an [n, n] matrix.
    """

    name: ClassVar[str] = "eadp"
    title: ClassVar[str] = "EADP"
    source: ClassVar[str] = "2026, SJTU-DeepVisionLab/EADP"
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.SHARED_SPACE, Signal.WORDS})
    question_aware: ClassVar[bool] = True

    alpha: float = 0.5
    share: float = 0.2
    beta: float = 1.0
    negate: bool = True

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        image, pooled = question(self, tokens)
        if tokens.image_embeds is None:
            assert tokens.words is not None
            words = tokens.words[None]
        else:
            words = pooled[:, None] if tokens.word_embeds is None else tokens.word_embeds
        score = word_relevance(image, pooled, words, self.alpha, self.share, -1.0 if self.negate else 1.0)
        weight = smooth(minmax(score, 1e-6), raster(tokens)).clamp_min(0).pow(self.beta)
        order = eadp(tokens.features, weight, keep)
        return Selection(index=order.sort().values, order=order)
