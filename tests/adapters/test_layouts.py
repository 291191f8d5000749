"""Where tokens lie, checked by sending pictures whose every cell carries its own place through the models' own code."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from tests.support.families import FAMILIES, IMAGE, Prompt, tiny
from tests.support.pruning import forward, generate, plan
from tests.support.versions import OLD, RELEASE
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vlm_pruner import UnsupportedModelError, prune
from vlm_pruner.adapters import Encoded, adapter_for, families
from vlm_pruner.adapters.base import raster
from vlm_pruner.adapters.llava_next import anyres, unpadded
from vlm_pruner.adapters.spans import deal_out

SIDE = 4


def coded(rows: int, columns: int) -> Tensor:
    """[rows * columns tiles, SIDE * SIDE, 2] the (y, x) of every cell of a padded view in that view."""
    y, x = torch.meshgrid(torch.arange(rows * SIDE), torch.arange(columns * SIDE), indexing="ij")
    view = torch.stack([y, x], -1).view(rows, SIDE, columns, SIDE, 2).transpose(1, 2)
    return view.reshape(rows * columns, SIDE * SIDE, 2).float()


@pytest.mark.parametrize(
    "size", [(40, 50), (28, 56), (50, 23), (56, 30), (28, 28), (13, 56), (56, 11), (320, 13), (13, 320)]
)
@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_anyres_places_are_those_of_the_models_own_packing(name: str, size: tuple[int, int]) -> None:
    """The model packs coded features; a token must lie where its code says, newlines where they are."""
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

    _, model = tiny(name)
    base = model.base_model
    rows, columns = get_anyres_image_grid_shape(size, base.config.image_grid_pinpoints, 28)
    overview = coded(1, 1)
    features = torch.cat([overview, coded(rows, columns)])
    newline = torch.full((2,), -1.0)
    options: dict[str, Any] = {"image_newline": newline}
    if name == "llava_onevision":
        options["vision_aspect_ratio"] = "anyres_max_9"
    else:
        options["vision_feature_select_strategy"] = "default"
    packed, _ = base.pack_image_features([features], torch.tensor([size]), **options)
    packed = packed[0]
    encoded = Encoded({"image_sizes": torch.tensor([size])}, (1, 5, 3, 28, 28), None)
    layout = adapter_for(name).image_layouts(base.config, encoded)[0]
    assert layout.tokens == len(packed)
    window = unpadded((rows * SIDE, columns * SIDE), size)
    is_newline = (packed == -1).all(1)
    lies = layout.position[SIDE * SIDE :, 1:]
    codes = packed[SIDE * SIDE :] - torch.tensor(window[:2])
    own = ~is_newline[SIDE * SIDE :]
    torch.testing.assert_close(lies[own], codes[own])
    width = layout.grid[2]
    assert (lies[~own][:, 1] == width - 0.5).all()
    # The overview is spread over the plane: its corners are half a cell inside it.
    first, last = layout.position[0, 1:], layout.position[SIDE * SIDE - 1, 1:]
    torch.testing.assert_close(first + last, torch.tensor([layout.grid[1] - 1.0, width - 1.0]))
    patch = layout.patch[SIDE * SIDE :]
    assert ((patch < 0) == ~own).all()
    torch.testing.assert_close(features.flatten(0, 1)[patch[own]], packed[SIDE * SIDE :][own])


def test_very_large_pictures_are_interpolated_down() -> None:
    _, model = tiny("llava_onevision")
    arguments = {"image_sizes": torch.tensor([[56, 56]]), "vision_aspect_ratio": "anyres_max_2"}
    layout = adapter_for("llava_onevision").image_layouts(model.config, Encoded(arguments, (1, 5, 3, 28, 28), None))[0]
    features = torch.cat([coded(1, 1), coded(2, 2)])
    options = {"image_newline": torch.full((2,), -1.0), "vision_aspect_ratio": "anyres_max_2"}
    packed = model.base_model.pack_image_features([features], torch.tensor([[56, 56]]), **options)[0][0]
    assert layout.tokens == len(packed) == 16 + 5 * 6
    assert layout.grid == (1, 5, 5)


def test_several_pictures_in_a_row_are_overviews() -> None:
    _, model = tiny("llava_onevision")
    arguments = {"image_sizes": torch.tensor([[40, 50]] * 3), "batch_num_images": torch.tensor([2, 1])}
    layouts = adapter_for("llava_onevision").image_layouts(model.config, Encoded(arguments, (3, 5, 3, 28, 28), None))
    assert [x.tokens for x in layouts[:2]] == [17, 17]
    assert layouts[2].tokens > 17


MERGED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "cosmos3_edge", "cosmos3_omni", "cohere_compass")
MERGED += ("ernie4_5_vl_moe", "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")


@pytest.mark.parametrize("name", MERGED)
def test_merged_grids_are_in_raster_order(name: str) -> None:
    """The positions that the model itself gives to merged tokens (M-RoPE) are the rows and columns of the layout."""
    family, model = tiny(name)
    prompt = family.prompt(2, 2)
    inputs = family.inputs([prompt])
    seen: list[Tensor] = []
    text = model.base_model.get_decoder()
    handle = text.register_forward_pre_hook(lambda m, a, k: seen.append(k["position_ids"]), with_kwargs=True)
    with prune(model, plan((0.5, 2))) as session:
        forward(model, inputs)
    handle.remove()
    assert any(h != w for _, h, w in (record.grid for record in session.images))
    for record, (t, h, w) in zip(session.images, inputs["image_grid_thw"].tolist(), strict=True):
        own = seen[0][-2:, 0, prompt.places[record.index]].T.float()  # [n, 2]
        torch.testing.assert_close(own - own.min(0).values, record.position[:, 1:])
        assert record.grid == (t, h // 2, w // 2)


@pytest.mark.parametrize("name", ["hyperclovax_vision_v2", "kimi_k25", "muse_glimmer", "muse_spark", "video_llama_3"])
def test_merged_grids_of_models_without_such_positions(name: str) -> None:
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(2, 2)])
    with prune(model, plan((0.5, 2))) as session:
        forward(model, inputs)
    assert [r.grid for r in session.images] == [(t, h // 2, w // 2) for t, h, w in inputs["image_grid_thw"].tolist()]


def test_frames_lie_behind_each_other() -> None:
    for name, cls_first, newline in (("video_llava-video", True, False), ("llava_onevision-video", False, True)):
        family, model = tiny(name)
        with prune(model, plan((0.5, 2))) as session:
            forward(model, family.inputs([family.prompt(1, 1)]))
        (record,) = session.images
        frames, h, w = record.grid
        assert record.modality == "video"
        assert frames == 3
        assert record.total == frames * (h * w + cls_first) + newline
        assert (record.position[:, 0].diff() >= 0).all()
        if cls_first:
            first = record.position[:: h * w + 1]
            torch.testing.assert_close(first, torch.tensor([[t, (h - 1) / 2, (w - 1) / 2] for t in range(3)]))


@pytest.mark.parametrize(("name", "frames"), [("qwen3_vl-video", 3), ("gemma4-video", 2)])
def test_frames_apart_are_one_video(name: str, frames: int) -> None:
    """Qwen3-VL and Gemma 4 write a time in front of every frame."""
    family, model = tiny(name)
    with prune(model, plan((5, 2))) as session:
        forward(model, family.inputs([family.prompt(1, 2)]))
    assert [(r.modality, r.kept, r.grid[0]) for r in session.images] == [("video", 5, frames)] * 2


def test_a_picture_and_a_video_in_one_prompt() -> None:
    """Qwen3-VL encodes videos by its method for pictures: what is noted of one must not stand for the other."""
    family, model = tiny("qwen3_vl-video")
    picture, video = FAMILIES["qwen3_vl"].prompt(3, 1), family.prompt(4, 1)
    both = Prompt(torch.cat([picture.ids, video.ids]), picture.tokens + video.tokens, picture.payload + video.payload)
    inputs = family.inputs([both])
    with prune(model, plan((5, 2))) as session:
        forward(model, inputs)
        told = [(r.modality, r.index, r.total, r.kept) for r in session.images]
        generate(model, inputs)
    assert told == [("image", 0, picture.tokens[0], 5), ("video", 0, 18, 5)]
    assert [(r.modality, r.index, r.total, r.kept) for r in session.images] == told


def test_pairs_of_frames_become_one() -> None:
    """As many tokens as ERNIE's own merging gives, where the number of frames is odd, too."""
    _, model = tiny("ernie4_5_vl_moe")
    for t, frames in ((4, 2), (5, 3), (1, 1)):
        encoded = Encoded({"video_grid_thw": torch.tensor([[t, 4, 6]])}, (), None)
        (layout,) = adapter_for("ernie4_5_vl_moe").video_layouts(model.config, encoded)
        assert (layout.tokens, layout.grid) == (frames * 6, (frames, 2, 3))


