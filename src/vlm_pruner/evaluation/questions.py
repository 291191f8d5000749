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
from vlm_pruner.asking.prompts import Form, prompt_text, read_prompt
from vlm_pruner.errors import InputError
from vlm_pruner.scenes.questions import item_boxes
from vlm_pruner.video import Clip

__all__ = ["Asked", "Unasked", "ask_all", "ask_split", "picture_tokens", "takeable"]

_PLAIN = (224, 224)  # pixels of a picture that every processor takes


@dataclass(frozen=True)
class Asked:
    """One question, ready to be asked."""

    key: str  # unique and stable inside the split
    scene: int  # questions with equal numbers share their pictures
    type: str
    chance: float | None  # of a blind guess; None = not known
    pictures: int
    draw: Callable[[], Sequence[Image.Image | Clip]]
    prompt: str  # placeholders of the pictures included
    score: Callable[[str], bool | float]  # right or wrong, or how far right, 0 to 1
    evidence: Tensor | None  # [n] bool over the tokens of all pictures, in order: those that show what is asked about
    objects: Tensor | None  # [n] bool: those that show any object; None where pictures have no fixed number of tokens
    regions: Callable[[tuple[int, int]], tuple[Tensor, Tensor]] | None = None  # both over a grid (h, w) of each picture
    videos: bool = False  # some of what is shown is a video

    @property
    def images(self) -> Sequence[Image.Image | Clip]:
        """The pictures and videos, drawn when they are needed."""
        return self.draw()

    @property
    def stills(self) -> list[Image.Image]:
        """The same, every frame of a video by itself."""
        apart = ([one] if isinstance(one, Image.Image) else one.pictures() for one in self.images)
        return [picture for pictures in apart for picture in pictures]


@dataclass(frozen=True)
class Unasked:
    """Questions of one type that a model cannot be asked."""

    type: str
    questions: int
    reason: str


def takeable(processor: Any, questions: Sequence[Asked]) -> tuple[list[Asked], list[Unasked]]:
    """The questions that a processor takes, and what is left out: those about more pictures than it takes in a prompt.

    Whether it takes so many is tried once for each number of pictures, with plain ones. What it refuses for another
    reason, a picture by itself or a video, is not left out here.
    """
    refused: dict[int, str] = {1: ""}
    left_out: dict[tuple[str, str], int] = {}
    asked = []
    for one in questions:
        reason = ""
        if not one.videos:
            if one.pictures not in refused:
                refused[one.pictures] = _refusal(processor, one)
            reason = refused[one.pictures]
        if reason:
            left_out[one.type, reason] = left_out.get((one.type, reason), 0) + 1
        else:
            asked.append(one)
    return asked, [Unasked(type_, count, reason) for (type_, reason), count in left_out.items()]


def _refusal(processor: Any, asked: Asked) -> str:
    """Why the processor does not take as many pictures as a question has; empty where it does."""
    try:
        read_prompt(processor, asked.prompt, [Image.new("RGB", _PLAIN, "grey")] * asked.pictures)
    except InputError as error:
        return str(error)
    return ""


def ask_split(model: Any, processor: Any, split: str, limit: int | None = None) -> list[Asked]:
    """The questions of a split for a model.

    Raises:
        InputError: no such split, or not as many questions.
    """
    try:
        questions = scenes.load_split(split, limit)
    except ValueError as error:
        raise InputError(str(error)) from error
    tokens = picture_tokens(model)
    form = adapter_for(model.base_model.config.model_type).prompt
    return ask_all(questions, processor, None if tokens is None else isqrt(tokens), form)


def picture_tokens(model: Any) -> int | None:
    """Visual tokens of every picture; None where their number depends on the picture: budgets are shares then."""
    config = model.base_model.config
    return adapter_for(config.model_type).fixed_tokens(config)


def ask_all(
    questions: Sequence[scenes.Question], processor: Any, side: int | None, form: Form | None = None
) -> list[Asked]:
    """Every question with its prompt.

    Args:
        side: pictures have `side` x `side` visual tokens; None = of their own number.
        form: of prompts where the processor has no chat template.
    """
    numbers: dict[Any, int] = {}
    asked = []
    for question in questions:
        regions = partial(_regions, question)
        evidence, objects = (None, None) if side is None else regions((side, side))
        asked.append(
            Asked(
                key=question.id,
                scene=numbers.setdefault(question.scenes, len(numbers)),
                type=question.type,
                chance=question.chance,
                pictures=len(question.scenes),
                draw=partial(getattr, question, "images"),
                prompt=prompt_text(processor, question.text, ["image"] * len(question.scenes), form),
                score=partial(scenes.score, question),
                evidence=evidence,
                objects=objects,
                regions=regions,
            )
        )
    return asked


def _regions(question: scenes.Question, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[pictures * h * w] bool each: what shows the evidence, and what shows any thing or character."""
    objects = [
        torch.cat([scenes.box_tokens(box, scene.size, grid) for box in item_boxes(scene)]) for scene in question.scenes
    ]
    return _mask(scenes.evidence_tokens(question, grid), grid), _mask(objects, grid)


def _mask(tokens: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """[pictures * h * w] bool, True at the token indices that are given for each picture."""
    mask = torch.zeros(len(tokens), grid[0] * grid[1], dtype=torch.bool)
    for row, index in zip(mask, tokens, strict=True):
        row[index] = True
    return mask.flatten()
