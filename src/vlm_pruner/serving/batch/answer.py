"""A batch of prepared questions through the pruned model: answers, what was kept, what it cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlm_pruner.asking.models import Loaded, moved
from vlm_pruner.engine import prune
from vlm_pruner.errors import MissingSignalError, PlanError, UnsupportedModelError, VlmPrunerError, first_line
from vlm_pruner.plan import PrunePlan
from vlm_pruner.serving.batch.collate import collate, filler

__all__ = ["COSTS", "Answerer", "Batch", "Result"]

COSTS = ("flops_full", "flops_pruned", "kv_bytes_full", "kv_bytes_pruned")
"""Of a `PruneReport`: what a batch costs, and what it would cost unpruned."""

_HOPELESS = (UnsupportedModelError, MissingSignalError, PlanError)  # no row would do better


@dataclass(frozen=True)
class Result:
    """What one row came to."""

    answer: str | None = None
    kept: int | None = None  # visual tokens left after the last stage
    total: int | None = None  # visual tokens before
    error: str | None = None


@dataclass(frozen=True)
class Batch:
    """Rows that were answered together."""

    results: tuple[Result, ...]
    milliseconds: float
    costs: Mapping[str, int]  # as `COSTS`; what has no formula is 0


class Answerer:
    """One model under one plan. Not thread-safe: sessions hook the model.

    Raises:
        UnsupportedModelError, PlanError: the plan cannot be carried out on this model.
    """

    def __init__(self, loaded: Loaded, plan: PrunePlan, max_new_tokens: int) -> None:
        self.loaded, self.plan, self.max_new_tokens = loaded, plan, max_new_tokens
        self._fill = filler(loaded.model)
        with prune(loaded.model, plan):  # what can be told of the plan before a row is read is told now
            pass

    def answer(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Greedy answers to rows that fit together. One that fails leaves the others as they would be without it.

        Raises:
            UnsupportedModelError, MissingSignalError, PlanError: the plan cannot be carried out on this model.
        """
        started = time.perf_counter()
        try:
            results, costs = self._run(rows)
        except _HOPELESS:
            raise
        except Exception as error:  # whatever a row makes the model stumble over, memory that it lacks included
            if len(rows) == 1:
                said = str(error) if isinstance(error, VlmPrunerError) else f"no answer: {first_line(error)}"
                return Batch((Result(error=" ".join(said.split())),), _since(started), dict.fromkeys(COSTS, 0))
            alone = [self.answer([row]) for row in rows]
            results = [one.results[0] for one in alone]
            costs = {name: sum(one.costs[name] for one in alone) for name in COSTS}
        return Batch(tuple(results), _since(started), costs)

    def _run(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Result], dict[str, int]]:
        inputs = moved(self.loaded.model, collate(rows, self._fill))
        with torch.inference_mode(), prune(self.loaded.model, self.plan) as session:
            ids = self.loaded.model.generate(
                **inputs, do_sample=False, max_new_tokens=self.max_new_tokens, pad_token_id=self._fill
            )
        said = ids[:, inputs["input_ids"].shape[1] :].cpu()
        texts = [self.loaded.processor.decode(row, skip_special_tokens=True).strip() for row in said]
        report = session.report
        results = []
        for number, text in enumerate(texts):
            own = [image for image in report.images if image.row == number]
            results.append(Result(text, sum(image.kept for image in own), sum(image.total for image in own)))
        return results, {name: getattr(report, name) or 0 for name in COSTS}


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
