"""The channels that vary most, as the definition finds them in float64."""

import importlib

import pytest
import torch
from tests.support.ops import DEVICE, FAST, READS_NOTHING, blobs, numba, poisoned, running
from tests.support.sync import no_undeclared_reads

from vlm_pruner.ops import screen


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("n", "d", "channels"), [(1, 8, 3), (2, 8, 8), (33, 40, 64), (65, 700, 16), (90, 20, 20)])
def test_equals_the_definition(backend, n, d, channels):
    spread = torch.linspace(0.1, 3, d)[torch.randperm(d, generator=torch.Generator().manual_seed(0))]
    images = [poisoned(blobs(n, d, seed) * spread + 4) for seed in range(2)]
    with running(backend):
        found = screen(images, channels)
    assert found.shape == (2, n, min(d, channels))
    torch.testing.assert_close(found, screen(images, channels, backend="naive"))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_read_in_float32(backend, dtype):
    image = (blobs(50, 300, 1) * torch.linspace(0.1, 3, 300)).to(DEVICE, dtype)
    with running(backend):
        torch.testing.assert_close(screen([image], 30), screen([image], 30, backend="naive"))


@pytest.mark.parametrize("backend", FAST)
def test_a_large_mean_does_not_hide_a_small_spread(backend):
    steady = 30 + 0.001 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    lively = 0.01 * torch.randn(200, 10, generator=torch.Generator().manual_seed(1))
    image = torch.cat([steady, lively], 1).to(DEVICE)
    with running(backend):
        torch.testing.assert_close(screen([image], 10), torch.nn.functional.normalize(lively, dim=1)[None].to(DEVICE))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("channels", [5, 6])
@pytest.mark.filterwarnings("ignore:overflow encountered")  # variances may be infinite; the interpreter says so
def test_rows_of_any_length_become_unit_rows(backend, scale, channels):
    rows = blobs(12, 6, 0).to(DEVICE) * scale
    rows[3] = 0
    with running(backend):
        length = screen([rows], channels)[0].norm(dim=1)
    torch.testing.assert_close(length, torch.ones(12, device=DEVICE).index_fill(0, torch.tensor(3, device=DEVICE), 0))


def test_equal_spreads_go_to_the_lower_channel():
    rows = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).repeat(1, 9)
    rows[:, 4] *= 2
    with running("torch"):
        assert screen([rows], 3)[0].abs().argmax(1).tolist() == [2] * 4  # channels 0, 1 and 4


@pytest.mark.parametrize("backend", READS_NOTHING)
def test_reads_nothing(backend):
    images = [blobs(40, 24, 0).to(DEVICE)] * 2
    with running(backend), no_undeclared_reads():
        screen(images, 8)


@pytest.mark.parametrize("backend", ["torch", numba])
def test_only_channels_in_doubt_are_measured_again(backend, monkeypatch):
    torch_ = importlib.import_module("vlm_pruner.ops.screen.torch")
    measured, exact = [], torch_._exact
    monkeypatch.setattr(torch_, "_exact", lambda part: measured.append(part.shape[1]) or exact(part))
    steps, ramp = torch.arange(1.0, 21.0), torch.linspace(-1, 1, 9)
    with running(backend):
        screen([torch.outer(ramp, steps)], 5)
        assert not measured
        screen([torch.outer(ramp, steps.clamp(max=17))], 2)
        assert measured == [4]
        screen([torch.outer(ramp, steps.clamp(max=17))], 6)  # one of them has a place of its own
        assert measured == [4]


def test_no_variance_is_further_off_than_what_is_said():
    rows = blobs(576, 64, 3) * 3 + 100
    spread, off = importlib.import_module("vlm_pruner.ops.screen.torch")._variance(rows)
    wrong = (spread.double() - rows.double().var(0, correction=0)).abs()
    assert wrong.max() > 0
    assert (wrong <= off).all()


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_what_float32_cannot_tell_apart_is_told_apart(backend):
    """Two channels whose variances differ by 2e-8 of themselves, and a common part that costs digits."""
    ramp = torch.linspace(-1, 1, 65).double()
    nearly = ramp.clone()
    nearly[-1] += 2.0**-21
    rows = torch.stack([ramp, nearly, ramp * 0.5], 1).float() + 0.5
    both = torch.cat([rows[:, [1, 0, 2]], rows], 1)
    with running(backend):
        found = screen([both.to(DEVICE)], 2)
    expected = torch.nn.functional.normalize(both[:, [0, 4]].double(), dim=1).float()
    torch.testing.assert_close(found[0].cpu(), expected, rtol=0, atol=2.0**-25)
