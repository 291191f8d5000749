"""Scoring: is an answer right, and which visual tokens hold the evidence of a question?"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from .layout import Box
from .splits import Question

_DIGITS = {"1": "one", "2": "two", "3": "three", "4": "four"}


def _plain(text: str) -> str:
    return re.sub(r"[\s.,!?\"']+", " ", text).strip().lower()


def score(question: Question, answer: str) -> bool:
    """Exact match of the whole answer, apart from case, outer punctuation and digits for counts."""
    return right(question.type, question.answer, answer)


def right(type_: str, expected: str, answer: str) -> bool:
    """`score` of a question of which only the type and the answer are known."""
    given = _plain(answer)
    if type_ == "counting":
        given = _DIGITS.get(given, given)
    return given == _plain(expected)


def box_tokens(box: Box, size: tuple[int, int], grid: tuple[int, int], least: float = 0.25) -> Tensor:
    """Ascending indices of the tokens that a pixel box fills by `least`; a box smaller than a token counts as a token.

    size: (width, height) of the image; grid: (rows, columns). Never empty: the fullest token stands in.
    """
    rows, columns = grid
    height, width = size[1] / rows, size[0] / columns
    down = _overlap(torch.arange(rows + 1.0) * height, box[1], box[3])
    across = _overlap(torch.arange(columns + 1.0) * width, box[0], box[2])
    area = (down[:, None] * across[None, :]).flatten()  # [rows * columns] pixels
    whole = min(width * height, max(1e-6, (box[2] - box[0]) * (box[3] - box[1])))
    inside = (area >= least * whole).nonzero().flatten()
    return inside if len(inside) else area.argmax().view(1)


def _overlap(edges: Tensor, low: float, high: float) -> Tensor:
    return edges.clamp(low, high).diff()


def evidence_tokens(question: Question, grid: tuple[int, int] = (24, 24)) -> tuple[Tensor, ...]:
    """Per image, the ascending indices of the visual tokens under the question's evidence boxes (maybe none)."""
    out = []
    for scene, boxes in zip(question.scenes, question.evidence, strict=True):
        tokens = [box_tokens(box, scene.size, grid) for box in boxes]
        out.append(torch.unique(torch.cat(tokens)) if tokens else torch.zeros(0, dtype=torch.long))
    return tuple(out)
