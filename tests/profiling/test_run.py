"""A profile of a tiny random model: every span measured, the cache as predicted, the model left alone."""

from __future__ import annotations

import json
from math import isclose
from pathlib import Path

import pytest
import torch

from vlm_pruner.errors import PlanError
from vlm_pruner.plan import PrunePlan, Stage
from vlm_pruner.profiling import ProfileResult, model_shape, profile
from vlm_pruner.profiling.run import vision_prediction

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    shape = model_shape("tiny")
    return shape.build(CPU, torch.float32), shape.inputs(CPU, torch.float32, text=10)


@pytest.fixture(scope="module")
def result(tiny: tuple[torch.nn.Module, dict[str, torch.Tensor]]) -> ProfileResult:
    return profile(*tiny, "random", keep=[64, 0.5], layer=2, new_tokens=3, repeats=2, warmup=1)


def test_every_variant_has_samples_of_every_span(result: ProfileResult) -> None:
    assert [v.name for v in result.variants] == ["unpruned", "keep 64", "keep 0.5"]
    shared = {"encoder", "projector", "prefill", "decode", "first_token", "total"}
    assert result.unpruned.samples.keys() == shared
    for variant in result.variants[1:]:
        assert variant.samples.keys() == shared | {"selection"}
        assert all(len(samples) == 2 for samples in variant.samples.values())
        assert 0 < variant.ms("selection") < variant.ms("prefill") < variant.ms("first_token") < variant.ms("total")


def test_the_hooks_are_measured_by_themselves(result: ProfileResult) -> None:
    assert result.hooks is not None
    assert result.hooks.stages == ((2, 1.0),)
    assert result.hooks.kv_bytes == result.unpruned.kv_bytes
    assert len(result.hooks.samples["prefill"]) == 2
    assert result.hooks_ms == result.hooks.ms("prefill") - result.unpruned.ms("prefill")


def test_the_cache_holds_what_the_formula_predicts(result: ProfileResult) -> None:
    assert result.image_tokens == (576,)
    assert result.text_tokens == 10
    assert result.lengths(result.variants[1].stages) == [586, 586, 74, 74]
    assert result.lengths(result.variants[2].stages) == [586, 586, 298, 298]
    for variant in result.variants:
        assert variant.kv_bytes == result.kv_predicted(variant)
        assert variant.peak_bytes > variant.kv_bytes


def test_parts_of_the_prefill_sum_up(result: ProfileResult) -> None:
    variant = result.variants[1]
    parts = result.ideal_prefill_ms(variant) + variant.ms("selection") + result.rest_ms(variant)
    assert isclose(parts, variant.ms("prefill"))
    assert isclose(
        result.ideal_prefill_ms(variant) / result.unpruned.ms("prefill"),
        result.flops(variant) / result.flops(result.unpruned),
    )


def test_json_table_and_plot(result: ProfileResult, tmp_path: Path) -> None:
    data = json.loads(result.to_json())
    assert data["vision_flops"] > 0
    assert data["variants"][1]["kv_bytes"] == data["variants"][1]["kv_bytes_predicted"]
    assert "ideal_prefill_ms" not in data["variants"][0]
    table = result.table()
    assert len(data["hooks_prefill_ms"]) == 2
    for line in ("encoder", "ideal by FLOPs", "selection", "    hooks", "decode per token", "KV cache", "keep 0.5:"):
        assert line in table
    result.plot(tmp_path / "profile.png")
    assert (tmp_path / "profile.png").stat().st_size > 1000


def test_a_plan_of_several_stages(tiny: tuple[torch.nn.Module, dict[str, torch.Tensor]]) -> None:
    plan = PrunePlan((Stage("random", 288, 1), Stage("random", 64, 3)))
    found = profile(*tiny, plan, new_tokens=2, repeats=1, warmup=0)
    staged = found.variants[1]
    assert found.lengths(staged.stages) == [586, 298, 298, 74]
    assert staged.kv_bytes == found.kv_predicted(staged)
    assert found.method == "random at layer 1 + random at layer 3"


def hooks(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_model_is_left_as_it_was() -> None:
    shape = model_shape("tiny")
    model, inputs = shape.build(CPU, torch.float32), shape.inputs(CPU, torch.float32)
    with torch.no_grad():
        model(**inputs)  # transformers hooks its own modules at the first call
    before = hooks(model), model.state_dict().keys()
    profile(model, inputs, "random", new_tokens=2, repeats=1, warmup=0)
    assert (hooks(model), model.state_dict().keys()) == before


def test_refusals(tiny: tuple[torch.nn.Module, dict[str, torch.Tensor]]) -> None:
    model, inputs = tiny
    with pytest.raises(PlanError, match="new_tokens=1"):
        profile(model, inputs, "random", new_tokens=1)
    with pytest.raises(PlanError, match="batch of 2"):
        profile(model, {**inputs, "input_ids": inputs["input_ids"].repeat(2, 1)}, "random")
    with pytest.raises(PlanError, match="no image"):
        profile(model, {"input_ids": torch.tensor([[5, 6, 7]])}, "random", new_tokens=2, repeats=1, warmup=0)


def test_vision_prediction_counts_every_tile_and_merged_grid() -> None:
    llava, tiles = model_shape("llava-1.5-7b"), model_shape("llava-next-7b")
    one = vision_prediction(llava.config(), {"pixel_values": torch.empty(1, 3, 336, 336, device="meta")})
    five = vision_prediction(tiles.config(), {"pixel_values": torch.empty(1, 5, 3, 336, 336, device="meta")})
    assert one is not None
    assert five == 5 * one
    native = vision_prediction(model_shape("qwen2.5-vl-7b").config(), {"image_grid_thw": torch.tensor([[1, 72, 72]])})
    assert native is not None
    assert native > one
