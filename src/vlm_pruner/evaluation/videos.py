"""Questions about scenes in motion, as the benchmark asks them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking.prompts import prompt_text, read_prompt
from vlm_pruner.errors import InputError, UnsupportedModelError
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.scenes.motion import FPS
from vlm_pruner.scenes.motion_splits import (
    MOTION_PER_TYPE,
    MOTION_VERSION,
    MotionQuestion,
    load_motion_split,
    motion_fingerprint,
)
from vlm_pruner.video import Clip

__all__ = ["VIDEO_SPLITS", "about_motion", "ask_motion", "video_tokens"]

VIDEO_SPLITS = {"video": "test", "video-validation": "validation"}
"""Names of the splits of videos, and which of `scenes.motion_splits` each is."""


def ask_motion(model: Any, processor: Any, split: str, limit: int | None = None) -> list[Asked]:
    """The questions of a split of videos for a model.

    Raises:
        InputError: no such split, or not as many questions.
        UnsupportedModelError: a model that takes no videos.
    """
    if split not in VIDEO_SPLITS:
        raise InputError(f"no split of videos {split!r}; there are {', '.join(VIDEO_SPLITS)}")
    config = model.base_model.config
    adapter = adapter_for(config.model_type)
    if not adapter.takes_videos(config) or getattr(processor, "video_processor", None) is None:
        raise UnsupportedModelError(f"{config.model_type} takes no videos; the split {split!r} asks about videos")
    numbers: dict[Any, int] = {}
    return [
        Asked(
            key=question.id,
            scene=numbers.setdefault(question.motion, len(numbers)),
            type=question.type,
            chance=question.chance,
            pictures=1,
            draw=partial(_clip, question),
            prompt=prompt_text(processor, question.text, ["video"], adapter.prompt),
            score=question.score,
            evidence=None,
            objects=None,
            regions=partial(_regions, question),
            video=True,
            videos=True,
        )
        for question in load_motion_split(VIDEO_SPLITS[split], limit)
    ]


def about_motion(split: str, limit: int | None) -> dict[str, Any]:
    """What was asked, for the record."""
    questions = load_motion_split(VIDEO_SPLITS[split], limit)
    return {
        "name": split, "version": MOTION_VERSION, "per_type": limit or MOTION_PER_TYPE,
        "fingerprint": motion_fingerprint(questions),
    }  # fmt: skip


def _clip(question: MotionQuestion) -> list[Clip]:
    return [Clip.of(question.frames, FPS, name=question.id)]


def _regions(question: MotionQuestion, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[frames * h * w] bool each: what shows the evidence, and what shows any thing or character."""
    everything = tuple(tuple(b for at, b in question.motion.items if at == f) for f in range(len(question.evidence)))
    return _mask(question, question.evidence, grid), _mask(question, everything, grid)


def _mask(question: MotionQuestion, boxes: Any, grid: tuple[int, int]) -> Tensor:
    mask = torch.zeros(len(boxes), grid[0] * grid[1], dtype=torch.bool)
    for row, index in zip(mask, question.tokens(boxes, grid), strict=True):
        row[index] = True
    return mask.flatten()


def video_tokens(model: Any, processor: Any, asked: Asked) -> int:
    """Visual tokens of the video of a question; all videos of a split are of one size and length."""
    config = model.base_model.config
    placeholder = adapter_for(config.model_type).placeholders(config)["video"]
    return int((read_prompt(processor, asked.prompt, list(asked.images))["input_ids"] == placeholder).sum())
