"""Images of more tokens than one program can hold: 17,000 of them, in tiles, against the definition."""

import importlib.util

import pytest
import torch
from tests.support.crews import large_tiles
from tests.support.ops import DEVICE, blobs, raster, running

from vlm_pruner.ops import GrowthRule, dpp, facility, farthest_points, grow, merge, screen, spread

__all__ = ["large_tiles"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("large_tiles"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]
N, KEEP = 17_000, 5
ROWS = blobs(N, 8, 0, noise=1.0)


def run(op, *arguments):
    with running("triton"):
        return op(*arguments)


def test_pivots():
    keys = ROWS.view(N, 2, 4).transpose(0, 1).to(DEVICE)
    assert run(farthest_points, [keys], KEEP).tolist() == farthest_points([keys], KEEP, backend="naive").tolist()


def test_facility_location():
    cover = torch.randint(-8, 9, (1, N, 3), generator=torch.Generator().manual_seed(0)).to(DEVICE) / 8
    assert run(facility, cover, KEEP).tolist() == facility(cover, KEEP, backend="naive").tolist()


def test_growth():
    place, diagonal = raster(N)
    images = [screen([ROWS.to(DEVICE)], 8, backend="naive"), place[None].to(DEVICE), diagonal[None].to(DEVICE)]
    images.append(torch.tensor([[3, 16_999, 8_000]], device=DEVICE))
    found, expected = run(grow, *images, KEEP, GrowthRule()), grow(*images, KEEP, GrowthRule(), backend="naive")
    assert found.order.tolist() == expected.order.tolist()
    assert found.owner.tolist() == expected.owner.tolist()


def test_max_min_diversity():
    """The definition has its [n, n] matrix of float64 in strips here, since the whole of it takes 2.3 GB."""
    unit = torch.nn.functional.normalize(ROWS.double(), dim=1)
    closest = []
    for strip in torch.arange(N).split(1000):
        cosine = unit[strip] @ unit.T
        closest.append(cosine.scatter_(1, strip[:, None], -torch.inf).amax(1))
    chosen = [int(torch.cat(closest).argmin())]
    while len(chosen) < KEEP:
        chosen.append(int((unit @ unit[chosen].T).amax(1).index_fill_(0, torch.tensor(chosen), torch.inf).argmin()))
    assert run(spread, [ROWS.to(DEVICE)], KEEP).tolist() == [chosen]


def test_volume():
    """Against torch's operations, since the kernel that the definition holds takes 2.3 GB."""
    given = [ROWS.to(DEVICE)], [torch.rand(N, generator=torch.Generator().manual_seed(0)).to(DEVICE)], KEEP
    assert run(dpp, *given).tolist() == dpp(*given, backend="torch").tolist()


def test_screening_and_merging():
    image, weight = ROWS.to(DEVICE), torch.rand(1, N, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    torch.testing.assert_close(run(screen, [image], 4), screen([image], 4, backend="naive"))
    source = torch.arange(N, device=DEVICE)[None] % KEEP
    given = ([image], torch.arange(KEEP, device=DEVICE)[None], source, weight, 0.3)
    torch.testing.assert_close(run(merge, *given), merge(*given, backend="naive"), atol=1e-4, rtol=1e-4)
