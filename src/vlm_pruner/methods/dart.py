"""DART: what duplicates a pivot goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.methods._signals import read
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import cosines, normalise, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["Dart", "dart", "dart_released"]


def _norms(keys: Tensor) -> Tensor:
    """[n] L1 norm over heads and channels of keys [heads, n, head_dim]."""
    return keys.transpose(0, 1).flatten(1).double().abs().sum(1)


def dart(features: Tensor, keys: Tensor, text: Tensor, text_keys: Tensor, keep: int, pivots: int = 4) -> Tensor:
    """[keep] image tokens: the image pivots, then for each pivot (image first, by norm) the least similar to it.

    Args:
        features, keys: [n, d] and [heads, n, head_dim] of the image.
        text, text_keys: [t, d] and [heads, t, head_dim] of the text after it.
    """
    own = top(_norms(keys), min(pivots, keep))
    asked = top(_norms(text_keys), min(pivots, text.shape[0]))
    rows = normalise(features)
    anchors = torch.cat([rows.index_select(0, own), normalise(text).index_select(0, asked)])  # [p, d]
    similarity = cosines(anchors, rows).index_fill(1, own, torch.inf)  # [p, n]
    quota, spare = divmod(keep - own.shape[0], anchors.shape[0])
    order = [own]
    for p in range(anchors.shape[0]):
        least = top(-similarity[p], quota + (p < spare))
        similarity = similarity.index_fill(1, least, torch.inf)
        order.append(least)
    return torch.cat(order)


def dart_released(features: Tensor, keys: Tensor, text: Tensor, text_keys: Tensor, start: int, keep: int) -> Tensor:
    """Image tokens as the released code keeps them: 4 + 8 * int(...), pivots in the iteration order of a Python set.

    `start` is the position of the first image token, on which the order of the set depends. Reads values on the host.
    """
    n = features.shape[0]
    own, asked = top(_norms(keys), 4).tolist(), top(_norms(text_keys), 4).tolist()
    quota = int((1 - (1 - keep / n)) * n / 8)
    rows, words = normalise(features), normalise(text)
    kept, pool = list(own), [i for i in range(n) if i not in own]
    for position in set([start + i for i in own] + [start + n + i for i in asked]):
        i = position - start
        anchor = rows[i] if i < n else words[i - n]
        least = top(-cosines(rows[pool], anchor[None])[:, 0], quota).tolist()
        taken = {pool[j] for j in least}
        kept += [pool[j] for j in least]
        pool = [j for j in pool if j not in taken]
    return torch.tensor(kept, device=features.device)


@final
@dataclass(frozen=True)
class Dart(PruningMethod):
    """Keeps four image tokens with large keys, and the image tokens least similar to these and to four text tokens.

    Source: Wen et al., "Stop Looking for Important Tokens: Duplication Matters More", arXiv:2502.11494, EMNLP 2025;
    ZichenWen1/DART.
    Deviates: pivots act in the order image then text, each by norm, and their quotas differ by at most one, so that
    exactly `keep` tokens stay; `dart_released` gives the released count (188 where 192 are asked for, 68 for 64) in the
    order of a Python set, outside the contract. The residual rows are compared as they are; the released code puts the
    final norm of the language model before the cosine.
    Cost: O(n (d + heads head_dim)).
    """

    name: ClassVar[str] = "dart"
    title: ClassVar[str] = "DART"
    source: ClassVar[str] = "arXiv:2502.11494"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.KEYS, Signal.TEXT, Signal.TEXT_KEYS})
    default_layer: ClassVar[int | None] = 2
    question_aware: ClassVar[bool] = True

    pivots: int = 4

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        keys, text, text_keys = read(self, tokens, Signal.KEYS, Signal.TEXT, Signal.TEXT_KEYS)
        order = dart(tokens.features, keys, text, text_keys, keep, self.pivots)
        return Selection(index=order.sort().values, order=order)