def test_an_unbroken_run_of_tiles_is_one_picture() -> None:
    places = torch.zeros(1, 40, dtype=torch.bool)
    places[0, 2:14] = places[0, 16:20] = True  # three tiles of four tokens, text, one tile
    spans = deal_out([raster(1, 2, 2)] * 4, places, "image", joins=True)
    assert [len(s.slots) for s in spans] == [12, 4]
    assert [s.layout.grid for s in spans] == [(3, 2, 2), (1, 2, 2)]
    assert [(s.tile, s.layout.tiles, s.index) for s in spans] == [(0, 3, 0), (3, 1, 1)]
    apart = deal_out([raster(1, 2, 2)] * 4, places, "image")
    assert [len(s.slots) for s in apart] == [4] * 4


def test_two_tiles_have_one_budget() -> None:
    family, model = tiny("internvl")
    prompts = [family.prompt(seed, 1) for seed in range(6)]
    with prune(model, plan((5, 2))) as session:
        forward(model, family.inputs(prompts))
    assert {record.total for record in session.images} == {16, 32}
    assert [record.kept for record in session.images] == [5] * 6
    assert {record.grid for record in session.images} == {(1, 4, 4), (2, 4, 4)}


def test_beams_repeat_rows() -> None:
    places = torch.zeros(4, 9, dtype=torch.bool)
    places[:2, 1:5] = places[2:, 3:9] = True
    spans = deal_out([raster(1, 2, 2), raster(1, 2, 3)], places, "image")
    assert [(s.row, s.layout.tokens) for s in spans] == [(0, 4), (1, 4), (2, 6), (3, 6)]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_token_has_a_place_inside_the_plane(name: str) -> None:
    family, model = tiny(name)
    with prune(model, plan((0.5, 2))) as session:
        forward(model, family.inputs([family.prompt(3, 2)], model.dtype))
    for record in session.images:
        assert record.position.shape == (record.total, 3)
        assert (record.position >= -0.5).all()
        assert (record.position <= torch.tensor(record.grid) - 0.5).all()
        assert len(record.position.unique(dim=0)) == record.total or record.grid[0] == 1  # CLS may lie on a cell


