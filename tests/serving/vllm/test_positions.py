"""Tokens that are left of pictures and videos stand where they stood in the whole prompt: M-RoPE positions, exactly.

Without an engine: vLLM's processors announce, and its models number prompts and rows as they do for its runners.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

vllm = pytest.importorskip("vllm")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tests.serving.vllm.test_counts import processor  # noqa: E402
from tests.support.served import TAGS, picture, served  # noqa: E402
from tests.support.vllm_answers import VIDEOS, WITH_TIMES  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from vllm.multimodal.inputs import MultiModalFeatureSpec  # noqa: E402
from vllm.multimodal.processing import ProcessorInputs, TimingContext  # noqa: E402

from vlm_pruner.asking import open_model  # noqa: E402
from vlm_pruner.serving.vllm.models import pruned  # noqa: E402
from vlm_pruner.serving.vllm.wanted import KEY, plan_of  # noqa: E402

ROTARY = [name for name in VIDEOS if "qwen" in name]


def numbering(made: Any) -> Any:
    """A pruned model of vLLM without weights, whose embedding of a word is its number below zero."""
    config = made.info.get_hf_config()
    model: Any = object.__new__(pruned(config.architectures[0]))
    nn.Module.__init__(model)
    model.config, model._tokenizer, model.vlm_pruner_ready = config, made.info.ctx.tokenizer, True
    width = config.get_text_config().hidden_size
    words = SimpleNamespace(embed_input_ids=lambda ids: -ids[:, None].expand(-1, width).float())
    model.get_language_model = lambda: words
    return model


def announced(made: Any, prompt: str, shown: dict[str, Any], asked: Any) -> tuple[list[int], list[Any]]:
    """Tokens of a prompt, and its pictures and videos in their order."""
    items = made.info.parse_mm_data(shown)
    ids = made.info.ctx.tokenizer.encode(prompt, add_special_tokens=False)
    inputs = ProcessorInputs(prompt=ids, mm_data_items=items, hf_processor_mm_kwargs={KEY: asked})
    found = made.apply(inputs, TimingContext(enabled=False))
    features = [
        MultiModalFeatureSpec(data=item, modality=modality, identifier=f"{modality} {number}", mm_position=place)
        for modality, places in found["mm_placeholders"].items()
        for number, (place, item) in enumerate(zip(places, found["mm_kwargs"][modality], strict=True))
    ]
    return list(found["prompt_token_ids"]), sorted(features, key=lambda one: one.mm_position.offset)


def film(lots: random.Random, name: str, fps: float) -> Any:
    """Frames of random number and size, every so many of them."""
    count, every = lots.randint(2, 9), lots.randint(1, 3)
    width, height = lots.randint(20, 90), lots.randint(20, 90)
    frames = np.stack([np.asarray(picture(lots.randint(0, 999), width, height)) for _ in range(count)])
    if name not in WITH_TIMES:
        return frames
    total = count * every
    times = {"fps": fps * every, "duration": count / fps, "total_num_frames": total, "do_sample_frames": False}
    return frames, {**times, "frames_indices": list(range(0, total, every)), "video_backend": "none"}


def batch(feature: Any) -> dict[str, Any]:
    """What the encoder is given of one picture or video."""
    data = {key: held.data for key, held in feature.data.items() if key != KEY}
    return {key: held[None] if isinstance(held, Tensor) else [held] for key, held in data.items()}


def left_of(model: Any, feature: Any, ids: Tensor, asked: Any) -> tuple[Tensor, Tensor]:
    """Rows that are left of a picture or video, and which of its tokens `ids` [n] these are: a mask [n]."""
    config = model.config
    visual = (ids == config.video_token_id) | (ids == config.image_token_id)
    given = torch.randn(int(visual.sum()), config.get_text_config().hidden_size)
    (rows,) = model._pruned([given], [plan_of(asked, rotary=True)], feature.modality, batch(feature))
    bare = rows[:, : given.shape[1]]
    stays = ~visual
    stays[visual.nonzero().flatten()[(given[:, None] == bare[None]).all(2).any(1)]] = True
    if len(rows) > stays[visual].sum():  # words come with it, each where it belongs
        words = ~visual[stays]
        assert (-bare[words, 0]).tolist() == ids[~visual].tolist()
    return rows, stays


@pytest.mark.parametrize("name", ROTARY)
def test_what_is_left_stands_where_it_stood(name: str) -> None:
    """A picture and two videos of random sizes, times and budgets, with words between them."""
    lots, made = random.Random(name), processor(name)
    model, moved = numbering(made), 0
    prompt = f"a {VIDEOS[name]} and {TAGS[name]} then {VIDEOS[name]} which?"
    for _ in range(20):
        shown = {"image": [picture(lots.randint(0, 99), lots.randint(20, 120), lots.randint(20, 120))]}
        shown |= {"video": [film(lots, name, lots.uniform(0.3, 9)) for _ in range(2)]}
        asked = {"method": "divprune", "keep": lots.uniform(0.05, 0.9), "min_visual_tokens": 1}
        whole, features = announced(made, prompt, shown, None)
        expected, _ = model.get_mrope_input_positions(whole, features)
        short, cut = announced(made, prompt, shown, asked)
        positions, delta = model.get_mrope_input_positions(short, cut)
        stays, rows = torch.ones(len(whole), dtype=torch.bool), []
        for feature in features:
            here = slice(feature.mm_position.offset, feature.mm_position.offset + feature.mm_position.length)
            left, stays[here] = left_of(model, feature, torch.tensor(whole[here]), asked)
            rows.append(left)
        _, found, again = model.recompute_mrope_positions(short, rows, positions, 0)
        assert found.tolist() == expected[:, stays].tolist(), asked
        assert again == delta == int(expected.max()) + 1 - len(short)
        moved += int((found != positions).any())
    assert moved > 10


@pytest.mark.parametrize("name", ROTARY)
def test_whole_videos_stand_where_transformers_puts_them(name: str) -> None:
    """All of a prompt does, but for text behind a video of Qwen2.5-VL that is longer in time than it is wide."""
    lots, made = random.Random(name), processor(name)
    model, longer = numbering(made), 0
    places = open_model(str(served(name)[1])).model.model.get_rope_index
    for _ in range(20):
        fps = lots.choice([0.5, 1.0, 2.0, 4.0])  # whose frames stand at whole places: nothing is rounded
        ids, (video,) = announced(made, f"a {VIDEOS[name]} which?", {"video": [film(lots, name, fps)]}, None)
        ours, _ = model.get_mrope_input_positions(ids, [video])
        prompt = torch.tensor([ids])
        kinds = (prompt == model.config.video_token_id).int() * 2
        given = {key: held for key, held in batch(video).items() if key in ("video_grid_thw", "second_per_grid_ts")}
        theirs = places(prompt, mm_token_type_ids=kinds, **given)[0][:, 0]
        late = torch.zeros(len(ids), dtype=torch.long)
        if name == "qwen2_5_vl":
            first, last = (kinds[0] > 0).nonzero().flatten()[[0, -1]].tolist()
            times, *sides = (theirs[:, first : last + 1].amax(1) - theirs[:, first]).tolist()
            late[last + 1 :] = max(0, times - max(sides))
            longer += int(late.any())
        assert ours.tolist() == (theirs + late).tolist(), (name, fps)
    assert longer > 3 or name != "qwen2_5_vl"
