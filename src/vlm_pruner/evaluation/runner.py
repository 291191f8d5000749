"""One cell on one batch of scenes: the answers, and what was kept for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from PIL import Image
from torch import Tensor

from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking.prompts import Kind
from vlm_pruner.budget import layer_average
from vlm_pruner.engine import ImageRecord, decoder_costs, prune
from vlm_pruner.errors import PlanError
from vlm_pruner.evaluation.blind import blinded
from vlm_pruner.evaluation.cells import Cell
from vlm_pruner.evaluation.decode import Prompts, decode_each, decode_shared, encode_pictures, prepare_prompts
from vlm_pruner.evaluation.measures import coverage, covered, redundancy
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.evaluation.store import Answer
from vlm_pruner.flops import prefill_flops
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import TOWER, PrunePlan
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["Runner", "Task", "shrink"]


@final
@dataclass(frozen=True)
class _Everything(PruningMethod):
    """Keeps all tokens and asks for every signal of the vision tower, so that one encoding serves all methods."""

    name: ClassVar[str] = "everything"
    title: ClassVar[str] = "signal collector"
    source: ClassVar[str] = "benchmark"
    needs: ClassVar[frozenset[Signal]] = frozenset(s for s in Signal if s.value.startswith("vision."))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return Selection(torch.arange(len(tokens), device=tokens.device))


@dataclass
class Task:
    """A batch of scenes with equally many pictures and questions, and what has been computed for it so far."""

    scenes: Sequence[Sequence[Asked]]
    prompts: Prompts
    # by detail left in the picture, None = as it is
    encoded: dict[int | None, tuple[Prompts, Any]] = field(default_factory=dict)


class Runner:
    """Answers batches of scenes with one model. Not thread-safe: sessions hook the model."""

    def __init__(self, model: Any, processor: Any, *, max_new_tokens: int = 12, kind: Kind = "image") -> None:
        self.model, self.processor, self.max_new_tokens, self.kind = model.eval(), processor, max_new_tokens, kind
        config = model.base_model.config
        self._costs = decoder_costs(model)
        self._placeholder = adapter_for(config.model_type).placeholders(config)[kind]

    def task(self, scenes: Sequence[Sequence[Asked]]) -> Task:
        """Tokenise the questions of some scenes. Their pictures are encoded when a cell first needs them."""
        shown = [asked[0].images if self.kind == "video" else asked[0].stills for asked in scenes]
        return Task(scenes, self._prompts(scenes, shown))

    def run(self, cell: Cell, task: Task) -> list[Answer]:
        """All questions of a batch under one cell.

        Raises:
            VlmPrunerError: the method cannot run on this model; the message says why.
        """
        prompts, encoded = self.encoded(task, cell.small_picture)
        with prune(self.model, cell.plan) as session:
            if cell.plan.stages[0].layer == TOWER:
                encoded = encode_pictures(self.model, prompts.pixels, prompts.kind)
            if cell.question_aware:
                tokens = decode_each(self.model, prompts, encoded, self.max_new_tokens)
                repeat = 1
            else:
                tokens = decode_shared(self.model, prompts, encoded, self.max_new_tokens, self._blind(cell, prompts))
                repeat = prompts.per_scene
        answers = []
        for number, asked in enumerate(asked for scene in task.scenes for asked in scene):
            images = [record for record in session.images if record.row == number // repeat]
            first = number // prompts.per_scene * len(images)
            rows = encoded.pooler_output
            if self.kind == "video":  # a row is a frame
                rows = rows.reshape(len(task.scenes) * len(images), -1, rows.shape[-1])
            features = rows[first : first + len(images)]
            answers.append(self._answer(asked, tokens[number], prompts.ids[number], images, cell.plan, features))
        return answers

    def encoded(self, task: Task, detail: int | None) -> tuple[Prompts, Any]:
        """The prompts with what the tower makes of the pictures, `detail` patches' worth of them (None = all)."""
        if detail not in task.encoded:
            prompts = task.prompts
            if detail is not None:
                if self.kind == "video":
                    raise PlanError("measured only on pictures, not on videos")
                tokens = self._tokens(task)
                images = [[shrink(i, detail, tokens) for i in asked[0].stills] for asked in task.scenes]
                prompts = self._prompts(task.scenes, images)
            with prune(self.model, _Everything(), keep=1.0):
                task.encoded[detail] = prompts, encode_pictures(self.model, prompts.pixels, prompts.kind)
        return task.encoded[detail]

    def _prompts(self, scenes: Sequence[Sequence[Asked]], images: Sequence[Sequence[Any]]) -> Prompts:
        texts = [[a.prompt for a in asked] for asked in scenes]
        return prepare_prompts(
            self.processor, list(zip(images, texts, strict=True)), self._placeholder, self.model.device, self.kind
        )

    def _tokens(self, task: Task) -> int:
        """Visual tokens of one picture."""
        return int((task.prompts.ids[0] == self._placeholder).sum()) // task.scenes[0][0].pictures

    def _blind(self, cell: Cell, prompts: Prompts) -> AbstractContextManager[None] | None:
        if cell.blind_from is None:
            return None
        return blinded(self.model, cell.blind_from, prompts.ids[0][: prompts.shared] == self._placeholder)

    def _answer(
        self,
        asked: Asked,
        ids: list[int],
        prompt: Tensor,
        images: Sequence[ImageRecord],
        plan: PrunePlan,
        features: Sequence[Tensor],
    ) -> Answer:
        text = self.processor.decode(ids, skip_special_tokens=True).strip()
        lengths = self._lengths(images, plan)
        words = int((prompt != self._placeholder).sum())
        kept = torch.cat([_kept(r) + sum(s.total for s in images[:i]) for i, r in enumerate(images)])
        evidence = None if asked.evidence is None else coverage(kept, asked.evidence)
        objects = None if asked.objects is None else coverage(kept, asked.objects)
        if asked.video:
            evidence, objects = covered(asked, images)
        pairs = [redundancy(own[_kept(record)]) for own, record in zip(features, images, strict=True)]
        return Answer(
            asked.key,
            text,
            asked.score(text),
            len(kept) // len(images),
            round(layer_average(lengths) / len(images), 3),
            prefill_flops(self._costs, [words + n for n in lengths]),
            _rounded(evidence),
            _rounded(objects),
            _rounded(_mean([p for p in pairs if p is not None])),
        )

    def _lengths(self, images: Sequence[ImageRecord], plan: PrunePlan) -> list[int]:
        """[layers] visual tokens of all pictures that enter each decoder layer."""
        levels = [sum(stage.site <= layer for stage in plan.stages) for layer in range(len(self._costs.layers))]
        return [sum((record.total, *record.counts)[level] for record in images) for level in levels]


def shrink(image: Image.Image, detail: int, tokens: int) -> Image.Image:
    """`image` with the detail of about `detail` of its `tokens` patches left, at its old size.

    It is made smaller by the square root of their ratio and enlarged again: what a model that is fed the small picture
    could know, for a tower that only takes the large one.
    """
    ratio = (detail / tokens) ** 0.5
    small = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return image.resize(small, Image.Resampling.LANCZOS).resize(image.size, Image.Resampling.BICUBIC)


def _kept(record: ImageRecord) -> Tensor:
    """Tokens of one picture that were left after the last stage, in its own coordinates."""
    return torch.arange(record.total) if record.selection is None else record.selection.index.cpu()


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
