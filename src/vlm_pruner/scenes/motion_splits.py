"""The fixed splits of questions about videos: a few questions a video, equally many of every type."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlm_pruner.errors import InputError, unknown_name

from .layout import Box
from .motion import Motion, sample_motion
from .motion_questions import MOTION, MOTION_TYPES
from .questions import Draft
from .render import backgrounds, render
from .scoring import box_tokens, right
from .splits import SPLITS

__all__ = ["MOTION_PER_TYPE", "MOTION_VERSION", "MotionQuestion", "load_motion_split", "motion_fingerprint"]

MOTION_VERSION = "motion-1"
MOTION_PER_TYPE = 40
PER_VIDEO = 4  # questions of different types
_KIND = 7  # word of the seeds that keeps them apart from those of pictures


@dataclass(frozen=True)
class MotionQuestion:
    """One question about a video. `evidence` has, per frame, the pixel boxes of what the answer is read from.

    A question about the background has no boxes.
    """

    id: str
    type: str
    text: str
    answer: str
    chance: float
    evidence: tuple[tuple[Box, ...], ...]  # [frames]
    motion: Motion

    @cached_property
    def frames(self) -> tuple[Image.Image, ...]:
        """The frames, drawn when first asked for."""
        return tuple(render(scene).image for scene in self.motion.scenes)

    def score(self, answer: str) -> bool:
        """Exact match, as `scenes.score`."""
        return right(self.type, self.answer, answer)

    def tokens(self, boxes: Sequence[Sequence[Box]], grid: tuple[int, int]) -> tuple[Tensor, ...]:
        """Per frame, the ascending indices of the visual tokens under its boxes (maybe none).

        Args:
            grid: (rows, columns) of a frame.
        """
        found = []
        for scene, mine in zip(self.motion.scenes, boxes, strict=True):
            tokens = [box_tokens(box, scene.size, grid) for box in mine]
            found.append(torch.unique(torch.cat(tokens)) if tokens else torch.zeros(0, dtype=torch.long))
        return tuple(found)


def load_motion_split(
    name: str = "test", limit: int | None = None, types: Sequence[str] = MOTION_TYPES
) -> list[MotionQuestion]:
    """Questions of a fixed split, video by video. `limit`: the first so many per type, of MOTION_PER_TYPE.

    Raises:
        InputError: no such split or question type, or a limit that is out of range.
    """
    if name not in SPLITS:
        raise InputError(unknown_name("split", name, SPLITS))
    if unknown := [t for t in types if t not in MOTION_TYPES]:
        raise InputError(unknown_name("question type", unknown[0], MOTION_TYPES))
    if limit is not None and not 1 <= limit <= MOTION_PER_TYPE:
        raise InputError(f"limit must lie between 1 and {MOTION_PER_TYPE} questions a type, not {limit}")
    taken: dict[str, int] = defaultdict(int)
    out = []
    for question in _draw(name):
        if question.type in types and taken[question.type] < (limit or MOTION_PER_TYPE):
            taken[question.type] += 1
            out.append(question)
    return out


@cache
def _draw(split: str) -> tuple[MotionQuestion, ...]:
    """The whole split. A video asks what is still missing most, and is left out if that is nothing."""
    rng = np.random.default_rng([SPLITS[split], _KIND])
    counts: dict[str, int] = dict.fromkeys(MOTION_TYPES, 0)
    answers: dict[tuple[str, str], int] = defaultdict(int)
    out: list[MotionQuestion] = []
    while min(counts.values()) < MOTION_PER_TYPE:
        motion = sample_motion(rng, split, len(backgrounds(split)))
        drafts = [draft for ask in MOTION.values() if (draft := ask(rng, motion))]
        drafts = [d for d in drafts if counts[d.type] < MOTION_PER_TYPE and answers[d.type, d.answer] < _limit(d)]
        for draft in sorted(drafts, key=lambda d: counts[d.type])[:PER_VIDEO]:
            out.append(_question(f"video-{split}-{draft.type}-{counts[draft.type]:03d}", draft, motion))
            counts[draft.type] += 1
            answers[draft.type, draft.answer] += 1
    return tuple(out)


def _limit(draft: Draft) -> int:
    """How often one answer may come up: answers of small families are levelled."""
    if draft.type in ("order", "number"):
        return MOTION_PER_TYPE
    return -(-MOTION_PER_TYPE // max(2, min(10, round(1 / draft.chance))))


def _question(name: str, draft: Draft, motion: Motion) -> MotionQuestion:
    places = [motion.items[item] for item in draft.items]
    evidence = tuple(tuple(box for at, box in places if at == frame) for frame in range(len(motion.scenes)))
    return MotionQuestion(name, draft.type, draft.text, draft.answer, draft.chance, evidence, motion)


def motion_fingerprint(questions: Sequence[MotionQuestion]) -> str:
    """Digest of what is asked: texts, answers, evidence boxes (to a tenth of a pixel) and layouts."""
    rows = [
        [
            q.id,
            q.text,
            q.answer,
            [[[round(x, 1) for x in box] for box in boxes] for boxes in q.evidence],
            [[s.photo, s.tint, s.seed] for s in q.motion.scenes],
        ]
        for q in questions
    ]
    return hashlib.sha256(json.dumps([MOTION_VERSION, rows]).encode()).hexdigest()[:16]
