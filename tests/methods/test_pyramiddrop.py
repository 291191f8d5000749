import pytest
import torch

from vlm_pruner.methods import create
from vlm_pruner.types import VisualTokens


def test_keeps_what_the_last_token_attends_to():
    attention = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.1, 0.0, 0.6, 0.3]])
    selection = create("pyramiddrop").select(VisualTokens(torch.zeros(4, 2), attention=attention), 2)
    assert selection.order.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("keep", "expected"), [(0.125, [0.5, 0.25, 0.125]), (72, [288, 144, 72]), (0.5, [1.0, 1.0, 0.5])]
)
def test_halves_after_each_quarter(keep, expected):
    stages = create("pyramiddrop").stages(keep, 32)
    assert [k for _, k, _ in stages] == expected
    assert [layer for _, _, layer in stages] == [8, 16, 24]


def test_other_ratio_and_a_shallow_model():
    assert [k for _, k, _ in create("pyramiddrop", ratio=0.25).stages(10, 32)] == [160, 40, 10]
    assert [(k, layer) for _, k, layer in create("pyramiddrop").stages(10, 5)] == [(40, 1), (20, 3), (10, 4)]
