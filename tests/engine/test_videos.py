"""Videos of the families that take them as patches with `video_grid_thw`: directly, and through `generate`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from tests.support.blocks import Block, noise
from tests.support.families import LAYERS, VIDEO, tiny
from tests.support.pruning import close, dropped, forward, generate, plan
from torch import Generator, Tensor

from vlm_pruner import prune
from vlm_pruner.verify.reference import masked

FRAMES = 2


@dataclass(frozen=True)
class Film:
    """How a family takes the frames of a video."""

    width: int = 96  # numbers of a patch
    apart: int = 1  # pieces that its prompt is written in
    merged: int = 1  # frames that become one
    timed: bool = False  # it is told the seconds between frames

    def block(self, generator: Generator) -> Block:
        h, w = [(4, 6), (8, 4), (6, 6)][int(torch.randint(0, 3, (1,), generator=generator))]
        pixels, size = noise(generator, FRAMES * h * w, self.width), torch.tensor([[FRAMES, h, w]])
        payload: dict[str, Tensor] = {"pixel_values_videos": pixels, "video_grid_thw": size}
        if self.timed:
            payload["video_second_per_grid"] = torch.ones(1)
        return VIDEO, FRAMES // self.merged * h * w // 4, payload


FILMS = {
    "qwen2_5_vl": Film(),
    "exaone4_5": Film(),
    "hyperclovax_vision_v2": Film(),
    "muse_glimmer": Film(),
    "muse_spark": Film(),
    "qwen2_5_omni_thinker": Film(timed=True),
    "qwen3_omni_moe_thinker": Film(timed=True),
    "qwen3_vl_moe": Film(apart=FRAMES),
    "cosmos3_edge": Film(width=48, apart=FRAMES),
    "cosmos3_omni": Film(apart=FRAMES),
    "cohere_compass": Film(apart=FRAMES),
    "ernie4_5_vl_moe": Film(width=48, merged=2),
}


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", FILMS)
def test_equals_the_full_model_with_the_dropped_tokens_hidden(name: str, layer: int) -> None:
    film = FILMS[name]
    family, model = tiny(name)
    family = replace(family, block=film.block, apart=film.apart)
    prompt = family.prompt(3, 2)
    inputs = family.inputs([prompt], model.dtype)
    with prune(model, plan((0.4, layer))) as session:
        prefill = forward(model, inputs).logits
        told = [record.grid for record in session.images]
        answer = generate(model, inputs)
    assert [record.grid for record in session.images] == told
    assert told == [(t // film.merged, h // 2, w // 2) for t, h, w in inputs["video_grid_thw"].tolist()]
    assert {record.modality for record in session.images} == {"video"}
    gone = dropped(session, [prompt])
    with masked(model, gone):
        full, reference = forward(model, inputs).logits, generate(model, inputs)
    close([prefill[0]], [full[0, ~gone[LAYERS - 1][0]]], model)
    close(answer.logits, reference.logits, model)
