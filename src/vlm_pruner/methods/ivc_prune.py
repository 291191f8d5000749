"""IVC-Prune: what the question's values resemble, and the places that anchor the rotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Keep
from vlm_pruner.errors import PlanError
from vlm_pruner.methods._signals import read
from vlm_pruner.methods._stages import layers
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import chosen, ranking, top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["IVCPrune", "anchors", "ivc_prune", "ivc_prune_free", "relevance"]

_SEEDS = 0.01
_SKIPPED = 2  # text rows behind the image that do not count as the question


def relevance(
    image: Tensor, question: Tensor, others: Tensor | None = None, seeds: float = _SEEDS
) -> tuple[Tensor, Tensor]:
    """[s] seeds, and [n] float64 how much the question and the seeds resemble each token by their values.

    Values resemble each other by the mean over heads of softmax(v v^T / sqrt(head_dim)). Seeds are the share `seeds` of
    the tokens, at least one, that the question resembles most.

    Args:
        image: [kv_heads, n, head_dim]; question: [kv_heads, t, head_dim].
        others: [kv_heads, m, head_dim] that the softmax runs over besides the image.
    """
    n = image.shape[1]
    columns = (image if others is None else torch.cat([image, others], 1)).double()

    def resemblance(rows: Tensor) -> Tensor:
        scores = rows.double() @ columns.transpose(1, 2) / rows.shape[2] ** 0.5
        share: Tensor = scores.softmax(-1)[..., :n].mean(0)  # [rows, n]
        return share

    asked = resemblance(question)
    best = top(asked.mean(0), max(1, round(seeds * n)))
    return best, torch.cat([asked, resemblance(image.index_select(1, best))]).mean(0)


def anchors(rotary: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[count] tokens of the largest mean cosine, and [count] of the largest mean sine, in `rotary` [2, n, width]."""
    cosine, sine = rotary.double().mean(-1).unbind()
    return top(cosine, count), top(sine, count)


def ivc_prune(image: Tensor, question: Tensor, rotary: Tensor, keep: int, places: float = 0.2) -> Tensor:
    """[keep] tokens: the seeds, the anchors by cosine, those by sine, `places` of `keep` each, then by relevance.

    Inputs as in `relevance` and `anchors`. What does not fit into `keep` is left out from the end.
    """
    n = image.shape[1]
    seeds, score = relevance(image, question)
    order = torch.cat([seeds, *anchors(rotary, round(places * keep)), ranking(score)])
    place = torch.arange(len(order), device=order.device)
    first = place.new_full((n,), len(order)).scatter_reduce(0, order, place, "amin")  # where a token comes up first
    return first.argsort(stable=True)[:keep]


def ivc_prune_free(
    image: Tensor, question: Tensor, others: Tensor, rotary: Tensor, foreground: float = 0.2, places: float = 0.05
) -> Tensor:
    """[n] bool: as many tokens as the seeds, the foreground and the anchors are together, without a budget.

    Inputs as in `relevance` and `anchors`; `foreground` and `places` are shares of the n tokens.
    """
    n = image.shape[1]
    seeds, score = relevance(image, question, others)
    return chosen(torch.cat([seeds, top(score, round(foreground * n)), *anchors(rotary, round(places * n))]), n)


@final
@dataclass(frozen=True)
class IVCPrune(PruningMethod):
    """Keeps tokens at positions that rotary embeddings turn by nearly 0 or 90 degrees, and tokens like the question.

    Args:
        places: the share of `keep` that goes to the largest cosines, and again to the largest sines.

    Source: "IVC-Prune", arXiv:2602.03060, ICLR 2026; FireRedTeam/IVC-Prune.
    Deviates: exactly `keep` tokens at any budget, as its port for Qwen keeps half of them (places of 0.2 `keep` are
    that port's tenth of all); `ivc_prune_free` keeps its own number, as the port for LLaVA. Tables are those that
    rotate the keys, where the port takes the mean of three axes. The caches of the layers before stay whole. Text
    of no more than two tokens counts whole.
    Cost: O(heads t n head_dim).
    """

    name: ClassVar[str] = "ivc-prune"
    title: ClassVar[str] = "IVC-Prune"
    source: ClassVar[str] = "arXiv:2602.03060"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VALUES, Signal.TEXT_VALUES, Signal.ROTARY})
    default_layer: ClassVar[int | None] = 16
    question_aware: ClassVar[bool] = True

    places: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.places <= 0.5:
            raise PlanError(f"places={self.places} must lie in [0, 0.5]")

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        image, text, rotary = read(self, tokens, Signal.VALUES, Signal.TEXT_VALUES, Signal.ROTARY)
        question = text[:, _SKIPPED:] if text.shape[1] > _SKIPPED else text
        order = ivc_prune(image, question, rotary, keep, self.places)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        return [(self, keep, layers((16,), num_layers)[0])]
