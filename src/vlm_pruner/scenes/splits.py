"""The fixed splits. A question of a split depends on its version, its type and its number alone."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from vlm_pruner.errors import InputError, unknown_name

from .layout import Box, Scene, sample_scene
from .questions import ONE_IMAGE, TYPES, Draft, item_boxes, two_images
from .render import backgrounds, render

VERSION = "scenes-1"
"""Name of the fixed set of scenes; a change of any question needs another one."""
SPLITS = {"validation": 1, "test": 2}
"""Split -> the first word of its seeds. Training uses 0."""
PER_TYPE = 48
"""Questions of each type in a split."""


@dataclass(frozen=True)
class Question:
    """One question. Images are drawn when first asked for; `evidence` has, per image, the pixel boxes of the evidence.

    Boxes stand in reading order; in comparisons and relations the thing that is the answer comes first. An absent
    thing and a question about the background have no boxes.
    """

    id: str
    type: str
    text: str
    answer: str
    chance: float
    evidence: tuple[tuple[Box, ...], ...]
    scenes: tuple[Scene, ...]

    @cached_property
    def images(self) -> tuple[Image.Image, ...]:
        return tuple(render(scene).image for scene in self.scenes)


def draw_question(
    rng: np.random.Generator, type_: str, split: str, size: tuple[int, int] = (336, 336)
) -> tuple[Draft, tuple[Scene, ...], int]:
    """A question of the given type on new scenes, and which of its images holds the evidence."""
    photos = len(backgrounds(split))
    while True:
        if type_ == "two_images":
            pair = (sample_scene(rng, split, photos, size), sample_scene(rng, split, photos, size))
            found = two_images(rng, pair)
            if found:
                return found[0], pair, found[1]
            continue
        scene = sample_scene(rng, split, photos, size)
        draft = ONE_IMAGE[type_](rng, scene)
        if draft:
            return draft, (scene,), 0


def _limit(type_: str, count: int) -> int:
    """How often one answer may come up among `count` questions of a type: answers of small families are levelled."""
    options = {
        "presence": 2,
        "counting": 4,
        "position": 9,
        "background": 6,
        "color": 8,
        "small": 8,
        "two_images": 17,
        "category": 20,
        "relation": 20,
        "character": 12,
        "word": 20,
        "comparison": 10,
    }
    return -(-count // options[type_]) if type_ in options else count


def _draw_type(split: str, type_: str, count: int, size: tuple[int, int]) -> list[Question]:
    rng = np.random.default_rng([SPLITS[split], TYPES.index(type_), size[0], size[1]])
    used: dict[str, int] = defaultdict(int)
    out: list[Question] = []
    while len(out) < count:
        draft, scenes, holder = draw_question(rng, type_, split, size)
        if used[draft.answer] >= _limit(type_, PER_TYPE):
            continue
        used[draft.answer] += 1
        boxes = tuple(item_boxes(scenes[holder])[i] for i in draft.items)
        evidence = tuple(boxes if i == holder else () for i in range(len(scenes)))
        name = f"{split}-{type_}-{len(out):03d}"
        out.append(Question(name, type_, draft.text, draft.answer, draft.chance, evidence, scenes))
    return out


def load_split(
    name: str = "test", limit: int | None = None, types: Sequence[str] = TYPES, size: tuple[int, int] = (336, 336)
) -> list[Question]:
    """Questions of a fixed split, types taking turns. `limit`: the first so many per type, of PER_TYPE.

    Raises:
        InputError: no such split or question type, or a limit that is out of range.
    """
    if name not in SPLITS:
        raise InputError(unknown_name("split", name, SPLITS))
    unknown = [t for t in types if t not in TYPES]
    if unknown:
        raise InputError(unknown_name("question type", unknown[0], TYPES))
    if limit is not None and not 1 <= limit <= PER_TYPE:
        raise InputError(f"limit must lie between 1 and {PER_TYPE} questions a type, not {limit}")
    columns = [_draw_type(name, t, limit or PER_TYPE, size) for t in types]
    return [question for row in zip(*columns, strict=True) for question in row]


def fingerprint(questions: Sequence[Question]) -> str:
    """Digest of what is asked: texts, answers, evidence boxes (to a tenth of a pixel) and layouts."""
    rows = [
        [
            q.id,
            q.text,
            q.answer,
            [[[round(x, 1) for x in box] for box in boxes] for boxes in q.evidence],
            [[s.photo, s.tint, s.seed] for s in q.scenes],
        ]
        for q in questions
    ]
    return hashlib.sha256(json.dumps([VERSION, rows]).encode()).hexdigest()[:16]
