"""What all kernels share: crews that fit onto the device, the device of the tensors, NaN."""

import importlib
import importlib.util

import pytest
import torch
from tests.support.crews import crews
from tests.support.ops import DEVICE, blobs, poisoned, raster, running

from vlm_pruner.ops import GrowthRule, dpp, facility, farthest_points, grow, merge, screen, spread

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def launch():
    return importlib.import_module("vlm_pruner.ops.launch")


@pytest.mark.parametrize("residents", [1, 14, 108, 132])
def test_a_crew_that_meets_runs_at_the_same_time(residents, monkeypatch):
    """One program for each multiprocessor at most; where not even two are left for an image, nobody has to wait."""
    monkeypatch.setattr(launch(), "residents", lambda device: residents)
    for batch in (1, 2, 3, 8, 66, 67, 132, 133, 1000):
        for tiles in (1, 2, 9, 36, 180, 8192):
            crew = launch().Crew(batch, tiles, torch.device("cpu"))
            together = crew.grid[0] * crew.grid[1]
            assert crew.grid == (batch, crew.size)
            assert 1 <= crew.size <= tiles
            assert together <= residents or crew.size == 1
            assert crew.options["launch_cooperative_grid"] == (crew.size > 1)
            assert crew.size == tiles or batch * (crew.size + 1) > residents, "the device is not made use of"
            assert crew.scores.shape == crew.tokens.shape == (batch, 2, crew.options["SLOTS"])
            assert crew.options["SLOTS"] == (1 if crew.size == 1 else 1 << (residents - 1).bit_length())


def inputs(n: int = 40) -> dict:
    """What each op is called with: its own first tensor first."""
    features, (place, diagonal) = blobs(n, 12, 0).to(DEVICE), raster(n)
    unit, source = torch.nn.functional.normalize(features, dim=1)[None], torch.arange(n, device=DEVICE)[None] % 4
    index = torch.arange(4, device=DEVICE)[None]
    return {
        farthest_points: ([features[None]], 4),
        screen: ([features], 8),
        grow: (unit, place[None].to(DEVICE), diagonal[None].to(DEVICE), index, 9, GrowthRule()),
        merge: ([features], index, source, torch.ones(1, n, device=DEVICE), 0.3),
        spread: ([features], 5),
        dpp: ([features], [torch.ones(n, device=DEVICE)], 5),
        facility: (unit @ unit.mT, 5),
    }


def test_the_device_of_the_tensors_is_the_current_one(monkeypatch):
    seen, real = [], torch.cuda.device_of

    def spy(tensor):
        seen.append(tensor)
        return real(tensor)

    monkeypatch.setattr(torch.cuda, "device_of", spy)
    for op, given in inputs().items():
        with running("triton"):
            op(*given)
        first = given[0] if isinstance(given[0], torch.Tensor) else given[0][0]
        assert seen.pop() is first, op.__name__


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [slice(7, 9), slice(None)], ids=["two rows", "all rows"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's arithmetic says what it is given
def test_values_that_are_no_numbers_lead_nowhere(size, wrong, where, monkeypatch):
    """An index out of range would end the process on a device; whatever was computed, tokens are real and different."""
    monkeypatch.setattr(launch(), "_INTERPRETED", 16)
    features = blobs(40, 12, 0).to(DEVICE)
    features[where, 3] = wrong
    features = poisoned(features)
    cover, weight = (features @ features.T)[None], torch.full((1, 40), wrong, device=DEVICE)
    with crews(size), running("triton"):
        chosen = [
            farthest_points([features[None]], 6),
            spread([features], 6),
            facility(cover, 6),
            facility(cover, 6, weight),
            dpp([features], [torch.ones(40, device=DEVICE)], 6),
            dpp([blobs(40, 12, 0).to(DEVICE)], [weight[0]], 6),
        ]
        unit = screen([features], 12)
    for tokens in chosen:
        assert len(set(tokens[0].tolist())) == 6
        assert set(tokens[0].tolist()) <= set(range(40))
    assert torch.equal(unit[0, where], torch.zeros_like(unit[0, where]))
    assert unit.isfinite().all()
