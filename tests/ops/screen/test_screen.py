"""The channels that vary most, as the definition finds them in float64."""

import pytest
import torch
from tests.support.ops import DEVICE, FAST, READS_NOTHING, blobs, poisoned, running
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


def test_channels_are_sorted_only_where_a_tie_is_to_be_broken(monkeypatch):
    lengths = []
    sort = torch.Tensor.sort
    monkeypatch.setattr(
        torch.Tensor, "sort", lambda x, *args, **kwargs: lengths.append(len(x)) or sort(x, *args, **kwargs)
    )
    steps = torch.arange(1.0, 21.0)
    screen([torch.outer(torch.linspace(-1, 1, 9), steps)], 5, backend="torch")
    assert not lengths
    screen([torch.outer(torch.linspace(-1, 1, 9), steps.clamp(max=17))], 2, backend="torch")
    assert lengths[0] == 20
