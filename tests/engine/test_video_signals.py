"""The attention of a vision tower over the frames of a video, resized as the model resizes their features."""

from __future__ import annotations

import torch
from tests.support.families import tiny
from tests.support.pruning import Reader, forward
from torch import Tensor
from torch.nn.functional import interpolate

from vlm_pruner import PrunePlan, Stage, prune


def test_it_is_resized_to_the_grid_frame_by_frame() -> None:
    family, model = tiny("llava_onevision-video", "eager")
    inputs = family.inputs([family.prompt(1, 1), family.prompt(2, 1)], torch.float32)
    reader = Reader()
    reader.seen.clear()
    with prune(model, PrunePlan((Stage(reader, 5, None),), min_visual_tokens=1)):
        forward(model, inputs)
    pixels = inputs["pixel_values_videos"]  # [2, 3, 3, 28, 28]
    with torch.no_grad():
        out = model.base_model.vision_tower(pixels.flatten(0, 1), output_attentions=True)
    received: Tensor = torch.stack(out.attentions).mean((2, 3))  # [layers, 6, 16]
    assert len(reader.seen) == 2
    for number, tokens in enumerate(reader.seen):
        own = received[:, 3 * number : 3 * number + 3].reshape(-1, 3, 4, 4)
        expected = interpolate(own, (2, 2), mode="bilinear", align_corners=False).flatten(1)
        assert tokens.grid == (3, 2, 2)
        assert tokens.vision is not None
        assert tokens.vision.features is None  # no one patch stands behind a token
        torch.testing.assert_close(tokens.vision.attention[:, :12], expected, atol=1e-5, rtol=1e-4)
        assert not tokens.vision.attention[:, 12].any()  # the newline behind the video


def test_a_later_stage_sees_that_of_the_survivors() -> None:
    family, model = tiny("llava_onevision-video")
    reader = Reader()
    reader.seen.clear()
    with prune(model, PrunePlan((Stage(reader, 9, None), Stage(reader, 5, 2)), min_visual_tokens=1)):
        forward(model, family.inputs([family.prompt(1, 1)]))
    before, after = reader.seen
    assert after.grid == before.grid == (3, 2, 2)
    torch.testing.assert_close(after.vision.attention, before.vision.attention[:, 4:])
    torch.testing.assert_close(after.position, before.position[4:])
