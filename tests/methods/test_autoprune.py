import dataclasses

import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases
from tests.support.tokens import visual_tokens

from vlm_pruner.budget import keep_count
from vlm_pruner.errors import PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.autoprune import information, schedule, steepness
from vlm_pruner.plan import PrunePlan


@pytest.mark.parametrize("case", cases("autoprune"), ids=case_id)
def test_golden(case):
    tensors, expected = build(case), case["expected"]
    start, n = tensors["start"], case["grid"][0] * case["grid"][1]
    found = float(information(tensors["attention"][:, :, start : start + n]))
    assert found == pytest.approx(expected["information"], abs=5e-5)
    assert steepness(found) == pytest.approx(expected["steepness"], abs=5e-6)
    made = schedule(n, case["keep"], steepness(found))
    assert made.kept == expected["keep_per_layer"]
    assert made.merged == expected["merged_per_layer"]
    assert made.scale == pytest.approx(expected["scale"], abs=5e-5)
    assert made.mean == pytest.approx(expected["mean_tokens"], abs=5e-4)


def test_text_that_sees_everything_alike_says_nothing():
    assert float(information(torch.full((4, 6, 50), 1 / 50))) == pytest.approx(
        0, abs=5e-3
    )  # a millionth is added to each
    looking = torch.eye(8)[None].expand(3, 8, 8)  # every row at a token of its own: three bits in each of three heads
    assert float(information(looking)) == pytest.approx(9, abs=1e-3)


@pytest.mark.parametrize("steep", [0.0, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("target", [64, 128, 192])
def test_counts_hold_the_target(steep, target):
    made = schedule(576, target, steep, clusters=False)
    assert made.mean == pytest.approx(target, abs=0.7)  # a step of one token in each of 31 layers
    assert not any(made.merged)
    assert made.kept == sorted(made.kept, reverse=True)


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 8, 28, 32, 80])
@pytest.mark.parametrize("keep", [1, 64, 576, 900, 0.01, 0.1111, 1.0])
def test_stages_make_a_plan(layers, keep):
    stages = create("autoprune").stages(keep, layers)
    if layers > 1:
        assert len(PrunePlan.of("autoprune", keep, num_layers=layers).stages) == len(stages)
    counts = [keep_count(max(576, keep), k) for _, k, _ in stages]
    assert counts == sorted(counts, reverse=True)


def test_a_share_is_the_same_counts_of_576_tokens():
    stages = create("autoprune").stages(0.125, 32)
    assert [keep_count(576, k) for _, k, _ in stages] == [k for _, k, _ in create("autoprune").stages(72, 32)]


def test_the_flat_curve_is_one_cut():
    assert [(k, layer) for _, k, layer in create("autoprune", steep=0.0).stages(128, 32)] == [
        (114, 2)
    ]  # 576 + 31 * 113.5 is 32 * 128


def test_keeps_what_the_text_attends_to():
    tokens = visual_tokens()
    expected = tokens.text_attention.mean((0, 1)).argsort(descending=True)[:9].tolist()
    assert create("autoprune").select(tokens, 9).order.tolist() == expected
    with pytest.raises(PlanError, match="steep=1"):
        create("autoprune", steep=1)


def test_the_picture_finds_its_own_steepness():
    """Text that looks everywhere alike falls steeply and keeps more at first; text that looks at single tokens does
    not. Either way no stage keeps more than its ceiling, and the mean over the layers is the target."""
    flat = torch.full((2, 6, 576), 1 / 576)
    looking = torch.zeros(8, 6, 576)
    looking[:, torch.arange(6), torch.arange(6)] = 1.0
    stages = create("autoprune", steep=None).stages(128, 32)
    assert [layer for _, _, layer in stages] == list(range(2, 32))
    assert PrunePlan.of("autoprune", 128, num_layers=32, steep=None).stages[0].to_dict()["budget"] == "ceiling"
    for attention, steep in ((flat, 0.4), (looking, 0.0)):
        assert steepness(float(information(attention))) == pytest.approx(steep, abs=0.01)
        tokens = dataclasses.replace(visual_tokens((1, 24, 24)), text_attention=attention)
        counts = [len(method.select(tokens, keep)) for method, keep, _ in stages]
        assert all(count <= keep for count, (_, keep, _) in zip(counts, stages, strict=True))
        want = schedule(576, 128, steepness(float(information(attention))), clusters=False).kept[:30]
        assert counts == [max(1, min(c, k)) for c, (_, k, _) in zip(want, stages, strict=True)]


def test_an_unknown_place_of_the_curve_is_refused():
    for params, message in (({"target": 64.0}, "for steep=None"), ({"steep": None, "after": 32}, "after=32")):
        with pytest.raises(PlanError, match=message):
            create("autoprune", **params)
