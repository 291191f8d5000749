import dataclasses

import numpy as np
import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases
from tests.support.tokens import visual_tokens

from vlm_pruner.methods import create
from vlm_pruner.methods.clse import detail, evolution
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("clse"), ids=case_id)
def test_golden(case):
    tensors = build(case)
    tokens = VisualTokens(
        tensors["second"], previous=tensors["first"], attention=tensors["attention"], grid=(1, *case["grid"]), layer=1
    )
    assert create("clse").select(tokens, case["keep"]).index.tolist() == case["expected"]["kept"]


@pytest.mark.parametrize("grid", [(6, 8), (5, 7), (4, 9), (2, 3)])
def test_detail_is_what_a_fourier_transform_gives(grid):
    h, w = grid
    maps = np.random.default_rng(0).standard_normal((h, w, 5))
    v, u = np.mgrid[0:h, 0:w]
    sigma = 0.1 * min(h // 2, w // 2)
    high = 1 - np.exp(-((v - h // 2) ** 2 + (u - w // 2) ** 2) / (2 * sigma**2))
    spectrum = np.fft.fft2(maps, axes=(0, 1)) * np.fft.ifftshift(high)[..., None]
    expected = np.abs(np.fft.ifft2(spectrum, axes=(0, 1))).mean(-1).reshape(1, -1)
    np.testing.assert_allclose(detail(torch.from_numpy(maps).view(h * w, 5), (1, h, w)), expected, atol=1e-12)


def test_frames_are_looked_at_one_by_one():
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(2 * 20, 6, generator=g), torch.randn(2 * 20, 6, generator=g)
    both = evolution(first, second, (2, 4, 5))
    for frame in (slice(0, 20), slice(20, 40)):
        torch.testing.assert_close(both[frame], evolution(first[frame], second[frame], (1, 4, 5)))


def test_attention_alone_where_there_is_no_grid_and_at_later_stages():
    tokens = visual_tokens()
    by_attention = tokens.attention.mean(0).argsort(descending=True)[:9].tolist()
    assert create("clse").select(tokens, 9).order.tolist() != by_attention
    for plain in (dataclasses.replace(tokens, grid=None), dataclasses.replace(tokens, grid=(1, 1, 42))):
        assert create("clse").select(plain, 9).order.tolist() == by_attention
    assert create("clse", evolving=False).select(tokens, 9).order.tolist() == by_attention


def test_published_schedule():
    stages = create("clse").stages(64, 32)
    assert [(m.evolving, k, layer) for m, k, layer in stages] == [(True, 110, 1), (False, 70, 11), (False, 20, 21)]
    assert [layer for _, _, layer in create("clse").stages(128, 28)] == [1, 10, 18]
    assert len(create("clse").stages(64, 2)) == 1
