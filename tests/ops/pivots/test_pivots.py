"""Pivots equal the definition in float64, whatever the magnitude, the dtype and the number of equal tokens."""

import pytest
import torch
from tests.support.ops import DEVICE, FAST, READS_NOTHING, blobs, poisoned, running
from tests.support.sync import no_undeclared_reads

from vlm_pruner.ops import farthest_points


def keys(n: int, heads: int = 3, head_dim: int = 16, seed: int = 0, **kind) -> torch.Tensor:
    return blobs(n, heads * head_dim, seed, **kind).view(n, heads, head_dim).transpose(0, 1)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("n", [1, 2, 5, 16, 63, 130, 577])
def test_equals_the_definition(n, backend):
    images = [poisoned(keys(n, seed=seed, copies=n // 4)) for seed in range(2)]
    count = min(n - n // 4, 6)  # beyond the different ones all distances are 0
    with running(backend):
        found = farthest_points(images, count)
    assert found.tolist() == farthest_points(images, count, backend="naive").tolist()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_every_dtype_is_read_in_float32(backend, dtype):
    image = keys(90).to(DEVICE, dtype)
    with running(backend):
        assert farthest_points([image], 5).tolist() == farthest_points([image], 5, backend="naive").tolist()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_any_magnitude(backend, scale):
    image = (keys(70) * scale).to(DEVICE)
    with running(backend):
        assert farthest_points([image], 5).tolist() == farthest_points([image], 5, backend="naive").tolist()


@pytest.mark.parametrize("backend", FAST)
def test_a_large_common_part_does_not_hide_differences(backend):
    """|a|^2 + |b|^2 - 2ab alone would lose them in its rounding."""
    image = (keys(200, noise=0.2) * 1e-2 + 50).to(DEVICE)
    with running(backend):
        assert farthest_points([image], 5).tolist() == farthest_points([image], 5, backend="naive").tolist()


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_what_float32_cannot_tell_apart_is_decided_exactly(backend):
    """Two norms of 2^24 and a little, and two squares of 2^24 and a little: the second of each is larger."""
    norms = torch.tensor([[[2.0**24, 0.5], [2.0**24, 1.0], [1.0, 1.0]]], device=DEVICE)
    squares = torch.tensor([[[4096.0, 9.0], [0.0, 10.0], [0.0, 10 + 2.0**-20], [0.0, 9.0]]], device=DEVICE)
    with running(backend):
        assert farthest_points([norms], 1).tolist() == [[1]]
        assert farthest_points([squares], 2).tolist() == [[0, 2]]


@pytest.mark.parametrize("backend", FAST)
def test_equal_tokens_are_taken_in_order(backend):
    with running(backend):
        found = farthest_points([torch.ones(2, 9, 16, device=DEVICE)], 9)
    assert found.tolist() == [list(range(9))]


@pytest.mark.parametrize("backend", READS_NOTHING)
def test_reads_nothing(backend):
    images = [keys(40).to(DEVICE)] * 2
    with running(backend), no_undeclared_reads():
        farthest_points(images, 4)
