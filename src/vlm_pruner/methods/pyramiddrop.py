"""PyramidDrop: halve the image tokens after each quarter of the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from vlm_pruner.budget import Keep
from vlm_pruner.methods._signals import read
from vlm_pruner.methods._stages import layers, scaled
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.methods.fastv import fastv
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["PyramidDrop"]


@final
@dataclass(frozen=True)
class PyramidDrop(PruningMethod):
    """Keeps what the last prompt token attends to, in three steps; each keeps the share `ratio` of the one before.

    `keep` by name is what stays after the last step: 0.125 gives the paper's 1/2, 1/4 and 1/8 after 8, 16 and 24 of 32
    layers; a count of 72 gives 288, 144 and 72.

    Source: Xing et al., "PyramidDrop", arXiv:2410.17247, CVPR 2025; Cooperx521/PyramidDrop.
    Deviates: the attention is that of the layer before, where the code runs the next layer's norm and projections on
    the current rows. Positions are the engine's policy; the paper's are repacked.
    Cost: O(n log n) a stage, and one row of attention.
    """

    name: ClassVar[str] = "pyramiddrop"
    title: ClassVar[str] = "PyramidDrop"
    source: ClassVar[str] = "arXiv:2410.17247"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.LAST_QUERY_ATTENTION})
    default_layer: ClassVar[int | None] = 8
    question_aware: ClassVar[bool] = True

    ratio: float = 0.5

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (attention,) = read(self, tokens, Signal.LAST_QUERY_ATTENTION)
        order = fastv(attention, keep)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        steps = [scaled(keep, self.ratio**-2), scaled(keep, self.ratio**-1), keep]
        stages = zip(layers((8, 16, 24), num_layers), steps, strict=True)
        return [(self, k, layer) for layer, k in dict(stages).items()]