@pytest.mark.parametrize("name", FAMILIES)
def test_fixed_tokens_are_told_before_anything_runs(name: str) -> None:
    family, model = tiny(name)
    fixed = adapter_for(model.config.model_type).fixed_tokens(model.config)
    if fixed is not None:
        assert set(family.prompt(3, 2).tokens) == {fixed}


def test_a_vocabulary_without_a_placeholder_names_none() -> None:
    config = FAMILIES["chameleon"].config()
    assert adapter_for("chameleon").placeholders(config) == {"image": IMAGE}
    config.vocabulary_map = None
    assert adapter_for("chameleon").placeholders(config) == {}


def test_videos_of_a_family_without_them() -> None:
    _, model = tiny("llava")
    with pytest.raises(UnsupportedModelError, match="videos are not supported for llava"):
        adapter_for("llava").video_layouts(model.config, Encoded({}, (), None))


def test_every_family_is_run_or_shares_the_class_of_one_that_is() -> None:
    """What docs/models.md says."""
    run = set()
    for family in FAMILIES.values():
        with contextlib.suppress(pytest.skip.Exception):  # this transformers has it not
            run.add(family.config().model_type)
    assert run <= set(families())
    classes = {kind: MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(kind) for kind in families()}
    others = {kind: name for kind, name in classes.items() if kind not in run and name is not None}
    old = {"fuyu", "nemotron_h_omni", "qwen4_exp"}
    broken = {"llama4"} if RELEASE == (5, 24) else old if OLD else set()  # cannot be run there
    assert set(others) <= {"glmga", "pp_chart2table", "shieldgemma2"} | broken
    assert {others[kind] for kind in others.keys() - broken} <= {classes[kind] for kind in run}


def test_overview_of_a_wide_plane() -> None:
    layout = anyres(2, (1, 2), (0, 0, 2, 4), (2, 4))
    torch.testing.assert_close(layout.position[:4, 2], torch.tensor([0.5, 2.5, 0.5, 2.5]))
    torch.testing.assert_close(layout.position[:4, 1], torch.tensor([0.0, 0.0, 1.0, 1.0]))
