"""How much a plan changes what a model says, told without labels: against the untouched model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from vlm_pruner.engine import prune
from vlm_pruner.errors import VlmPrunerError
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.evaluation.single import Single
from vlm_pruner.plan import PrunePlan
from vlm_pruner.report import PruneReport

__all__ = ["Meter", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One question under one plan."""

    agrees: bool  # the greedy answer is the untouched model's, token by token
    kl: float  # nats: mean divergence of the next-token distributions along the untouched model's answer
    prefill_ms: float
    layer_average: float  # visual tokens per decoder layer
    flops: float | None  # of the prefill; None where there is no formula
    refused: str = ""  # why the plan cannot be carried out; nothing else counts then


class Meter:
    """Compares plans with the untouched model, question by question. Not thread-safe: sessions hook the model."""

    def __init__(self, model: Any, processor: Any, *, max_new_tokens: int = 12) -> None:
        self._single = Single(model, processor, max_new_tokens=max_new_tokens)
        self._none = PrunePlan.of("none", num_layers=model.config.get_text_config().num_hidden_layers)

    def trials(self, asked: Asked, plans: Sequence[PrunePlan]) -> list[Trial]:
        """One question under every plan; the untouched model answers once."""
        (inputs,) = self._single.task([[asked]]).inputs
        full = _Follow()
        self._run(inputs, self._none, full)
        return [self._trial(inputs, plan, full) for plan in plans]

    def _trial(self, inputs: dict[str, Any], plan: PrunePlan, full: _Follow) -> Trial:
        pruned = _Follow(full.said)
        try:
            report = self._run(inputs, plan, pruned)
        except VlmPrunerError as error:
            return Trial(False, 0.0, 0.0, 0.0, None, str(error))
        divergences = [_divergence(p, q) for p, q in zip(full.logs, pruned.logs, strict=True)]
        return Trial(
            agrees=pruned.wanted == full.said,
            kl=sum(divergences) / len(divergences),
            prefill_ms=report.prefill_ms or 0.0,
            layer_average=report.layer_average,
            flops=report.flops_pruned,
        )

    def _run(self, inputs: dict[str, Any], plan: PrunePlan, follow: _Follow) -> PruneReport:
        most = len(follow.force) if follow.force else self._single.max_new_tokens
        with torch.inference_mode(), prune(self._single.model, plan) as session:
            self._single.model.generate(
                **inputs, do_sample=False, max_new_tokens=most, logits_processor=LogitsProcessorList([follow])
            )
        return session.report


class _Follow(LogitsProcessor):  # type: ignore[misc]
    """Notes the distribution of every next token; with `force` it says these tokens whatever the model wants."""

    def __init__(self, force: Sequence[int] = ()) -> None:
        self.force = list(force)
        self.logs: list[Tensor] = []  # [vocabulary] each, float32
        self.wanted: list[int] = []  # the most likely token of every step

    @property
    def said(self) -> list[int]:
        return self.force or self.wanted

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logs = scores[0].float().log_softmax(-1)
        step = len(self.logs)
        self.logs.append(logs)
        self.wanted.append(int(logs.argmax()))
        if not self.force:
            return scores
        forced = torch.full_like(scores, float("-inf"))
        forced[:, self.force[step]] = 0.0
        return forced


def _divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) of two log-distributions [vocabulary], nats; tokens that p rules out add nothing."""
    terms = torch.where(p.isinf(), 0.0, p.exp() * (p - q.clamp(min=-1e4)))
    return max(0.0, float(terms.sum()))
