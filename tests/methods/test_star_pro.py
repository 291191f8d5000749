import pytest
import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.star_pro import pivoted_qr
from vlm_pruner.types import VisionSignals, VisualTokens


def test_every_step_takes_the_largest_volume():
    rows = torch.randn(10, 12, generator=torch.Generator().manual_seed(0)).double()
    chosen: list[int] = []
    for _ in range(6):
        volume = {i: torch.linalg.det(rows[[*chosen, i]] @ rows[[*chosen, i]].T).item() for i in range(10)}
        chosen.append(max((i for i in volume if i not in chosen), key=volume.__getitem__))
    assert pivoted_qr(rows, 6).tolist() == chosen


def test_beyond_the_rank_the_longest_rows_follow():
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 5.0], [0.0, 4.0], [3.0, 0.0]])
    assert pivoted_qr(rows, 5).tolist() == [2, 4, 3, 1, 0]


def test_text_attention_is_the_mean_over_heads_and_rows():
    attention = torch.zeros(2, 3, 4)
    attention[0, 0, 1], attention[1, 2, 3], attention[:, :, 0] = 1.0, 1.2, 0.1
    tokens = VisualTokens(torch.zeros(4, 2), text_attention=attention, layer=12)
    assert create("text-attention").select(tokens, 3).order.tolist() == [3, 1, 0]


@pytest.mark.parametrize(
    ("keep", "expected"), [(128, [256, 74, 36]), (64, [128, 37, 18]), (32, [64, 17, 10]), (576, [576, 576, 576])]
)
def test_published_plan(keep, expected):
    stages = create("star-pro").stages(keep, 32)
    assert [(m.name, k, layer) for m, k, layer in stages] == [
        ("pivoted-qr", expected[0], None),
        ("text-attention", expected[1], 12),
        ("text-attention", expected[2], 20),
    ]


def test_a_single_stage_is_pivoted_qr_on_the_tower():
    rows = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    tokens = VisualTokens(torch.zeros(9, 2), vision=VisionSignals(features=rows))
    assert create("star-pro").select(tokens, 4).order.tolist() == pivoted_qr(rows, 4).tolist()
