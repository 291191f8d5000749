import pytest
import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.pooling import rectangles
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize(("rows", "columns", "keep"), [(24, 24, 64), (24, 24, 77), (3, 40, 11), (1, 7, 7), (26, 46, 1)])
def test_rectangles_cover_the_grid_once(rows, columns, keep):
    cells = [(y, x) for ys, xs in rectangles(rows, columns, keep) for y in ys for x in xs]
    assert len(rectangles(rows, columns, keep)) == keep
    assert sorted(cells) == [(y, x) for y in range(rows) for x in range(columns)]


def test_a_smaller_grid_is_average_pooling():
    features = torch.randn(144, 5, generator=torch.Generator().manual_seed(0))
    selection = create("pooling").select(VisualTokens(features, grid=(1, 12, 12)), 16)
    image = features.T.view(1, 5, 12, 12)
    expected = torch.nn.functional.avg_pool2d(image, 3).flatten(2)[0].T
    torch.testing.assert_close(selection.features, expected)
    assert selection.index[:5].tolist() == [13, 16, 19, 22, 49]  # the middles of the blocks
    assert selection.source.view(12, 12)[:3, :3].unique().tolist() == [0]


def test_without_a_full_grid_tokens_are_one_row():
    selection = create("pooling").select(VisualTokens(torch.arange(6.0)[:, None], grid=(1, 4, 4)), 2)
    assert selection.features.flatten().tolist() == [1.0, 4.0]
