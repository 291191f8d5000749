"""Dropped rows are folded into their owners as the definition says, negative and vanishing weights included."""

import pytest
import torch
from tests.support.ops import DEVICE, READS_NOTHING, blobs, numba, poisoned, running, triton
from tests.support.sync import no_undeclared_reads

from vlm_pruner.ops import merge

BACKENDS = ["torch", triton, numba]


def inputs(n: int, k: int, d: int = 24, images: int = 2) -> list:
    """(features, index, source, weight) of `images` images of n tokens."""
    generator = torch.Generator().manual_seed(n)
    index = torch.stack([torch.randperm(n, generator=generator)[:k].sort().values for _ in range(images)])
    source = torch.randint(k, (images, n), generator=generator)
    source.scatter_(1, index, torch.arange(k).expand(images, -1))
    weight = torch.randn(images, n, generator=generator) * 0.3 + 0.5
    features = [poisoned(blobs(n, d, seed)) for seed in range(images)]
    return [features, index.to(DEVICE), source.to(DEVICE), weight.to(DEVICE)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 5), (40, 1), (97, 13), (300, 64)])
def test_equals_the_definition(backend, n, k):
    images = inputs(n, k)
    with running(backend):
        found = merge(*images, 0.3)
    torch.testing.assert_close(found, merge(*images, 0.3, backend="naive"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_do_not_add_up_leave_a_row_as_it_is(backend):
    features = [torch.arange(8.0, device=DEVICE).view(4, 2)]
    index, source = torch.tensor([[0, 1]], device=DEVICE), torch.tensor([[0, 1, 0, 1]], device=DEVICE)
    weight = torch.tensor([[9.0, 9.0, -0.5, 0.0]], device=DEVICE)
    with running(backend):
        assert torch.equal(merge(features, index, source, weight, 0.3)[0], features[0][:2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_summed_in_float32(backend, dtype):
    features, *rest = inputs(80, 9)
    features = [f.to(dtype) for f in features]
    with running(backend):
        found = merge(features, *rest, 0.3)
    assert {f.dtype for f in found} == {dtype}
    torch.testing.assert_close(found, merge(features, *rest, 0.3, backend="naive"))


@pytest.mark.parametrize("backend", READS_NOTHING)
def test_reads_nothing(backend):
    images = inputs(40, 7)
    with running(backend), no_undeclared_reads():
        merge(*images, 0.3)
