"""Max-min diversity equals its definition with the full matrix."""

import pytest
import torch
from tests.support.ops import DEVICE, FAST, READS_NOTHING, blobs, of_sizes, poisoned, running
from tests.support.sync import no_undeclared_reads

from vlm_pruner.ops import spread


@pytest.mark.parametrize(("backend", "n", "keep"), of_sizes((1, 1), (2, 2), (9, 9), (65, 20), (130, 40), (300, 40)))
@pytest.mark.parametrize("noise", [0.05, 1.0])
def test_equals_the_definition(backend, n, keep, noise):
    features = [poisoned(blobs(n, 24, n + 100 * seed, noise=noise)) for seed in range(2)]
    with running(backend):
        found = spread(features, keep)
    assert found.tolist() == spread(features, keep, backend="naive").tolist()


@pytest.mark.parametrize(("backend", "n", "keep"), of_sizes((1, 1), (9, 9), (130, 40)))
@pytest.mark.parametrize("noise", [0.05, 1.0])
@pytest.mark.parametrize("start", [None, 0])
def test_a_given_start_and_weighted_distances(backend, n, keep, noise, start):
    features = [poisoned(blobs(n, 24, n + 100 * seed, noise=noise)) for seed in range(2)]
    weight = [poisoned(torch.rand(n, generator=torch.Generator().manual_seed(seed))) for seed in range(2)]
    for given in ({"start": n - 1}, {"start": start, "weight": weight}):
        with running(backend):
            found = spread(features, keep, **given)
        assert found.tolist() == spread(features, keep, **given, backend="naive").tolist()


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_what_counts_for_nothing_is_taken_last(backend):
    features, weight = blobs(8, 16, 0, noise=1.0).to(DEVICE), torch.ones(8, device=DEVICE)
    weight[[2, 5]] = 0
    with running(backend):
        order = spread([features], 8, start=4, weight=[weight])[0].tolist()
    assert order[0] == 4
    assert order[-2:] == [2, 5]


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_rows_of_any_length_and_zero_rows(backend, scale):
    features = blobs(40, 16, 0).to(DEVICE)
    features[7] = 0
    expected = spread([features], 12, backend="naive").tolist()
    with running(backend):
        assert spread([features * scale], 12).tolist() == expected


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_read_in_float32(backend, dtype):
    features = blobs(90, 24, 3, noise=1.0).to(DEVICE, dtype)
    with running(backend):
        assert spread([features], 20).tolist() == spread([features], 20, backend="naive").tolist()


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_the_nearest_neighbour_may_look_the_other_way(backend):
    """Three directions of which each two differ by more than a right angle: what lies beyond the image is no token."""
    angle = torch.tensor([0.0, 100.0, 225.0]).deg2rad()
    features = torch.stack([angle.cos(), angle.sin()], 1).to(DEVICE)
    with running(backend):
        assert spread([features], 3).tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("backend", FAST)
def test_equal_tokens_are_taken_in_order(backend):
    features = torch.zeros(7, 16, device=DEVICE)
    features[:, 3] = 1
    with running(backend):
        assert spread([features], 7).tolist() == [list(range(7))]


@pytest.mark.parametrize("backend", READS_NOTHING)
def test_reads_nothing(backend):
    features = blobs(40, 16, 0).to(DEVICE)
    with running(backend), no_undeclared_reads():
        spread([features] * 2, 12)
