import dataclasses

import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases
from tests.support.tokens import visual_tokens

from vlm_pruner.errors import MissingSignalError, PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.vscan import folded, vscan, windows
from vlm_pruner.types import VisionSignals, VisualTokens

SIDE = {"llava": 6, "qwen": 4}


@pytest.mark.parametrize("case", cases("vscan"), ids=case_id)
def test_golden(case):
    tensors, expected = build(case), case["expected"]
    vision = VisionSignals(cls_attention=tensors["deep"], cls_attentions=tensors["shallow"].mean(0)[None])
    tokens = VisualTokens(tensors["features"], grid=(1, *case["grid"]), vision=vision)
    selection = create("vscan", side=SIDE[case["params"]["port"]]).select(tokens, case["keep"])
    assert selection.index.tolist() == expected["kept"]
    torch.testing.assert_close(selection.features.sum(1), torch.tensor(expected["merged_row_sum"]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("grid", "side", "keep"), [((1, 9, 11), 4, 30), ((2, 5, 6), 2, 25), ((1, 3, 3), 6, 5)])
def test_against_loops(grid, side, keep):
    t, h, w = grid
    n, g = t * h * w, torch.Generator().manual_seed(0)
    shallow, deep = torch.rand(n, generator=g), torch.rand(n, generator=g)
    window, count = windows(grid, side, shallow.device)
    down, across = max(1, h // side), max(1, w // side)
    taken, local, most = {}, [], -(-(keep // 2) // count)
    for i in shallow.argsort(descending=True).tolist():
        f, y, x = i // (h * w), i // w % h, i % w
        own = (f, min(y // side, down - 1), min(x // side, across - 1))
        assert int(window[i]) == (own[0] * down + own[1]) * across + own[2]
        if taken.get(own, 0) < most and len(local) < keep // 2:
            taken[own] = taken.get(own, 0) + 1
            local.append(i)
    rest = [i for i in deep.argsort(descending=True).tolist() if i not in local]
    assert len(local) == keep // 2
    assert vscan(shallow, deep, keep, window, count).tolist() == local + rest[: keep - len(local)]


def test_what_windows_cannot_fill_goes_to_the_best_left():
    shallow = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.1])
    window = torch.tensor([0, 0, 0, 0, 0, 1])
    order = vscan(shallow, torch.arange(6.0), 6, window, 2)
    assert order[:3].tolist() == [0, 1, 5]  # a share of two each, but the second window has one
    order = vscan(shallow, torch.arange(6.0), 6, torch.zeros(6, dtype=torch.int64), 3)
    assert order[:3].tolist() == [0, 1, 2]


def test_tokens_without_a_grid_are_one_window():
    tokens = visual_tokens()
    shallow, deep = tokens.vision.cls_attentions[2], tokens.vision.cls_attention.mean(0)
    expected = vscan(shallow, deep, 10, torch.zeros(42, dtype=torch.int64), 1)
    assert create("vscan").select(dataclasses.replace(tokens, grid=None), 10).order.tolist() == expected.tolist()


def test_every_dropped_row_joins_its_likeness():
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.3], [0.1, 4.0], [-1.0, -1.0]])
    features, slot = folded(rows, torch.tensor([1, 0]))
    assert slot.tolist() == [1, 0, 1, 0, 0]  # the last is equally far from both
    torch.testing.assert_close(features, torch.stack([rows[[1, 3, 4]].mean(0), rows[[0, 2]].mean(0)]))


def test_a_tower_without_cls_gives_the_attention_received():
    tokens = visual_tokens()
    received = dataclasses.replace(tokens.vision, cls_attention=None, cls_attentions=None)
    found = create("vscan", side=3).select(dataclasses.replace(tokens, vision=received), 8)
    window = windows((1, 6, 7), 3, tokens.device)
    assert found.order.tolist() == vscan(received.attention[2], received.attention[-1], 8, *window).tolist()
    with pytest.raises(MissingSignalError, match=r"vscan needs CLS_ATTENTIONS .* VISION_ATTENTION"):
        create("vscan").select(VisualTokens(tokens.features), 8)


def test_plan_and_parameters():
    stages = create("vscan").stages(64, 32)
    assert [(m.name, k, layer) for m, k, layer in stages] == [("vscan", 96, None), ("fastv", 32, 16)]
    assert len(create("vscan").stages(1.0, 32)) == 1
    with pytest.raises(PlanError, match="side=0"):
        create("vscan", side=0)
    with pytest.raises(PlanError, match="shallow_depth=2"):
        create("vscan", shallow_depth=2)
