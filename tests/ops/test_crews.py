"""Several programs that work on one image at the same time choose what one would, and wait for one another."""

import importlib.util

import pytest
import torch
from tests.support.crews import crews, small_tiles
from tests.support.ops import DEVICE, blobs, poisoned, raster, running
from tests.support.slowly import the_rest_slowly

from vlm_pruner.ops import GrowthRule, dpp, facility, farthest_points, grow, spread

__all__ = ["small_tiles"]

pytestmark = [
    pytest.mark.usefixtures("small_tiles"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]
SIZES = pytest.mark.parametrize("size", the_rest_slowly([1, 2, 3, 5], [2]))


def run(size: int, op, *arguments) -> torch.Tensor:
    with crews(size), running("triton"):
        return op(*arguments)


@SIZES
def test_pivots(size):
    keys = [poisoned(blobs(67, 24, seed).view(67, 2, 12).transpose(0, 1)) for seed in range(2)]
    expected = farthest_points(keys, 5, backend="naive")
    assert run(size, farthest_points, keys, 5).tolist() == expected.tolist()


@SIZES
def test_max_min_diversity(size):
    features = [poisoned(blobs(67, 24, seed, copies=5)) for seed in range(2)]
    assert run(size, spread, features, 9).tolist() == spread(features, 9, backend="naive").tolist()


@SIZES
def test_weighted_distances_from_a_given_start(size):
    features = [poisoned(blobs(67, 24, seed, noise=1.0)) for seed in range(2)]
    weight = [poisoned(torch.rand(67, generator=torch.Generator().manual_seed(seed))) for seed in range(2)]
    given = {"start": 40, "weight": weight}
    with crews(size), running("triton"):
        found = spread(features, 30, **given)
    assert found.tolist() == spread(features, 30, **given, backend="naive").tolist()


@SIZES
def test_volume(size):
    rows = [poisoned(blobs(67, 60, seed, noise=1.0)) for seed in range(2)]
    weight = [torch.rand(67, generator=torch.Generator().manual_seed(seed)).to(DEVICE) for seed in range(2)]
    assert run(size, dpp, rows, weight, 20).tolist() == dpp(rows, weight, 20, backend="naive").tolist()


@SIZES
def test_facility_location(size):
    cover = torch.randint(-8, 9, (2, 67, 41), generator=torch.Generator().manual_seed(0)) / 8  # with ties
    cover = poisoned(cover)
    assert run(size, facility, cover, 9).tolist() == facility(cover, 9, backend="naive").tolist()


@SIZES
@pytest.mark.parametrize("fill", [True, False])
def test_growth(size, fill):
    place, diagonal = raster(67)
    unit = torch.stack([torch.nn.functional.normalize(blobs(67, 20, seed, groups=3), dim=1) for seed in range(2)])
    pivots = torch.tensor([[3, 60, 31], [66, 0, 17]], device=DEVICE)
    images = (poisoned(unit), place.expand(2, -1, -1).to(DEVICE), diagonal.expand(2).to(DEVICE), pivots)
    rule = GrowthRule(token_batch=7, fill=fill)
    found, expected = run(size, grow, *images, 40, rule), grow(*images, 40, rule, backend="naive")
    assert found.order.tolist() == expected.order.tolist()
    assert found.owner.tolist() == expected.owner.tolist()
