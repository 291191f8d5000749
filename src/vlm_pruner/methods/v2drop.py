"""V2Drop: a token that a layer hardly changes is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from vlm_pruner.budget import Keep
from vlm_pruner.methods._signals import read
from vlm_pruner.methods._stages import layers, scaled
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["V2Drop", "v2drop"]


def v2drop(features: Tensor, previous: Tensor, keep: int) -> Tensor:
    """[keep] tokens whose rows [n, d] moved furthest (Euclidean) while they passed the layer before."""
    return top((features.double() - previous.double()).norm(dim=-1).float(), keep)


@final
@dataclass(frozen=True)
class V2Drop(PruningMethod):
    """Keeps the tokens that the layer before changed most, in three steps that end with a single token.

    `keep` by name is the paper's nominal budget: 192 of 576 gives 288, 144 and 1 token before layers 3, 17 and 22 of 32
    (1.5 and 0.75 times `keep`, then one).

    Source: Chen et al., "Variation-aware Vision Token Dropping", arXiv:2509.01552, CVPR 2026; xuyang-liu16/V2Drop.
    Deviates: budgets other than the released schedule scale its first two counts.
    Cost: O(n d) a stage.
    """

    name: ClassVar[str] = "v2drop"
    title: ClassVar[str] = "V2Drop"
    source: ClassVar[str] = "arXiv:2509.01552"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.PREVIOUS_FEATURES})
    default_layer: ClassVar[int | None] = 3

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (previous,) = read(self, tokens, Signal.PREVIOUS_FEATURES)
        order = v2drop(tokens.features, previous, keep)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        if keep == 1.0 and isinstance(keep, float):
            return [(self, keep, self.default_layer)]
        steps = [scaled(keep, 1.5), scaled(keep, 0.75), 1]
        return [(self, k, layer) for layer, k in dict(zip(layers((3, 17, 22), num_layers), steps, strict=True)).items()]
