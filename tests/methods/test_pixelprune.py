import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases, squares
from tests.support.sync import no_undeclared_reads

from vlm_pruner.errors import PlanError
from vlm_pruner.methods.pixelprune import pixelprune


def pixels_of(case):
    """[h, w, p] float32 in [0, 1]."""
    return squares(build(case)["image"], case).flatten(2).float() / 255


@pytest.mark.parametrize("case", cases("pixelprune"), ids=case_id)
def test_golden(case):
    pixels = pixels_of(case)
    with no_undeclared_reads():
        kept = pixelprune(pixels, **case.get("params", {}))
    assert kept.nonzero().flatten().tolist() == case["expected"]["kept"]


@pytest.mark.parametrize("metric", ["max", "mae", "rmse"])
@pytest.mark.parametrize("anchored", [True, False])
def test_against_loops(metric, anchored):
    pixels = torch.randint(0, 4, (7, 9, 5), generator=torch.Generator().manual_seed(0)).float() / 255
    tau = 1.3 / 255
    value = {"max": lambda d: d.abs().max(), "mae": lambda d: d.abs().mean(), "rmse": lambda d: (d * d).mean() ** 0.5}

    def alike(x, y):
        return float(value[metric](x - y)) <= tau

    known, kept = pixels.clone(), []
    for y in range(7):
        for x in range(9):
            if y == x == 0:
                kept.append(True)
                continue
            if y == 0 or x == 0:
                prediction = known[y, x - 1] if y == 0 else known[y - 1, x]
            else:
                left, above, corner = known[y, x - 1], known[y - 1, x], known[y - 1, x - 1]
                prediction = above if alike(corner, left) and not alike(corner, above) else left
            kept.append(not alike(known[y, x], prediction))
            if anchored and not kept[-1]:
                known[y, x] = prediction
    assert pixelprune(pixels, tau, metric, anchored=anchored).tolist() == kept
    assert 0 < sum(kept) < 63


def test_repeated_tokens_are_dropped_exactly():
    """Without a threshold what is dropped equals its prediction, so that anchors change nothing."""
    pixels = torch.randint(0, 2, (6, 8, 1), generator=torch.Generator().manual_seed(1)).float()
    assert torch.equal(pixelprune(pixels, anchored=True), pixelprune(pixels, anchored=False))
    row = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0]).view(1, 5, 1)
    for scan in ("pred_2d", "raster", "serpentine"):
        assert pixelprune(row, scan=scan).tolist() == [True, False, True, False, True]
    assert pixelprune(row.view(5, 1, 1)).tolist() == [True, False, True, False, True]
    two = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(2, 2, 1)  # the second row begins on the right
    assert pixelprune(two, scan="serpentine").tolist() == [True, True, True, False]
    assert pixelprune(two, scan="raster").tolist() == [True, True, True, True]


def test_errors_do_not_add_up():
    ramp = torch.arange(20).view(1, 20, 1).float() / 255
    assert int(pixelprune(ramp, 1.5 / 255, anchored=False).sum()) == 1
    assert int(pixelprune(ramp, 1.5 / 255).sum()) == 10


def test_unknown_names_are_refused():
    with pytest.raises(PlanError, match="did you mean 'raster'"):
        pixelprune(torch.zeros(1, 1, 1), scan="rasters")
    with pytest.raises(PlanError, match="unknown metric"):
        pixelprune(torch.zeros(1, 1, 1), metric="ssim")
