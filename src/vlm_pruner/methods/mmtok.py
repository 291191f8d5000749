"""MMTok: cover the question's words and the image at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._signals import read, site_rows
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import cosines, normalise
from vlm_pruner.ops.facility import facility
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["MMTok", "mmtok"]


def mmtok(
    features: Tensor,
    vision: Tensor,
    words: Tensor,
    keep: int,
    text_temperature: float = 0.02,
    image_temperature: float = 0.2,
    alpha: float = 0.5,
) -> Tensor:
    """[keep] tokens that greedily raise the coverage of all words and of all image tokens.

    Rows to cover are softmaxes over the image tokens: of word-to-token cosines, and `alpha` times token-to-token
    cosines of the tower, each set divided by its size. Needs that [n, n] softmax: every token is a row to cover.

    Args:
        features: [n, d] projected tokens, in the space of the words.
        vision: [n, c] rows of the vision tower.
        words: [t, d] word embeddings of the question.
    """
    image, text, tower = normalise(features), normalise(words), normalise(vision)
    asked = (cosines(text, image) / text_temperature).softmax(-1) / max(1, text.shape[0])  # [t, n]
    seen = (cosines(tower, tower) / image_temperature).softmax(-1) * (alpha / tower.shape[0])  # [n, n]
    return facility(torch.cat([asked, seen]).float().T.contiguous()[None], keep)[0]


@final
@dataclass(frozen=True)
class MMTok(PruningMethod):
    """Keeps the tokens that best cover the question's words and the rest of the image.

    Source: Dong et al., "MMTok: Multimodal Coverage Maximization", arXiv:2508.18264, ICLR 2026; Ironieser/MMTok.
    Deviates: all words after the image count, where the code filters stop words and template words by a list. Padded
    border patches take part.
    Cost: O(n^2 (d + keep)), an [n, n] matrix.
    """

    name: ClassVar[str] = "mmtok"
    title: ClassVar[str] = "MMTok"
    source: ClassVar[str] = "arXiv:2508.18264"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.WORDS, Signal.VISION_FEATURES})
    question_aware: ClassVar[bool] = True

    text_temperature: float = 0.02
    image_temperature: float = 0.2
    alpha: float = 0.5

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (words,) = read(self, tokens, Signal.WORDS)
        rows = site_rows(self, tokens)
        order = mmtok(tokens.features, rows, words, keep, self.text_temperature, self.image_temperature, self.alpha)
        return Selection(index=order.sort().values, order=order)
