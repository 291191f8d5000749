"""Random-weight models: the published sizes, and prompts that their models accept."""

from __future__ import annotations

import pytest
import torch

from vlm_pruner.errors import PlanError
from vlm_pruner.profiling.shapes import SHAPES, model_shape

CPU = torch.device("cpu")
PARAMETERS = {  # in thousand millions, from the model cards
    "llava-1.5-7b": 7.06,
    "llava-1.5-13b": 13.35,
    "llava-next-7b": 7.06,
    "qwen2.5-vl-7b": 8.29,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_shapes_have_their_number_of_parameters(name: str) -> None:
    assert round(model_shape(name).parameters() / 1e9, 2) == PARAMETERS[name]


@pytest.mark.parametrize("name", SHAPES)
def test_prompts_hold_as_many_placeholders_as_the_model_makes_features(name: str) -> None:
    shape = model_shape(name)
    inputs = shape.inputs(CPU, torch.bfloat16, text=7)
    assert inputs["input_ids"].shape == (1, shape.tokens + 7)
    assert inputs["pixel_values"].dtype == torch.bfloat16
    config = shape.config()
    assert int((inputs["input_ids"] == config.image_token_id).sum()) == shape.tokens


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
