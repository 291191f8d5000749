"""Questions of a split of the scenes, as the benchmark asks them: grouped by picture, with the tokens that matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlm_pruner import scenes
from vlm_pruner.adapters import adapter_for
from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.scenes.questions import item_boxes

__all__ = ["Asked", "ask_all", "ask_split", "picture_tokens"]


@dataclass(frozen=True)
class Asked:
    """One question, ready to be asked."""

    key: str  # unique and stable inside the split
    scene: int  # questions with equal numbers share their pictures
    type: str
    chance: float
    pictures: int
    draw: Callable[[], Sequence[Image.Image]]
    prompt: str  # placeholders of the pictures included
    score: Callable[[str], bool]
    evidence: Tensor  # [n] bool over the tokens of all pictures, in order: those that show what is asked about
    objects: Tensor  # [n] bool: those that show any object

    @property
    def images(self) -> Sequence[Image.Image]:
        """The pictures, drawn when they are needed."""
        return self.draw()


def ask_split(model: Any, processor: Any, split: str, limit: int | None = None) -> list[Asked]:
    """The questions of a split for a model whose pictures have a fixed square of visual tokens.

    Raises:
        InputError: no such split, or not as many questions.
        PlanError: pictures of this model have no fixed number of tokens to set budgets by.
    """
    try:
        questions = scenes.load_split(split, limit)
    except ValueError as error:
        raise InputError(str(error)) from error
    return ask_all(questions, processor, isqrt(picture_tokens(model)))


def picture_tokens(model: Any) -> int:
    """Visual tokens of every picture.

    Raises:
        PlanError: their number depends on the picture, so that no common budget can be set.
    """
    config = model.base_model.config
    tokens = adapter_for(config.model_type).fixed_tokens(config)
    if tokens is None:
        raise PlanError(f"{config.model_type}: pictures have no fixed number of visual tokens to set budgets by")
    return int(tokens)


def ask_all(questions: Sequence[scenes.Question], processor: Any, side: int) -> list[Asked]:
    """Every question with its prompt; pictures have `side` x `side` visual tokens."""
    numbers: dict[Any, int] = {}
    grid = (side, side)
    asked = []
    for question in questions:
        asked.append(
            Asked(
                key=question.id,
                scene=numbers.setdefault(question.scenes, len(numbers)),
                type=question.type,
                chance=question.chance,
                pictures=len(question.scenes),
                draw=partial(getattr, question, "images"),
                prompt=_prompt(processor, question.text, len(question.scenes)),
                score=partial(scenes.score, question),
                evidence=_mask(scenes.evidence_tokens(question, grid), side),
                objects=_mask([_object_tokens(scene, grid) for scene in question.scenes], side),
            )
        )
    return asked


def _object_tokens(scene: scenes.Scene, grid: tuple[int, int]) -> Tensor:
    """Indices of the tokens that show any thing or character."""
    return torch.cat([scenes.box_tokens(box, scene.size, grid) for box in item_boxes(scene)])


def _prompt(processor: Any, text: str, pictures: int) -> str:
    content = [*[{"type": "image"}] * pictures, {"type": "text", "text": text}]
    messages = [{"role": "user", "content": content}]
    prompt: str = processor.apply_chat_template(messages, add_generation_prompt=True)
    return prompt


def _mask(tokens: Sequence[Tensor], side: int) -> Tensor:
    """[pictures * side * side] bool, True at the token indices that are given for each picture."""
    mask = torch.zeros(len(tokens), side * side, dtype=torch.bool)
    for row, index in zip(mask, tokens, strict=True):
        row[index] = True
    return mask.flatten()
