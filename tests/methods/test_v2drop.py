import torch

from vlm_pruner.methods import create
from vlm_pruner.types import VisualTokens


def test_keeps_what_moved_most():
    previous = torch.zeros(4, 2)
    features = torch.tensor([[3.0, 4.0], [0.0, 6.0], [1.0, 0.0], [4.5, 0.0]]) + 10
    selection = create("v2drop").select(VisualTokens(features, previous=previous + 10, layer=3), 3)
    assert selection.order.tolist() == [1, 0, 3]


def test_released_schedule():
    assert [(k, layer) for _, k, layer in create("v2drop").stages(192, 32)] == [(288, 3), (144, 17), (1, 22)]
    assert [k for _, k, _ in create("v2drop").stages(1 / 3, 32)][2] == 1
