"""Batches: what fits together, in an order of its own, padded as a processor would."""

from __future__ import annotations

import torch

from vlm_pruner.serving.batch.collate import batches_of, collate


def row(length: int, pictures: int = 1, side: int = 4) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.arange(1, length + 1)[None],
        "attention_mask": torch.ones(1, length, dtype=torch.long),
        "pixel_values": torch.full((pictures, 3, side, side), float(length)),
    }


def test_shorter_prompts_first_and_equal_ones_by_number() -> None:
    inputs = {number: row(length) for number, length in zip((4, 5, 6, 7, 8), (9, 3, 3, 7, 3), strict=True)}
    assert batches_of(inputs, 2) == [[5, 6], [8, 7], [4]]


def test_pictures_of_other_shapes_and_rows_without_any_are_apart() -> None:
    words = {name: value for name, value in row(5).items() if name != "pixel_values"}
    inputs = {0: row(5), 1: row(5, side=8), 2: words, 3: row(6, pictures=2), 4: {**words, "more": [1]}}
    assert batches_of(inputs, 8) == [[0, 3], [1], [2], [4]]


def test_tokens_are_padded_on_the_left_and_pictures_lie_behind_one_another() -> None:
    batch = collate([row(2), row(4, pictures=2)], fill=9)
    assert batch["input_ids"].tolist() == [[9, 9, 1, 2], [1, 2, 3, 4]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [2.0, 4.0, 4.0]
