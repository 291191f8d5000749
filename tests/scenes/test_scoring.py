"""Scores of answers, and tokens under boxes: small cases by hand, boxes at random against pixel counting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vlm_pruner import scenes


@pytest.fixture(scope="module")
def questions() -> dict[str, scenes.Question]:
    return {q.type: q for q in scenes.load_split("test", limit=1)}


@pytest.mark.parametrize(
    ("type_", "answer", "given", "right"),
    [
        ("color", "red", "red", True),
        ("color", "red", " Red. ", True),
        ("color", "red", "reddish", False),
        ("color", "red", "", False),
        ("presence", "yes", "yes!", True),
        ("presence", "yes", "no", False),
        ("counting", "three", "3", True),
        ("counting", "three", "Three", True),
        ("counting", "three", "4", False),
        ("number", "3", "three", False),
        ("code", "A1C2", "a1c2", True),
        ("code", "A1C2", "A1C", False),
        ("code", "A1C2", "A 1 C 2", False),
        ("position", "top-left", "top-left", True),
        ("position", "top-left", "top", False),
    ],
)
def test_score(questions: dict[str, scenes.Question], type_: str, answer: str, given: str, right: bool) -> None:
    assert scenes.score(replace(questions[type_], answer=answer), given) is right


def test_own_answer_is_right_everywhere() -> None:
    assert all(scenes.score(q, q.answer) for q in scenes.load_split("test"))


@pytest.mark.parametrize(
    ("box", "size", "grid", "expected"),
    [
        ((0, 0, 336, 336), (336, 336), (24, 24), range(576)),
        ((14, 0, 28, 14), (336, 336), (24, 24), [1]),
        ((0, 14, 14, 28), (336, 336), (24, 24), [24]),
        ((13, 0, 29, 14), (336, 336), (24, 24), [1]),  # a fourteenth of each neighbour is too little
        ((7, 0, 35, 14), (336, 336), (24, 24), [0, 1, 2]),  # halves count
        ((16, 2, 20, 6), (336, 336), (24, 24), [1]),  # smaller than a token
        ((26, 12, 30, 16), (336, 336), (24, 24), [1, 2, 25, 26]),  # on a corner: a quarter in each
        ((0, 0, 100, 50), (200, 100), (2, 4), [0, 1]),  # wide tokens
    ],
)
def test_box_tokens(
    box: tuple[float, float, float, float], size: tuple[int, int], grid: tuple[int, int], expected: list[int]
) -> None:
    assert scenes.box_tokens(box, size, grid).tolist() == list(expected)


def test_box_tokens_against_counted_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        x0, y0 = rng.integers(0, 300, 2)
        x1, y1 = x0 + rng.integers(1, 36), y0 + rng.integers(1, 36)
        canvas = np.zeros((336, 336))
        canvas[y0:y1, x0:x1] = 1
        filled = canvas.reshape(24, 14, 24, 14).sum((1, 3)).reshape(-1)
        whole = min(14 * 14, (x1 - x0) * (y1 - y0))
        expected = np.nonzero(filled >= 0.25 * whole)[0]
        found = scenes.box_tokens((float(x0), float(y0), float(x1), float(y1)), (336, 336), (24, 24))
        assert found.tolist() == (expected if len(expected) else [filled.argmax()]).tolist()


def test_evidence_tokens_are_the_union_of_boxes_per_image() -> None:
    for q in scenes.load_split("test", limit=3):
        for boxes, tokens in zip(q.evidence, scenes.evidence_tokens(q), strict=True):
            union = {int(t) for box in boxes for t in scenes.box_tokens(box, (336, 336), (24, 24))}
            assert tokens.tolist() == sorted(union)
            assert tokens.dtype == torch.long


def test_evidence_follows_the_grid() -> None:
    (q,) = scenes.load_split("test", limit=1, types=["word"])
    fine, coarse = scenes.evidence_tokens(q)[0], scenes.evidence_tokens(q, (12, 12))[0]
    assert {int(t) // 24 // 2 * 12 + int(t) % 24 // 2 for t in fine} >= set(coarse.tolist())
    assert len(coarse) < len(fine)
