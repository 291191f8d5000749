"""The growth equals its definition: kept set, order, owners; with ties, tokens without a place, and early stops."""

import dataclasses

import pytest
import torch
from tests.support.ops import DEVICE, FAST, READS_NOTHING, blobs, numba, of_sizes, poisoned, raster, running
from tests.support.sync import no_undeclared_reads

from vlm_pruner.errors import PlanError
from vlm_pruner.ops import GrowthRule, grow
from vlm_pruner.ops.basic import normalise

RULE = GrowthRule()


@pytest.mark.parametrize("name", ["spatial_weight", "threshold", "threshold_step"])
@pytest.mark.parametrize("value", [-1.5, torch.inf, torch.nan])
def test_a_rule_of_numbers_that_lead_nowhere_is_refused(name, value):
    with pytest.raises(PlanError, match=f"{name}={value} must be a finite number >= "):
        GrowthRule(**{name: value})


def unit_rows(n: int, seed: int, q: int = 20, **kind) -> torch.Tensor:
    return torch.nn.functional.normalize(blobs(n, q, seed, **kind), dim=1)


def inputs(n: int, pivots: int, images: int = 2, **kind) -> list[torch.Tensor]:
    """(unit, place, diagonal, pivots) of `images` images of n tokens."""
    place, diagonal = raster(n)
    first = [torch.randperm(n, generator=torch.Generator().manual_seed(s))[:pivots] for s in range(images)]
    unit = torch.stack([unit_rows(n, seed, **kind) for seed in range(images)])
    return [
        poisoned(unit),
        place.expand(images, -1, -1).to(DEVICE),
        diagonal.expand(images).to(DEVICE),
        torch.stack(first).to(DEVICE),
    ]


def check(backend, images, keep, rule=RULE):
    expected = grow(*images, keep, rule, backend="naive")
    with running(backend):
        found = grow(*images, keep, rule)
    assert found.order.tolist() == expected.order.tolist()
    torch.testing.assert_close(found.similarity, expected.similarity)
    assert found.owner.tolist() == expected.owner.tolist()


@pytest.mark.parametrize(
    ("backend", "n", "keep"), of_sizes((1, 1), (2, 2), (5, 3), (17, 17), (64, 20), (130, 100), (577, 64))
)
def test_equals_the_definition(backend, n, keep):
    check(backend, inputs(n, min(4, keep)), keep)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(
    "change",
    [
        {"token_batch": 1},
        {"token_batch": 5},
        {"token_batch": 100},
        {"threshold": -0.5},
        {"threshold": 0.99, "threshold_step": 0.01},
        {"spatial_weight": 0.0},
        {"fill": False},
        {"fill": False, "threshold": -0.5},
    ],
    ids=str,
)
def test_every_rule(backend, change):
    check(backend, inputs(90, 4), 40, dataclasses.replace(RULE, **change))


@pytest.mark.parametrize("backend", FAST)
def test_one_pivot_grows_without_filling_up(backend):
    images = inputs(40, 1)
    check(backend, images, 20, dataclasses.replace(RULE, fill=False))
    assert (grow(*images, 20, dataclasses.replace(RULE, fill=False), backend="naive").order >= 0).sum() > 2


@pytest.mark.parametrize("backend", FAST)
def test_equal_tokens_and_dense_images(backend):
    images = inputs(100, 4, groups=2, noise=0.02)
    check(backend, images, 50)
    images[0] = torch.zeros_like(images[0])
    images[0][..., 0] = 1
    check(backend, images, 50)
    check(backend, images, 50, dataclasses.replace(RULE, fill=False))


@pytest.mark.parametrize("backend", FAST)
def test_tokens_without_a_place(backend):
    images = inputs(60, 3)
    images[1] = images[1].clone()
    images[1][:, 4::5] = torch.nan
    check(backend, images, 30)
    images[1].fill_(torch.nan)
    check(backend, images, 30)


@pytest.mark.parametrize("backend", FAST)
def test_three_coordinates(backend):
    images = inputs(60, 3)
    images[1] = torch.cat([images[1], torch.arange(60, device=DEVICE).float().expand(2, -1)[..., None] / 7], 2)
    check(backend, images, 25)


@pytest.mark.parametrize("backend", ["torch", numba])
@pytest.mark.parametrize("pivots", [1, 4, 300])
def test_many_kept_tokens(backend, pivots):
    """So many that some wait to be compared, and wait again."""
    images = inputs(900, pivots, images=1, groups=40, noise=0.15)
    check(backend, images, 640)
    check(backend, images, 640, dataclasses.replace(RULE, token_batch=300))


@pytest.mark.parametrize("backend", ["torch", numba])
@pytest.mark.parametrize("steps", [7, 64, 997])
def test_angles_that_add_up(backend, steps):
    """On a circle one angle is the sum of two others, so that a bound by angles has nothing to spare; with ties."""
    generator = torch.Generator().manual_seed(steps)
    angle = torch.randint(steps, (400,), generator=generator).double() * (2 * torch.pi / steps)
    place, diagonal = raster(400)
    unit = normalise(torch.stack([angle.cos(), angle.sin()], 1))
    images = [unit[None], place[None], diagonal[None], torch.tensor([[5]])]
    for rule in (RULE, dataclasses.replace(RULE, spatial_weight=0.0, threshold=-0.9)):
        check(backend, images, 90, rule)


@pytest.mark.parametrize("backend", READS_NOTHING)
def test_reads_nothing(backend):
    images = inputs(40, 4)
    with running(backend):
        grow(*images, 12, RULE)  # the ladder of thresholds is put on the device once
        with no_undeclared_reads():
            grow(*images, 12, RULE)
