"""A uniform grid has the exact count and leaves no part of the image out."""

import pytest
import torch

from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.methods.grid import GridPrune, grid_points
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("shape", [(1, 24, 24), (1, 26, 46), (1, 1, 7), (3, 5, 4), (8, 1, 1), (1, 40, 3)])
def test_exact_count_for_every_budget(shape):
    n = shape[0] * shape[1] * shape[2]
    for keep in range(1, n + 1):
        points = grid_points(*shape, keep)
        assert len(points) == keep
        assert list(points) == sorted(set(points))
        assert points[0] >= 0
        assert points[-1] < n


def test_a_square_budget_on_a_square_image_is_the_regular_grid():
    points = torch.tensor(grid_points(1, 24, 24, 64))
    assert (points // 24).unique().tolist() == [0, 3, 7, 10, 13, 16, 20, 23]
    assert (points % 24).unique().tolist() == [0, 3, 7, 10, 13, 16, 20, 23]


def test_frames_share_the_budget():
    points = torch.tensor(grid_points(4, 6, 6, 18))
    assert (points // 36).bincount().tolist() == [5, 5, 4, 4]
    assert (torch.tensor(grid_points(4, 6, 6, 2)) // 36).tolist() == [1, 3]


def test_positions_are_spread_over_the_plane_and_placeless_tokens_come_last():
    y, x = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    place = torch.stack([torch.zeros(36), y.flatten(), x.flatten()], 1)
    place = torch.cat([torch.full((4, 3), -1.0), place])
    tokens = VisualTokens(torch.randn(40, 8), position=place)
    four = GridPrune().select(tokens, 4)
    assert sorted(four.index.sub(4).tolist()) == [0, 5, 30, 35]
    assert GridPrune().select(tokens, 38).index.tolist()[:2] == [0, 1]
    assert GridPrune().select(tokens, 36).index.tolist() == list(range(4, 40))


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(InvalidSelectionError, match=r"\(1, 5, 5\)"):
        GridPrune().select(VisualTokens(torch.randn(24, 8), grid=(1, 5, 5)), 4)
