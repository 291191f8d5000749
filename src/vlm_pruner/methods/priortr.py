"""PriorTR: what the question looks at more than the first token after the image, which has read no question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from vlm_pruner.budget import Budget, Keep
from vlm_pruner.errors import PlanError, unknown_name
from vlm_pruner.methods._signals import read
from vlm_pruner.methods._stages import layers
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import chosen, top
from vlm_pruner.ops.sync import declared_sync
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["PriorTR", "above", "priortr"]

_ROWS = ("question", "last", "question_without_last")
_HEADS = ("mean", "max")


def priortr(attention: Tensor, rows: str = "question", heads: str = "mean") -> Tensor:
    """[n] float64 share of each token in the divergence of the question's attention from the prior.

    Args:
        attention: [heads, t, n] of the text rows after the image; row 0, the first, is the prior.
        rows: whose attention is the question's: the mean of all rows, the last, or the mean of all but the last.
        heads: how heads become one, `mean` or `max`.
    """
    a, last = attention.double(), attention.shape[1] - 1
    part = {"question": a, "last": a[:, last:], "question_without_last": a[:, : max(1, last)]}[rows]
    asked = part.mean(1)  # [heads, n]
    posterior, prior = (x.mean(0) if heads == "mean" else x.amax(0) for x in (asked, a[:, 0]))
    posterior, prior = (x / (x.sum() + 1e-10) for x in (posterior, prior))
    return posterior * ((posterior + 1e-10) / (prior + 1e-10)).log()


def above(score: Tensor, threshold: float = 0.0) -> Tensor:
    """[n] bool: the tokens of a `score` [n] above `threshold`, at least the best one. At 0, those that gained."""
    return (score > threshold) | chosen(top(score, 1), len(score))


@final
@dataclass(frozen=True)
class PriorTR(PruningMethod):
    """Keeps the tokens that the question attends to more than the first token after the image does.

    Args:
        rows: whose attention is the question's: `question` (the mean of all rows after the image), `last`, or
            `question_without_last`. The code takes the first for LLaVA-1.5, the second for 1.6, the third for Qwen.
        heads: `mean` or `max` over heads.

        threshold: None keeps exactly `keep` tokens. A number keeps those whose score lies above it, at least one, and
            makes `keep` their ceiling: the paper's cut, whose threshold is 0.

    Source: "PriorTR", arXiv:2606.24156, ECCV 2026; CodeChildCZJ/PriorTR.
    Deviates: exactly `keep` tokens unless there is a threshold. float64 instead of the dtype of the
    model, in which scores tie. The caches of the layers before stay whole. Where a single token follows the image it
    is prior and question at once, and the first tokens are kept.
    Cost: O(heads t n), and the attention of the text rows.
    """

    name: ClassVar[str] = "priortr"
    title: ClassVar[str] = "PriorTR"
    source: ClassVar[str] = "arXiv:2606.24156"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.TEXT_ATTENTION})
    default_layer: ClassVar[int | None] = 3
    question_aware: ClassVar[bool] = True

    rows: str = "question"
    heads: str = "mean"
    threshold: float | None = None

    def __post_init__(self) -> None:
        for name, known in (("rows", _ROWS), ("heads", _HEADS)):
            if getattr(self, name) not in known:
                raise PlanError(unknown_name(name, getattr(self, name), known))

    @property
    def budget(self) -> Budget:
        return "fixed" if self.threshold is None else "ceiling"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        score = priortr(read(self, tokens, Signal.TEXT_ATTENTION)[0], self.rows, self.heads)
        order = top(score, keep)
        if self.threshold is not None:
            with declared_sync():  # how many stay is seen in the attention alone
                order = order[: int(above(score, self.threshold).sum())]
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        return [(self, keep, layers((3,), num_layers)[0])]
