"""The greedy choice of a determinantal point process equals its definition."""

import pytest
import torch
from tests.support.ops import DEVICE, FAST, READS_NOTHING, blobs, of_sizes, poisoned, running
from tests.support.sync import no_undeclared_reads

from vlm_pruner.ops import dpp


def weights(n, seed):
    return poisoned(torch.rand(n, generator=torch.Generator().manual_seed(seed)) + 0.01)


@pytest.mark.parametrize(("backend", "n", "keep"), of_sizes((1, 1), (2, 2), (9, 9), (65, 20), (130, 40), (300, 40)))
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_equals_the_definition(backend, n, keep, noise):
    rows = [poisoned(blobs(n, 50, n + 100 * seed, noise=noise)) for seed in range(2)]
    weight = [weights(n, seed) for seed in range(2)]
    with running(backend):
        found = dpp(rows, weight, keep)
    assert found.tolist() == dpp(rows, weight, keep, backend="naive").tolist()


def test_the_definition_takes_the_largest_determinant():
    rows, weight = blobs(9, 12, 0, noise=1.0).double(), weights(9, 0).double()
    kernel = (weight[:, None] * rows) @ (weight[:, None] * rows).T
    chosen: list[int] = []
    for _ in range(5):
        volume = {
            i: float(torch.linalg.det(kernel[[*chosen, i]][:, [*chosen, i]])) for i in range(9) if i not in chosen
        }
        chosen.append(max(volume, key=volume.__getitem__))
    assert dpp([rows], [weight], 5, backend="naive").tolist() == [chosen]


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_beyond_the_rank_the_order_is_still_a_choice(backend):
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [1.0, 1.0]], device=DEVICE)
    with running(backend):
        (order,) = dpp([rows], [torch.ones(4, device=DEVICE)], 4).tolist()
    assert order[:2] == [1, 0]
    assert sorted(order) == [0, 1, 2, 3]


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_what_adds_no_volume_changes_no_other_volume(backend):
    """Twins and rows of zeros: exact zeros, which nothing may be divided by."""
    rows = torch.eye(6, device=DEVICE).mul(torch.arange(6.0, 0, -1, device=DEVICE)[:, None])
    rows[4], rows[5] = 0, rows[0]
    with running(backend):
        assert dpp([rows], [torch.ones(6, device=DEVICE)], 6).tolist() == [[0, 1, 2, 3, 4, 5]]
        assert dpp([torch.zeros_like(rows)], [torch.ones(6, device=DEVICE)], 6).tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_weights_bring_rows_of_any_length_back(backend, scale):
    rows, weight = blobs(40, 16, 0, noise=1.0).to(DEVICE), weights(40, 1)
    expected = dpp([rows], [weight], 12, backend="naive").tolist()
    with running(backend):
        assert dpp([rows * scale], [weight / scale], 12).tolist() == expected


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_read_in_float32(backend, dtype):
    rows, weight = [blobs(90, 40, 3, noise=1.0).to(DEVICE, dtype)], [weights(90, 2)]
    with running(backend):
        assert dpp(rows, weight, 20).tolist() == dpp(rows, weight, 20, backend="naive").tolist()


@pytest.mark.parametrize("backend", READS_NOTHING)
def test_reads_nothing(backend):
    rows, weight = blobs(40, 16, 0).to(DEVICE), weights(40, 0)
    with running(backend), no_undeclared_reads():
        dpp([rows] * 2, [weight] * 2, 12)
