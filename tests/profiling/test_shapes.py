"""Random-weight models: the published sizes, and prompts that their models accept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vlm_pruner import prune
from vlm_pruner.errors import PlanError
from vlm_pruner.profiling.run import vision_prediction
from vlm_pruner.profiling.shapes import SHAPES, model_shape

SECTIONS = {
    "num_attention_heads": 2, "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
}  # fmt: skip
CPU = torch.device("cpu")
PARAMETERS = {  # of the published weights; the model cards give the first three figures
    "llava-1.5-7b": 7_063_427_072,
    "llava-1.5-13b": 13_351_494_656,
    "llava-next-7b": 7_063_431_168,
    "qwen2.5-vl-7b": 8_292_166_656,
    "llava-onevision-7b-video": 8_030_348_832,
    "qwen2.5-vl-7b-video": 8_292_166_656,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_shapes_have_their_number_of_parameters(name: str) -> None:
    assert model_shape(name).parameters() == PARAMETERS[name]


@pytest.mark.parametrize("name", SHAPES)
def test_prompts_hold_as_many_placeholders_as_the_model_makes_features(name: str) -> None:
    shape = model_shape(name)
    inputs = shape.inputs(CPU, torch.bfloat16, text=7)
    assert inputs["input_ids"].shape == (1, shape.tokens + 7)
    assert inputs["pixel_values_videos" if shape.frames else "pixel_values"].dtype == torch.bfloat16
    config = shape.config()
    token = config.video_token_id if shape.frames else config.image_token_id
    assert int((inputs["input_ids"] == token).sum()) == shape.tokens


SMALL = [("wide-8-video", (32, 14, 14), 6273), ("wide-8-pairs", (32, 12, 12), 4608)]


@pytest.mark.parametrize(("name", "grid", "tokens"), SMALL)
def test_a_small_model_reads_its_video_and_its_cost_is_foretold(name: str, grid: Any, tokens: int) -> None:
    shape = model_shape(name)
    shape = replace(shape, text=shape.text | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1})
    if shape.model_type == "qwen2_5_vl":
        shape = replace(shape, vision=shape.vision | {"out_hidden_size": 64}, text=shape.text | SECTIONS)
    model, inputs = shape.build(CPU, torch.float32), shape.inputs(CPU, torch.float32, text=8)
    model.set_attn_implementation("eager")  # of which all products are counted
    with torch.no_grad(), FlopCounterMode(display=False) as counter, prune(model, "evs", keep=100, layer=0) as session:
        model(**inputs, logits_to_keep=1)
    (video,) = session.images
    assert (video.modality, video.grid, video.total, video.kept) == ("video", grid, tokens, 100)
    counts = counter.get_flop_counts()
    (tower,) = [sum(ops.values()) for part, ops in counts.items() if part.endswith(("vision_tower", "model.visual"))]
    foretold = vision_prediction(model.config, inputs)
    projector = [sum(ops.values()) for part, ops in counts.items() if part.endswith("model.multi_modal_projector")]
    assert foretold == pytest.approx(tower + sum(projector), rel=0.02)


def test_a_video_has_the_tokens_that_it_has() -> None:
    with pytest.raises(PlanError, match="a video of 6273 visual tokens, not of 196"):
        model_shape("wide-8-video").inputs(CPU, torch.float32, tokens=196)


def test_a_tiny_model_reads_its_prompt() -> None:
    shape = model_shape("tiny")
    model = shape.build(CPU, torch.float32)
    with torch.no_grad():
        out = model(**shape.inputs(CPU, torch.float32, text=8), logits_to_keep=1)
    assert out.logits.shape == (1, 1, 256)


def test_several_images_make_up_more_tokens() -> None:
    assert model_shape("tiny").inputs(CPU, torch.float32, tokens=1152)["pixel_values"].shape[0] == 2
    inputs = model_shape("llava-next-7b").inputs(CPU, torch.bfloat16, tokens=2 * 2928)
    assert inputs["pixel_values"].shape[:2] == (2, 5)
    assert inputs["image_sizes"].tolist() == [[672, 672]] * 2


def test_image_sizes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(PlanError, match=r"did you mean 'llava-1\.5-7b'"):
        model_shape("llava-1.5-8b")
    with pytest.raises(PlanError, match="576 visual tokens each; 500 is no multiple"):
        model_shape("tiny").inputs(CPU, torch.float32, tokens=500)
    with pytest.raises(PlanError, match="500 tokens are no square"):
        model_shape("qwen2.5-vl-7b").inputs(CPU, torch.float32, tokens=500)
