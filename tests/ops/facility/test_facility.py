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


@pytest.mark.parametrize("backend", FAST)
def test_weights_are_not_read_beyond_their_end(backend):
    def lying(values):
        """The same numbers in float64, as they are read, with NaN on both sides."""
        around = torch.full((values.numel() + 8,), torch.nan, dtype=torch.float64, device=DEVICE)
        around[4:-4] = values.flatten().to(DEVICE)
        return around[4:-4].view(values.shape)

    generator = torch.Generator().manual_seed(0)
    cover = torch.randn(2, 13, 7, generator=generator).to(DEVICE)
    rows, candidates = torch.rand(2, 7, generator=generator), torch.rand(2, 13, generator=generator)
    expected = facility(cover, 5, rows.to(DEVICE), candidates.to(DEVICE), backend="naive")
    with running(backend):
        assert facility(cover, 5, lying(rows), lying(candidates)).tolist() == expected.tolist()


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
