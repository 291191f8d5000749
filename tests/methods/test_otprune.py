import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases

from vlm_pruner.methods import create
from vlm_pruner.methods.otprune import otprune
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("otprune"), ids=case_id)
def test_golden(case):
    features, expected = build(case)["features"], case["expected"]
    order = otprune(features, case["keep"])
    assert order.tolist() == expected["order"]
    selection = create("otprune").select(VisualTokens(features), case["keep"])
    assert selection.index.tolist() == expected["kept"]


def test_every_token_adds_most_to_the_determinant():
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 5, generator=g)
    y = rows.double() / rows.double().norm(dim=0)
    kernel = torch.eye(12, dtype=torch.float64) + 0.3 * (y @ y.T) @ (y @ y.T).T
    chosen: list[int] = []
    for _ in range(6):
        volume = {i: float(torch.det(kernel[[*chosen, i]][:, [*chosen, i]])) for i in range(12) if i not in chosen}
        chosen.append(max(volume, key=volume.__getitem__))
    assert otprune(rows, 6, strength=0.3).tolist() == chosen


def test_a_dead_channel_changes_nothing_and_equal_tokens_go_by_index():
    g = torch.Generator().manual_seed(1)
    rows = torch.randn(20, 7, generator=g)
    dead = torch.cat([rows, torch.zeros(20, 2)], 1)
    assert otprune(dead, 9).tolist() == otprune(rows, 9).tolist()
    assert otprune(rows[:1].expand(20, 7), 4).tolist() == [0, 1, 2, 3]
