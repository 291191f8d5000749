import pytest
import torch
from tests.support.golden import build, case_id, cases

from vlm_pruner.errors import MissingSignalError
from vlm_pruner.methods import create
from vlm_pruner.methods.fastv import fastv
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("fastv"), ids=case_id)
def test_golden(case):
    tensors, n = build(case), case["grid"][0] * case["grid"][1]
    row = tensors["attention"][:, -1, tensors["start"] : tensors["start"] + n]
    selection = create("fastv").select(VisualTokens(torch.zeros(n, 4), attention=row, layer=2), case["keep"])
    assert selection.order.tolist() == case["expected"]["order"]
    assert selection.index.tolist() == case["expected"]["kept"]


def test_mean_over_heads_and_stable_ties():
    attention = torch.tensor([[0.5, 0.0, 0.2, 0.2], [0.0, 0.5, 0.3, 0.3]])  # means .25 .25 .25 .25
    assert fastv(attention, 3).tolist() == [0, 1, 2]
    assert fastv(attention + torch.tensor([0.0, 0.0, 0.0, 0.1]), 2).tolist() == [3, 0]


def test_without_attention_it_says_so():
    with pytest.raises(MissingSignalError, match="fastv needs LAST_QUERY_ATTENTION"):
        create("fastv").select(VisualTokens(torch.zeros(4, 2)), 2)
