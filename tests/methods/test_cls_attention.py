import torch

from vlm_pruner.methods import create
from vlm_pruner.types import VisionSignals, VisualTokens


def test_head_mean_of_the_cls_row():
    attention = torch.tensor([[0.0, 0.7, 0.1, 0.2], [0.5, 0.0, 0.1, 0.4]])
    tokens = VisualTokens(torch.zeros(4, 2), vision=VisionSignals(cls_attention=attention))
    assert create("cls-attention").select(tokens, 3).order.tolist() == [1, 3, 0]


def test_attention_received_of_the_last_row_stands_in():
    attention = torch.tensor([[0.9, 0.0, 0.1], [0.1, 0.2, 0.7]])
    tokens = VisualTokens(torch.zeros(3, 2), vision=VisionSignals(attention=attention))
    assert create("cls-attention").select(tokens, 2).order.tolist() == [2, 1]
