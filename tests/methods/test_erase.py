import math

import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases, squares
from tests.support.sync import no_undeclared_reads

from vlm_pruner.errors import PlanError
from vlm_pruner.methods.erase import entropy, erase, share_of


@pytest.mark.parametrize("case", cases("erase"), ids=case_id)
def test_golden(case):
    pixels, params, expected = squares(build(case)["image"], case).flatten(0, 1), case["params"], case["expected"]
    n = len(pixels)
    with no_undeclared_reads():
        kept = erase(pixels, **params)
    assert kept.nonzero().flatten().tolist() == expected["kept"]
    median = entropy(pixels).sort().values[(n - 1) // 2]
    assert float(median) == pytest.approx(expected["median"], abs=5e-5)
    assert float(share_of(median, **params)) == expected["share"]
    assert int(n * params["ratio"]) == expected["final"]


def test_entropy_of_known_greys():
    flat = torch.full((1, 64, 3), 77, dtype=torch.uint8)
    halves = torch.tensor([10, 200], dtype=torch.uint8).repeat(32).view(1, 64, 1).expand(1, 64, 3)
    found = entropy(torch.cat([flat, halves]))
    assert found.tolist() == pytest.approx([0, math.log(2)], abs=1e-6)


def test_a_grey_is_cut_off_exactly():
    """A colour of three equal values is that grey, whatever its parts add up to in floating point."""
    grey = torch.arange(256).view(1, 256, 1).expand(1, 256, 3)
    assert float(entropy(grey)) == pytest.approx(math.log(256), abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_the_lower_median_decides(n):
    """Token i has i + 1 greys alike often, so that its entropy is log(i + 1)."""
    pixels = torch.stack([(torch.arange(60) % (i + 1)).view(60, 1).expand(60, 3) for i in range(n)])
    lower = math.log((n - 1) // 2 + 1)
    above = erase(pixels, [lower - 0.01], [1.0, 0.0], 0.5)
    below = erase(pixels, [lower + 0.01], [1.0, 0.0], 0.5)
    assert above.tolist() == [True] * n
    assert below.tolist() == [i >= n - n // 2 for i in range(n)]


def test_shares():
    thresholds, shares = [1.5, 1.0], [0.9, 0.6, 0.2]
    for median, ratio, expected in ((1.6, 0.1, 0.9), (1.5, 0.1, 0.6), (0.3, 0.1, 0.2), (0.3, 0.4, 0.4)):
        assert float(share_of(torch.tensor(median, dtype=torch.float64), thresholds, shares, ratio)) == expected
    for wrong in ([1.0, 1.5], [1.0]):
        with pytest.raises(PlanError, match="thresholds must descend"):
            share_of(torch.tensor(1.0), wrong, shares, 0.1)
