"""The running-maximum form against the definition."""

import pytest
import torch
from tests.support.ops import DEVICE, FAST, running, triton
from tests.support.sync import no_undeclared_reads

from vlm_pruner.ops.facility import facility


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("n", "m", "keep"), [(1, 1, 1), (7, 3, 7), (13, 13, 5), (63, 40, 12)])
@pytest.mark.parametrize("weights", ["none", "rows", "candidates", "both"])
def test_equals_the_definition(backend, n, m, keep, weights):
    generator = torch.Generator().manual_seed(n * m)
    cover = torch.randn(2, n, m, generator=generator).to(DEVICE)
    rows = torch.rand(2, m, generator=generator).to(DEVICE) if weights in ("rows", "both") else None
    candidates = torch.rand(2, n, generator=generator).to(DEVICE) if weights in ("candidates", "both") else None
    expected = facility(cover, keep, rows, candidates, backend="naive")
    with running(backend):
        assert facility(cover, keep, rows, candidates).tolist() == expected.tolist()


def test_two_steps_by_hand():
    cover = torch.tensor([[[0.9, 0.0, 0.5], [0.8, 0.7, 0.0], [0.0, 0.0, 1.0]]])
    assert facility(cover, 2).tolist() == [[1, 2]]  # gains 1.4, 1.5, 1.0; then 0.6, -, 1.0
    assert facility(cover, 2, row_weight=torch.tensor([[0.0, 0.0, 1.0]])).tolist() == [[2, 0]]
    assert facility(cover, 2, candidate_weight=torch.tensor([[2.0, 1.0, 1.0]])).tolist() == [[0, 1]]


@pytest.mark.parametrize("backend", FAST)
def test_ties_go_to_the_lower_index_and_nothing_is_taken_twice(backend):
    with running(backend):
        assert facility(torch.zeros(1, 40, 3, device=DEVICE), 40).tolist() == [list(range(40))]


@pytest.mark.parametrize("backend", ["torch", triton])
def test_reads_nothing(backend):
    cover = torch.randn(2, 30, 20).to(DEVICE)
    with running(backend), no_undeclared_reads():
        facility(cover, 5)
