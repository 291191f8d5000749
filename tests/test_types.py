"""Coordinates of tokens, and what a proper selection is."""

import dataclasses

import pytest
import torch

from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.types import Selection, Signal, VisualTokens


def test_raster_order_of_a_video():
    place = VisualTokens(torch.zeros(12, 4), grid=(2, 2, 3)).coordinates()
    assert place.dtype == torch.float32
    assert place.tolist() == [[t, y, x] for t in range(2) for y in range(2) for x in range(3)]


def test_without_a_grid_tokens_are_one_row():
    assert VisualTokens(torch.zeros(3, 4)).coordinates().tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


def test_positions_come_before_the_grid():
    tokens = VisualTokens(torch.zeros(2, 4), grid=(1, 1, 2), position=torch.tensor([[0, 5, 6], [-1, -1, -1]]))
    assert tokens.coordinates().tolist() == [[0, 5, 6], [-1, -1, -1]]


def test_a_grid_of_another_size():
    with pytest.raises(InvalidSelectionError, match=r"grid \(1, 5, 5\) has 25 places but there are 24 tokens"):
        VisualTokens(torch.zeros(24, 4), grid=(1, 5, 5)).coordinates()


def test_every_signal_names_a_field():
    fields = {f.name for f in dataclasses.fields(VisualTokens)}
    assert {signal.value.split(".")[0] for signal in Signal} <= fields


def selection(index, **fields) -> Selection:
    return Selection(torch.tensor(index), **fields)


def test_a_proper_selection_is_returned():
    good = selection([0, 3, 9], order=torch.tensor([3, 0, 9]), features=torch.zeros(3, 4), source=torch.zeros(10))
    assert good.validate(10, 3) is good
    assert len(good) == 3


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (selection([0, 3]), "2 tokens selected, 3 asked for"),
        (selection([0, 3, 3]), "ascending, unique"),
        (selection([3, 0, 4]), "ascending, unique"),
        (selection([0, 3, 10]), r"inside \[0, 10\)"),
        (selection([-1, 3, 4]), r"inside \[0, 10\)"),
        (selection([0.0, 1.0, 2.0]), "int64"),
        (selection([[0, 1, 2]]), "int64"),
        (selection([0, 1, 2], order=torch.zeros(2)), r"order must have shape \(3,\)"),
        (selection([0, 1, 2], source=torch.zeros(3)), r"source must have shape \(10,\)"),
        (selection([0, 1, 2], features=torch.zeros(2, 4)), r"features must have shape \(3, width\), got \(2, 4\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_improper_selections(bad, message):
    with pytest.raises(InvalidSelectionError, match=message):
        bad.validate(10, 3)


def test_nothing_selected():
    with pytest.raises(InvalidSelectionError, match="0 tokens selected out of 10"):
        Selection(torch.empty(0, dtype=torch.int64)).validate(10)
