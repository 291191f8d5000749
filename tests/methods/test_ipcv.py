import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases
from tests.support.sync import no_undeclared_reads

from vlm_pruner.methods.ipcv import ipcv, rebuilt


@pytest.mark.parametrize("case", cases("ipcv"), ids=case_id)
def test_golden(case):
    tensors, params, expected = build(case), case["params"], case["expected"]
    n = len(tensors["before"])
    with no_undeclared_reads():
        kept = ipcv(tensors["before"], tensors["after"], int(n * (1 - params["ratio"])))
        rows = rebuilt(tensors["after"], kept, tensors["last"].index_select(0, kept), params["neighbours"])
    assert kept.tolist() == expected["kept"]
    torch.testing.assert_close(rows.sum(1), torch.tensor(expected["restored_row_sum"]), atol=1e-3, rtol=0)


def test_against_loops():
    g = torch.Generator().manual_seed(0)
    entered, last = torch.randn(12, 4, generator=g), torch.randn(5, 4, generator=g)
    kept = torch.tensor([1, 3, 4, 8, 11])
    rows = rebuilt(entered, kept, last, neighbours=2)
    for i in range(12):
        if i in kept.tolist():
            expected = last[kept.tolist().index(i)]
        else:
            near = (entered[kept] - entered[i]).norm(dim=1).argsort()[:2]
            expected = entered[i] + (last[near] - entered[kept[near]]).mean(0)
        torch.testing.assert_close(rows[i], expected)


def test_fewer_kept_than_neighbours():
    entered = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    rows = rebuilt(entered, torch.tensor([1]), torch.tensor([[12.0, 33.0]]))
    assert rows.tolist() == [[10.0, 31.0], [12.0, 33.0], [14.0, 35.0]]
