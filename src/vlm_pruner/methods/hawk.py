"""HAWK: heads of the first layer vote for what the text asks of the image, each with a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from vlm_pruner.errors import PlanError, unknown_name
from vlm_pruner.methods._signals import read
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["PUBLISHED", "Hawk", "hawk"]

# Of the 28 heads of Qwen2.5-VL-7B, found by removing one after the other; their scale does not matter.
PUBLISHED = (
    0.0875, 0.3000, 0.0480, 0.0321, 0.0104, 0.0102, 0.0336, 0.0460, 0.0540, 0.0472, 0.0234, 0.0537, 0.0109, 0.0573,
    0.0276, 0.0403, 0.0429, 0.0352, 0.0162, 0.0519, 0.0553, 0.0266, 0.0222, 0.0480, 0.0337, 0.0250, 0.0000, 0.0224,
)  # fmt: skip

_NAMED = {"uniform": None, "published": PUBLISHED}


def hawk(queries: Tensor, keys: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """[n] float64 score: what the text's mean query meets in each head, at unit length over the image, weighed.

    Args:
        queries: [heads, t, head_dim] of the text, keys: [kv_heads, n, head_dim] of the image, neither rotated.
        weights: of the heads; None weighs them alike.
    """
    width = queries.shape[2]
    asked = queries.double().mean(1).view(keys.shape[0], -1, width)  # [kv_heads, group, head_dim]
    met = (asked @ keys.double().transpose(1, 2)).flatten(0, 1) / width**0.5  # [heads, n]
    met = met.nan_to_num(0.0, 0.0, 0.0)
    met = met / met.norm(dim=1, keepdim=True).clamp_min(1e-12)
    score: Tensor = met.new_zeros(met.shape[1])
    for weight, row in zip([1.0] * len(met) if weights is None else weights, met.unbind(), strict=True):
        score = score + weight * row
    return score


@final
@dataclass(frozen=True)
class Hawk(PruningMethod):
    """Keeps the tokens whose keys match the text's queries in the first layer, without rotation, over weighted heads.

    Args:
        weights: `uniform`; `published` for Qwen2.5-VL-7B alone; or one number for each head of the model.

    Source: "HAWK", arXiv:2604.07812, CVPR 2026; peppery77/HAWK.
    Deviates: prunes before layer 1, whose layer before has made these queries and keys anyway; the code makes them
    before layer 0. Heads count alike unless weights are given, since a method does not know which model it is in: this
    variant has no published figures. Several images are chosen from one by one, and the text is all of it after the
    image.
    Cost: O(heads n head_dim).
    """

    name: ClassVar[str] = "hawk"
    title: ClassVar[str] = "HAWK"
    source: ClassVar[str] = "arXiv:2604.07812"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.RAW_KEYS, Signal.TEXT_QUERIES})
    default_layer: ClassVar[int | None] = 1
    question_aware: ClassVar[bool] = True

    weights: str | tuple[float, ...] = "uniform"

    def __post_init__(self) -> None:
        if isinstance(self.weights, str):
            if self.weights not in _NAMED:
                raise PlanError(unknown_name("weights", self.weights, _NAMED))
            return
        object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))  # a list, out of JSON

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        queries, keys = read(self, tokens, Signal.TEXT_QUERIES, Signal.RAW_KEYS)
        weights = _NAMED[self.weights] if isinstance(self.weights, str) else self.weights
        if weights is not None and len(weights) != len(queries):
            raise PlanError(f"hawk has weights of {len(weights)} heads, but this model has {len(queries)}")
        order = top(hawk(queries, keys, weights), keep)
        return Selection(index=order.sort().values, order=order)
