import pytest
import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.hiprune import hiprune
from vlm_pruner.types import VisionSignals, VisualTokens


def test_anchors_bring_their_neighbours():
    middle, deep = torch.zeros(36), torch.arange(36) / 36
    middle[14] = 1.0
    kept = hiprune(middle, deep, 10, width=6, alpha=0.5)  # one anchor, its cross, then the best of the deep layer
    assert sorted(kept.tolist()) == sorted([14, 13, 15, 8, 20, 35, 34, 33, 32, 31])


def test_at_the_border_neighbours_are_clamped():
    middle, deep = torch.zeros(9), torch.zeros(9)
    middle[0] = 1.0
    assert sorted(hiprune(middle, deep, 5, width=3, alpha=1.0).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("layers", "object_layer"), [(23, 8), (4, 1)])
def test_the_object_layer_is_the_ninth_of_23(layers, object_layer):
    attention = torch.zeros(layers, 25)
    attention[object_layer, 12] = 1.0
    attention[-1, :5] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    tokens = VisualTokens(torch.zeros(25, 2), grid=(1, 5, 5), vision=VisionSignals(attention=attention))
    kept = create("hiprune", alpha=0.5).select(tokens, 10).index.tolist()
    assert {7, 11, 12, 13, 17} <= set(kept)
