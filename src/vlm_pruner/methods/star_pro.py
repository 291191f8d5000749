"""STAR-Pro: greedy volume before the language model, attention of the text at two of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Keep
from vlm_pruner.methods._signals import read, site_rows
from vlm_pruner.methods._stages import counts, layers
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import mean, products, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["PivotedQR", "StarPro", "TextAttention", "pivoted_qr"]

_STAGES = {32: (64, 17, 10), 64: (128, 37, 18), 128: (256, 74, 36)}


def pivoted_qr(rows: Tensor, keep: int) -> Tensor:
    """[keep] tokens, each the longest of what is left of `rows` [n, c] after projecting out those before it.

    Neither centred nor normalised. Where the longest squared residual is at most 1e-8 of the longest row, the tokens of
    the largest original norm follow. O(keep n c), float64.
    """
    rest = rows.float().double()
    rest = rest / rest.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    norm = rest.square().sum(1)  # [n]
    least = norm.max() * 1e-8
    taken = torch.zeros_like(norm)
    order = []
    for _ in range(keep):
        length = rest.square().sum(1)
        length = torch.where((length + taken).max() > least, length, norm)
        best = (length + taken).argmax().view(1)
        order.append(best)
        taken = taken.index_fill(0, best, -torch.inf)
        row = rest.index_select(0, best).squeeze(0)
        direction = row / row.norm().clamp_min(1e-20)
        rest = rest - torch.outer(products(rest, direction), direction)
    return torch.cat(order)


@final
@dataclass(frozen=True)
class PivotedQR(PruningMethod):
    """Keeps the tokens of largest volume: residual pivoted QR on the rows of the vision tower (STAR-Pro, stage A).

    Source: "STAR-Pro", arXiv:2609.05916, stage A; EasonAI-5589/starpro.
    Deviates: the fallback threshold is relative to the longest row. Inside the language model it reads the residual
    stream.
    Cost: O(n c keep) in float64; warned about from 8,192 tokens on.
    """

    name: ClassVar[str] = "pivoted-qr"
    title: ClassVar[str] = "Pivoted QR (STAR-Pro A)"
    source: ClassVar[str] = "arXiv:2609.05916, stage A"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_FEATURES})
    slow_from: ClassVar[int | None] = 8192

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = pivoted_qr(site_rows(self, tokens), keep)
        return Selection(index=order.sort().values, order=order)


@final
@dataclass(frozen=True)
class TextAttention(PruningMethod):
    """Keeps the tokens with the largest attention, mean over heads and all text rows after the image, at 12/32 depth.

    Source: "STAR-Pro", arXiv:2609.05916, stage B; EasonAI-5589/starpro.
    Deviates: causal attention of the layer before, where the code defaults to a bidirectional mask (its
    STAR_CAUSAL_FIX).
    Cost: O(heads t n).
    """

    name: ClassVar[str] = "text-attention"
    title: ClassVar[str] = "Text attention (STAR-Pro B)"
    source: ClassVar[str] = "arXiv:2609.05916, stage B"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.TEXT_ATTENTION})
    default_layer: ClassVar[int | None] = 12
    question_aware: ClassVar[bool] = True

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (attention,) = read(self, tokens, Signal.TEXT_ATTENTION)
        order = top(mean(attention, 0, 1), keep)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        return [(self, keep, layers((12,), num_layers)[0])]


@final
@dataclass(frozen=True)
class StarPro(PruningMethod):
    """Pivoted QR before the language model to twice the budget, then text attention after 12 and 20 of 32 layers.

    `keep` by name is the paper's nominal budget: 64 gives 128, 37 and 18 tokens. As a single stage it is `pivoted-qr`.

    Source: "STAR-Pro", arXiv:2609.05916; EasonAI-5589/starpro.
    Deviates: as its two stages; positions are the engine's policy, the released default repacks them.
    Cost: O(n c keep) in float64, then O(heads t n) a stage; warned about from 8,192 tokens on.
    """

    name: ClassVar[str] = "star-pro"
    title: ClassVar[str] = "STAR-Pro"
    source: ClassVar[str] = "arXiv:2609.05916"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_FEATURES})
    slow_from: ClassVar[int | None] = 8192
    question_aware: ClassVar[bool] = True

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        order = pivoted_qr(site_rows(self, tokens), keep)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        before, *inside = counts(_STAGES, keep)
        later = dict(zip(layers((12, 20), num_layers), inside, strict=True))
        return [(PivotedQR(), before, None), *((TextAttention(), k, layer) for layer, k in later.items())]
