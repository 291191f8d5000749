"""Questions asked one by one with `generate`: right for every family, whatever its processor makes of a picture.

`evaluation.runner` encodes pictures apart and shares their prefill between questions, which is faster. It can do so
only where a picture is one block of pixels and where nothing but its place tells the model what a token is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlm_pruner.asking.models import moved
from vlm_pruner.asking.prompts import read_prompt
from vlm_pruner.engine import prune
from vlm_pruner.errors import PlanError
from vlm_pruner.evaluation.cells import Cell
from vlm_pruner.evaluation.measures import covered
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.evaluation.store import Answer
from vlm_pruner.report import PruneReport

__all__ = ["Single", "Singles", "encoded_apart"]

_APART = {"input_ids", "attention_mask", "pixel_values", "pixel_values_videos"}


def encoded_apart(processor: Any, asked: Asked) -> bool:
    """Does a prompt consist of words and one block of pixels alone?"""
    return set(read_prompt(processor, asked.prompt, list(asked.images))) <= _APART


@dataclass(frozen=True)
class Singles:
    """Some questions, each with what the model reads."""

    asked: Sequence[Asked]
    inputs: Sequence[dict[str, Any]]


class Single:
    """Answers questions one by one with one model. Not thread-safe: sessions hook the model."""

    def __init__(self, model: Any, processor: Any, *, max_new_tokens: int = 12) -> None:
        self.model, self.processor, self.max_new_tokens = model.eval(), processor, max_new_tokens

    def task(self, scenes: Sequence[Sequence[Asked]]) -> Singles:
        """The questions of some scenes, read by the processor."""
        asked = [one for scene in scenes for one in scene]
        made = (read_prompt(self.processor, one.prompt, list(one.images)) for one in asked)
        return Singles(asked, [moved(self.model, inputs) for inputs in made])

    def run(self, cell: Cell, task: Singles) -> list[Answer]:
        """All questions under one cell.

        Raises:
            VlmPrunerError: the method cannot run on this model; the message says why.
        """
        if cell.blind_from is not None or cell.small_picture is not None:
            raise PlanError("measured only where pictures can be encoded without the prompt")
        return [self._answer(cell, asked, inputs) for asked, inputs in zip(task.asked, task.inputs, strict=True)]

    def prefill(self, cell: Cell, task: Singles) -> PruneReport:
        """The report of one prefill of the first question."""
        with torch.inference_mode(), prune(self.model, cell.plan) as session:
            self.model.generate(**task.inputs[0], do_sample=False, max_new_tokens=1)
        return session.report

    def _answer(self, cell: Cell, asked: Asked, inputs: dict[str, Any]) -> Answer:
        with torch.inference_mode(), prune(self.model, cell.plan) as session:
            ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        text = self.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        report, shown = session.report, asked.pictures
        evidence, objects = covered(asked, session.images)
        return Answer(
            asked.key,
            text,
            asked.score(text),
            report.kept // shown,
            round(report.layer_average / shown, 3),
            report.flops_pruned,
            evidence,
            objects,
        )
