import torch

from vlm_pruner.methods import create
from vlm_pruner.types import VisualTokens


def test_always_the_one_with_the_farthest_nearest():
    angle = torch.tensor([0.0, 10.0, 90.0, 180.0, 205.0]).deg2rad()
    tokens = VisualTokens(torch.stack([angle.cos(), angle.sin()], 1))
    assert create("fps", seed=1).select(tokens, 4).order.tolist() == [1, 3, 2, 4]


def test_the_seed_decides_the_start():
    tokens = VisualTokens(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)))
    starts = {create("fps", seed=s).select(tokens, 3).order[0].item() for s in range(12)}
    assert len(starts) > 3
    again = create("fps", seed=1).select(tokens, 9).order
    assert torch.equal(again, create("fps", seed=1).select(tokens, 9).order)
