"""Pictures of extreme sizes: what the stock model answers, the pruned one answers, from tokens in their true places.

How many tokens a picture has is asked of the stock model. A size that it refuses itself is no case of ours; how many
are left is counted, so that no family drops out unseen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tests.adapters.test_layouts import SIDE, coded
from tests.support.blocks import Payload, noise
from tests.support.configs import PINPOINTS
from tests.support.families import FAMILIES, IMAGE, Family, Prompt, tiny
from tests.support.pruning import close, dropped, forward, plan
from tests.support.slowly import the_rest_slowly
from tests.support.versions import RELEASE
from torch import Tensor
from torch.nn.functional import pad
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, image_size_to_num_patches

from vlm_pruner import prune
from vlm_pruner.adapters import Encoded, adapter_for
from vlm_pruner.adapters.base import plane
from vlm_pruner.adapters.rows import pooled
from vlm_pruner.verify.reference import masked

Size = tuple[int, int]
Make = Callable[[int, int], Payload]


def _noise(*shape: int) -> Tensor:
    return noise(torch.Generator().manual_seed(sum(shape)), *shape)


def _anyres(h: int, w: int) -> Payload:
    seen = image_size_to_num_patches((h, w), PINPOINTS, 28)
    pixels = torch.zeros(1, 5, 3, 28, 28, dtype=torch.float64)
    pixels[:, :seen] = _noise(1, seen, 3, 28, 28)
    return {"pixel_values": pixels, "image_sizes": torch.tensor([[h, w]])}


def _pixels(h: int, w: int) -> Payload:
    return {"pixel_values": _noise(1, 3, h, w)}


def _sized(h: int, w: int) -> Payload:
    return {**_pixels(h, w), "image_sizes": torch.tensor([[h, w]])}


def _patches(h: int, w: int, shape: tuple[int, ...] = (96,), **more: Tensor) -> Payload:
    return {"pixel_values": _noise(h * w, *shape), "image_grid_thw": torch.tensor([[1, h, w]]), **more}


def _placed(h: int, w: int, pool: int = 2, padding: int = 4) -> Payload:
    place = torch.full((1, h * w + padding, 2), -1)
    place[0, : h * w] = torch.cartesian_prod(torch.arange(h), torch.arange(w)).flip(1)
    return {
        "pixel_values": _noise(1, h * w + padding, 3 * (4 * (3 - pool)) ** 2).sigmoid(),
        "image_position_ids": place,
    }


def _shaped(h: int, w: int) -> Payload:
    real = torch.ones(1, h * w, dtype=torch.long)
    return {
        "pixel_values": _noise(1, h * w, 48),
        "spatial_shapes": torch.tensor([[h, w]]),
        "pixel_attention_mask": real,
    }


def _packed(h: int, w: int) -> Payload:
    return {"pixel_values": _noise(1, 3, 4, h * w * 4), "target_sizes": torch.tensor([[h, w]])}


def _counted(h: int, w: int) -> Payload:
    return {"pixel_values": _noise(h * w, 48), "image_grid_hw": torch.tensor([[h, w]])}


def _padded(h: int, w: int) -> Payload:
    """Patches of 4 pixels, padded at the right of every row and below."""
    rows, columns = -(-h // 4), w // 4 + 1
    picture = torch.full((rows * 4, columns * 4, 3), -0.01, dtype=torch.float64)
    picture[:h, :w] = _noise(h, w, 3).abs()
    cut = picture.view(rows, 4, columns, 4, 3).transpose(1, 2).flatten(0, 1)
    return {"pixel_values": cut[:, None].repeat(1, 2, 1, 1, 1)}


def _sample(h: int, w: int) -> Payload:
    return {"pixel_values": _noise(1, 1, 3, h, w)}


THIN = [(1, 1), (1, 100), (100, 1), (320, 13), (13, 320), (1, 25), (25, 1), (300, 1), (1, 300), (56, 3), (56, 56)]
PATCHES = [(2, 2), (2, 4), (4, 2), (2, 50), (50, 2), (2, 600), (30, 30), (1, 4), (3, 4)]
CELLS = [(4, 4), (4, 100), (100, 4), (7, 9), (1200, 4), (64, 64), (1, 16)]
MAPS = [(28, 28), (28, 56), (56, 28), (64, 16), (16, 64), (32, 72), (32, 64), (512, 32)]
_flat, _squares = partial(_patches, shape=(48,)), partial(_patches, shape=(3, 4, 4))
_merged = partial(_patches, shape=(48,), image_merge_sizes=torch.tensor([2]))

GRIDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "glm46v", "glm4v_moe", "glm_ocr", "exaone4_5")
GRIDS += ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker", "hyperclovax_vision_v2", "cosmos3_omni", "cohere_compass")
GRIDS += ("muse_glimmer", "muse_spark", "qwen3_5", "qwen3_5_moe", "qwen4_exp", "glm5_next", "minimax_m3_vl", "lfm3_vl")
KINDS: dict[str, tuple[Make, list[Size], int]] = {  # how to make a picture, its sizes, how many of them stock answers
    **dict.fromkeys(("llava_next", "llava_next_video", "llava_onevision"), (_anyres, THIN, 11)),
    **dict.fromkeys(GRIDS, (_patches, PATCHES, 7)),
    **dict.fromkeys(("cosmos3_edge", "ernie4_5_vl_moe"), (_flat, PATCHES, 7)),
    # 1 x 4 patches are no token, nor a picture to prune; what is left over of odd ones is cut away since 5.24.
    "lfm2_vl": (_shaped, [*PATCHES[:-2], (3, 4)], 7 if RELEASE < (5, 24) else 8),
    **dict.fromkeys(("minicpmv4_6", "minicpmv4_7"), (_packed, [*PATCHES, (4, 4), (4, 80), (80, 4), (16, 16)], 4)),
    "minicpm_ocr": (_packed, PATCHES, 7),
    "nemotron_h_omni": (_counted, PATCHES, 7),
    "dots3_note": (_flat, PATCHES, 7),
    "hy_v4_vl": (_flat, PATCHES, 8),
    "hunyuan_vl": (_flat, PATCHES, 8),
    "granite4_vision": (_anyres, THIN, 11),
    "apertus1p5": (_sized, CELLS, 5),
    **dict.fromkeys(("paddleocr_vl", "kimi_k25"), (_squares, PATCHES, 7)),
    "video_llama_3": (_merged, PATCHES, 7),
    "llava-pixtral": (_sized, [(7, 7), (7, 14), (13, 56), (20, 20), (7, 175), (2100, 7), (112, 112), (6, 6)], 7),
    **dict.fromkeys(
        ("mistral3", "mistral_large4"), (_sized, [(21, 35), (14, 350), (1050, 14), (112, 112), (7, 14)], 4)
    ),
    "lighton_ocr": (_sized, [(14, 14), (20, 20), (21, 35), (14, 350), (1050, 14), (112, 112), (7, 14)], 6),
    **dict.fromkeys(
        ("gemma4", "gemma4-shared"),
        (_placed, [(2, 2), (4, 2), (2, 50), (50, 2), (30, 30), (4, 1), (4, 3), (1, 1)], 7),
    ),
    "gemma4_unified": (partial(_placed, pool=1), [(1, 1), (1, 4), (16, 1), (5, 3), (2, 600), (30, 30)], 6),
    "inkling_mm_model": (_padded, [(1, 1), (1, 25), (25, 1), (4, 4), (16, 16), (3, 600), (600, 3), (7, 9)], 8),
    "emu3": (_sized, CELLS, 5),
    "chameleon": (_pixels, MAPS, 8),
    "fast_vlm": (_pixels, MAPS, 8),
    "idefics3": (_sample, [(32, 32), (56, 56), (64, 64), (16, 64)], 4),
    "smolvlm": (_sample, [(32, 32), (56, 56), (64, 64), (16, 64)], 4),
}


def _prompts(family: Family, model: Any, make: Make, sizes: list[Size]) -> list[tuple[Size, Prompt]]:
    """A prompt for every picture that the stock model encodes, with as many placeholders as it has features."""
    found = []
    for size in sizes:
        payload = make(*size)
        given = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in payload.items()}
        try:
            with torch.no_grad():
                output = model.base_model.get_image_features(**given)
        except (RuntimeError, ValueError, IndexError):
            continue
        features = getattr(output, "pooler_output", output)
        if features is None:  # what is added at the first of several layers
            features = output.deepstack_features[0][1]
        features = features if isinstance(features, list | tuple) else [features]
        tokens = sum(one.numel() // one.shape[-1] for one in features)
        block = dataclasses.replace(family, block=lambda _, n=tokens, p=payload: (IMAGE, n, p))
        found.append((size, block.prompt(3, 1)))
    return found


_firsts = {make: name for name, (make, *_) in reversed(KINDS.items())}  # of families that are given the same pictures


@pytest.mark.parametrize("name", the_rest_slowly(KINDS, _firsts.values()))
def test_what_stock_answers_the_pruned_model_answers(name: str) -> None:
    family, model = tiny(name)
    make, sizes, count = KINDS[name]
    answered = 0
    for size, prompt in _prompts(family, model, make, sizes):
        inputs = family.inputs([prompt], model.dtype)
        try:
            forward(model, inputs)
        except (RuntimeError, ValueError, IndexError):
            continue  # stock refuses it
        with prune(model, plan((0.4, 2))) as session:
            pruned = forward(model, inputs).logits
        (record,) = session.images
        assert record.total == prompt.tokens[0], size
        gone = dropped(session, [prompt])
        with masked(model, gone):
            full = forward(model, inputs).logits
        close([pruned[0]], [full[0, ~gone[4][0]]], model)
        assert (record.position >= -0.5).all(), size
        assert (record.position <= torch.tensor(record.grid) - 0.5).all(), size
        answered += 1
    assert answered == count


def test_every_family_with_pictures_of_any_size_is_here() -> None:
    told = {name for name in FAMILIES if "video" not in name.split("-") and _any_size(name)}
    assert told <= set(KINDS) | {"molmo2"}  # whose sizes are tables that only its processor makes


_SIZES = ("spatial_shapes", "target_sizes", "image_grid_hw")


def _any_size(name: str) -> bool:
    _, _, payload = FAMILIES[name].block(torch.Generator().manual_seed(0))
    return bool(set(payload) & {"image_sizes", "image_grid_thw", "image_position_ids", "image_grids", *_SIZES})


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
@pytest.mark.parametrize("size", [*THIN, (28, 8), (8, 28), (56, 2), (3, 3000)])
def test_rows_and_columns_that_were_cut_away_have_no_tokens(name: str, size: Size) -> None:
    """The model packs features that say where they are; newlines are known by what they are."""
    _, model = tiny(name)
    rows, columns = get_anyres_image_grid_shape(size, PINPOINTS, 28)
    features = torch.cat([coded(1, 1), coded(rows, columns)])
    options: dict[str, Any] = {"image_newline": torch.full((2,), -1.0)}
    options |= {} if name == "llava_onevision" else {"vision_feature_select_strategy": "default"}
    packed = model.base_model.pack_image_features([features], torch.tensor([size]), **options)[0][0][SIDE * SIDE :]
    encoded = Encoded({"image_sizes": torch.tensor([size])}, (1, 5, 3, 28, 28), None)
    (layout,) = adapter_for(name).image_layouts(model.config, encoded)
    assert layout.tokens == SIDE * SIDE + len(packed)
    newline = (packed == -1).all(1)
    _, h, w = layout.grid
    place, patch = layout.position[:, 1:], layout.patch[SIDE * SIDE :]
    assert torch.equal(patch < 0, newline)
    torch.testing.assert_close(features.flatten(0, 1)[patch[~newline]], packed[~newline])
    lies = place[SIDE * SIDE :]
    assert lies[newline].tolist() == [[y, w - 0.5] for y in range(int(newline.sum()))]
    own = packed[~newline]
    torch.testing.assert_close(lies[~newline], own - own.amin(0) if len(own) else own)
    # The overview shows the whole plane, which is never empty.
    assert min(h, w) >= 1
    centres = (torch.arange(SIDE) + 0.5) / SIDE
    torch.testing.assert_close(place[: SIDE * SIDE : SIDE, 0], centres * h - 0.5)
    torch.testing.assert_close(place[:SIDE, 1], centres * w - 0.5)


@pytest.mark.parametrize(("name", "tower"), [("chameleon", "vqmodel.encoder"), ("fast_vlm", "vision_tower")])
def test_maps_have_the_rows_and_columns_of_the_tower(name: str, tower: str) -> None:
    """64 x 16 pixels are no square, although their number of tokens is one."""
    family, model = tiny(name)
    seen: list[tuple[int, ...]] = []

    def note(module: Any, args: Any, output: Any) -> None:
        seen.append(tuple(getattr(output, "last_hidden_state", output).shape[-2:]))

    handle = model.base_model.get_submodule(tower).register_forward_hook(note)
    try:
        for size, prompt in _prompts(family, model, _pixels, MAPS):
            with prune(model, plan((0.5, 2))) as session:
                forward(model, family.inputs([prompt], model.dtype))
            assert session.images[0].grid == (1, *seen[-1]), size
    finally:
        handle.remove()


@pytest.mark.parametrize("size", [(4, 4), (4, 3), (3, 4), (5, 3), (4, 1), (7, 10)])
def test_tokens_of_odd_pictures_lie_in_the_middle_of_their_patches(size: Size) -> None:
    """Gemma 4's own pooling averages the places of the patches; divided by their number, as it counts them, too."""
    _, model = tiny("gemma4")
    h, w = size
    place = torch.cartesian_prod(torch.arange(h), torch.arange(w)).flip(1)
    room = 3 * len(place)
    coded = pad(place.float(), (0, 1), value=1.0)  # (x, y, 1)
    coded = pad(coded, (0, 0, 0, room))[None]
    padded = pad(place, (0, 0, 0, room), value=-1)
    sums, seen = model.model.vision_tower.pooler._avg_pool_by_positions(coded, padded[None], coded.shape[1] // 4)
    own = sums[0, seen[0]]
    layout = pooled(padded, 2)
    assert layout.tokens == len(own)
    lies = plane(*layout.grid) if layout.position is None else layout.position
    torch.testing.assert_close(lies[:, [2, 1]], (own[:, :2] / own[:, 2:] + 0.5) / 2 - 0.5)


def test_larger_squares_are_one_picture_each() -> None:
    """64 x 64 pixels in place of 32 x 32 were taken for four pictures."""
    family, model = tiny("idefics3")
    ((_, prompt),) = _prompts(family, model, _sample, [(64, 64)])
    with prune(model, plan((5, 2))) as session:
        forward(model, family.inputs([prompt], model.dtype))
    assert [(r.total, r.kept, r.grid) for r in session.images] == [(64, 5, (1, 8, 8))]
