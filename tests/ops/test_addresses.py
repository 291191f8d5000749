"""Kernels find values that lie more than 2^31 elements apart: large batches of long videos do.

The memory is a sparse file, of which only the pages with values exist. The interpreter computes in the integers that a
device would, so an offset in 32 bits would wrap around and read zeros.
"""

import importlib.util

import pytest
import torch
from tests.support.ops import DEVICE, blobs, raster, running

from vlm_pruner.ops import GrowthRule, dpp, facility, farthest_points, grow, merge, screen, spread

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(DEVICE.type != "cpu", reason="a device has no sparse memory"),
]
N, D, IMAGES = 24, 6, 3
FAR = 1 << 31


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """Float32 zeros, more than 2^31 of them."""
    file = tmp_path_factory.mktemp("sparse") / "memory"
    return torch.from_file(str(file), shared=True, size=FAR + (1 << 28), dtype=torch.float32)


@pytest.fixture(params=["images", "tokens"])
def far(request, memory):
    """A function that lays values [B, n, d] out in `memory`, the last image or the last tokens far away."""

    def lay(values: torch.Tensor) -> torch.Tensor:
        _, n, d = values.shape
        strides = (FAR // 2 + 64, 2 * d, 1)
        if request.param == "tokens":
            strides = (d + 1, (FAR // (n - 1) // 64 + 1) * 64, 1)
        view = memory.as_strided(values.shape, strides)
        view.copy_(values)
        return view

    return lay


def rows(d: int = D) -> torch.Tensor:
    """Of which the last one is the longest, and so a pivot."""
    together = torch.stack([blobs(N, d, seed) for seed in range(IMAGES)])
    together[:, -1] *= 4
    return together


def same(op, *given) -> None:
    with running("triton"):
        found = op(*given)
    expected = op(*given, backend="naive")
    assert found.tolist() == expected.tolist()


def test_pivots(far):
    same(farthest_points, [image[None] for image in far(rows())], 5)
    same(farthest_points, list(far(rows()).unflatten(2, (2, -1)).transpose(1, 2)), 5)


def test_max_min_diversity(far):
    same(spread, list(far(rows())), 5)


def test_volume(far):
    same(dpp, list(far(rows())), list(torch.rand(IMAGES, N, generator=torch.Generator().manual_seed(0))), 5)


def test_facility_location(far):
    cover = torch.randint(-8, 9, (IMAGES, N, 11), generator=torch.Generator().manual_seed(0)) / 8
    cover[:, -1] += 2  # the last candidate is the first choice
    same(facility, far(cover), 5)
    same(facility, far(cover.mT).mT, 5)


def test_screening_and_merging(far):
    images = list(far(rows()))
    with running("triton"):
        torch.testing.assert_close(screen(images, 4), screen(images, 4, backend="naive"))
    index, source = torch.arange(4).expand(IMAGES, -1), torch.arange(N).expand(IMAGES, -1) % 4
    given = (images, index, source, torch.ones(IMAGES, N), 0.3)
    with running("triton"):
        torch.testing.assert_close(merge(*given), merge(*given, backend="naive"))


def test_growth(far):
    place, diagonal = raster(N)
    unit = far(torch.nn.functional.normalize(rows(), dim=2))
    given = (unit, place.expand(IMAGES, -1, -1), diagonal.expand(IMAGES), torch.tensor([[3, 20], [0, 9], [5, 6]]), 12)
    with running("triton"):
        found = grow(*given, GrowthRule(token_batch=5))
    assert found.order.tolist() == grow(*given, GrowthRule(token_batch=5), backend="naive").order.tolist()
