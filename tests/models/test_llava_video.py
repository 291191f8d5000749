"""Weights under the names of the LLaVA-NeXT repository find their places in the OneVision class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.support.checkpoints import checkpoint
from tests.support.families import FAMILIES, IMAGE, VIDEO
from tests.support.pruning import generate, plan
from tests.support.vision import needs_torchvision
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vlm_pruner import InputError, prune
from vlm_pruner.asking import ask, open_image, open_model
from vlm_pruner.models.llava_video import OTHER_VIDEOS, load_llava_video, onevision_config
from vlm_pruner.video import Clip

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TOWER |= {"image_size": 28, "patch_size": 7, "vision_use_head": False}
PUBLISHED = {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava_qwen",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "rope_scaling": None,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "image_grid_pinpoints": [[56, 28], [28, 56], [56, 56]],
    "image_aspect_ratio": "anyres_max_9",
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_spatial_pool_mode": "average",
    "mm_newline_position": "grid",
}


def linear(name: str, rows: int, columns: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), **({f"{name}.bias": (rows,)} if bias else {})}


def published() -> dict[str, Tensor]:
    """Random weights with the names and shapes of such a checkpoint, written down here and not derived."""
    tower = "model.vision_tower.vision_tower.vision_model"
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (100, 32),
        "model.norm.weight": (32,),
        "lm_head.weight": (100, 32),
        "model.image_newline": (32,),
        f"{tower}.embeddings.patch_embedding.weight": (32, 3, 7, 7),
        f"{tower}.embeddings.patch_embedding.bias": (32,),
        f"{tower}.embeddings.position_embedding.weight": (16, 32),
        f"{tower}.post_layernorm.weight": (32,),
        f"{tower}.post_layernorm.bias": (32,),
        **linear("model.mm_projector.0", 32, 32),
        **linear("model.mm_projector.2", 32, 32),
    }
    for i in range(5):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.input_layernorm.weight": (32,), f"{layer}.post_attention_layernorm.weight": (32,)}
        shapes |= linear(f"{layer}.self_attn.q_proj", 32, 32) | linear(f"{layer}.self_attn.o_proj", 32, 32, False)
        shapes |= linear(f"{layer}.self_attn.k_proj", 16, 32) | linear(f"{layer}.self_attn.v_proj", 16, 32)
        shapes |= linear(f"{layer}.mlp.gate_proj", 48, 32, False) | linear(f"{layer}.mlp.up_proj", 48, 32, False)
        shapes |= linear(f"{layer}.mlp.down_proj", 32, 48, False)
    for i in range(2):
        layer = f"{tower}.encoder.layers.{i}"
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{name}.weight": (32,), f"{layer}.{name}.bias": (32,)}
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{name}", 32, 32)
        shapes |= linear(f"{layer}.mlp.fc1", 48, 32) | linear(f"{layer}.mlp.fc2", 32, 48)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}


def write(folder: Path, weights: dict[str, Tensor], **changes: Any) -> Path:
    """Two shards, as large checkpoints have."""
    (folder / "config.json").write_text(json.dumps({**PUBLISHED, **changes}))
    names, where = sorted(weights), {}
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in part}, folder / f"model-{number}.safetensors")
        where |= dict.fromkeys(part, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def test_every_weight_finds_its_place(tmp_path: Path) -> None:
    weights = published()
    model = load_llava_video(write(tmp_path, weights), vision_config=TOWER, dtype=torch.float32)
    text, tower = model.model.language_model, model.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    pairs = {
        "model.embed_tokens.weight": text.embed_tokens.weight,
        "lm_head.weight": model.lm_head.weight,
        "model.norm.weight": text.norm.weight,
        "model.layers.4.self_attn.k_proj.bias": text.layers[4].self_attn.k_proj.bias,
        "model.layers.0.mlp.gate_proj.weight": text.layers[0].mlp.gate_proj.weight,
        "model.image_newline": model.model.image_newline,
        "model.mm_projector.0.weight": model.model.multi_modal_projector.linear_1.weight,
        "model.mm_projector.2.bias": model.model.multi_modal_projector.linear_2.bias,
        "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc2.weight":
            tower.encoder.layers[1].mlp.fc2.weight,
        "model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.bias":
            tower.embeddings.patch_embedding.bias,
    }  # fmt: skip
    for name, weight in pairs.items():
        assert torch.equal(weights[name], weight), name
    assert len(weights) == len(model.state_dict())
    assert not any(weight.is_meta for weight in (*model.parameters(), *model.buffers()))
    config = model.config
    assert config.image_grid_pinpoints == [[28, 56], [56, 28], [56, 56]]
    assert config.text_config.rms_norm_eps == 1e-5
    assert config.text_config.rope_parameters["rope_theta"] == 5000.0
    assert (config.image_token_index, config.video_token_index) == (151646, 151647)  # of the OneVision processors


def test_the_tower_is_that_of_the_published_checkpoint_unless_another_is_named() -> None:
    """SigLIP so400m at 384 pixels, whose last layer the original repository cuts off together with the head."""
    tower = onevision_config(PUBLISHED).vision_config
    assert (tower.hidden_size, tower.num_hidden_layers, tower.num_attention_heads) == (1152, 26, 16)
    assert (tower.image_size, tower.patch_size, tower.intermediate_size) == (384, 14, 4304)
    assert not tower.vision_use_head


@pytest.mark.parametrize("name", ["llava_onevision", "llava_onevision-video"])
def test_it_is_pruned_as_a_onevision_model(name: str, tmp_path: Path) -> None:
    model = load_llava_video(write(tmp_path, published()), vision_config=TOWER, dtype=torch.float32)
    model.config.image_token_index, model.config.video_token_index = IMAGE, VIDEO
    family = FAMILIES[name]
    inputs = family.inputs([family.prompt(3, 1)], torch.float32)
    with prune(model, plan((1.0, 2))):
        kept = generate(model, inputs, pad_token_id=0, eos_token_id=None)
    assert torch.equal(kept.logits[0], generate(model, inputs, pad_token_id=0, eos_token_id=None).logits[0])
    with prune(model, plan((0.4, 2))) as session:
        generate(model, inputs, pad_token_id=0, eos_token_id=None)
    assert 0 < session.report.kept < session.report.total


def test_checkpoints_that_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no checkpoint: config.json and \*.safetensors"):
        load_llava_video(tmp_path)
    weights = published()
    newline = weights.pop("model.image_newline")
    with pytest.raises(InputError, match=r"1 weights are missing in this checkpoint: model.image_newline"):
        load_llava_video(write(tmp_path, weights), vision_config=TOWER)
    weights |= {"model.image_newline": newline, "model.mm_projector.4.bias": newline}
    with pytest.raises(InputError, match=r"1 weights have no place .*: model.mm_projector.4.bias"):
        load_llava_video(write(tmp_path, weights), vision_config=TOWER)
    with pytest.raises(InputError, match=r"model_type 'llava_llama' is no LLaVA with a Qwen2 decoder"):
        load_llava_video(write(tmp_path, published(), model_type="llava_llama"), vision_config=TOWER)
    with pytest.raises(InputError, match=r"weights are of another shape in this checkpoint: "):
        load_llava_video(write(tmp_path, published()), vision_config={**TOWER, "intermediate_size": 64})


def as_published(folder: Path, source: Path) -> Path:
    """The OneVision checkpoint of `source` with the names and the configuration of LLaVA-Video, and its processor."""
    config = json.loads((source / "config.json").read_text())
    text = {
        **config["text_config"],
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "mm_vision_tower": str(folder / "tower"),
    }
    text["image_grid_pinpoints"] = [[width, height] for height, width in config["image_grid_pinpoints"]]
    text |= {key: config[key] for key in ("image_token_index", "video_token_index", "tie_word_embeddings")}
    (folder / "tower").mkdir(parents=True)
    (folder / "tower" / "config.json").write_text(json.dumps(config["vision_config"]))
    names = (
        ("model.language_model.", "model."), ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("model.vision_tower.vision_model.", "model.vision_tower."),
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    )  # fmt: skip
    weights = {}
    for name, weight in AutoModelForImageTextToText.from_pretrained(source).state_dict().items():
        for here, there in names:
            name = there + name.removeprefix(here) if name.startswith(here) and not there.startswith(here) else name
        weights[name] = weight.contiguous()
    write(folder, weights)
    (folder / "config.json").write_text(json.dumps(text))
    for file in source.iterdir():
        if file.name != "config.json" and file.suffix in (".json", ".jinja") and "index" not in file.name:
            shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize("family", [pytest.param("llava_onevision", marks=needs_torchvision)])
def test_commands_open_it_and_say_what_is_other_about_videos(family: str, tmp_path: Path) -> None:
    source = checkpoint(family)
    picture = open_image("demo")
    tiny, own = open_model(str(source)), open_model(str(as_published(tmp_path / "published", source)))
    assert own.model.config.vision_config.num_hidden_layers == 2
    expected, found = (
        ask(loaded, picture, "what is it?", [loaded.plan("vlm-pruner", keep=0.5)], max_new_tokens=6, runs=1)
        for loaded in (tiny, own)
    )
    assert [answer.text for answer in found] == [answer.text for answer in expected]
    assert [answer.report.kept for answer in found[1:]] == [answer.report.kept for answer in expected[1:]]
    clip = Clip.of([picture] * 2, fps=1.0)
    assert [OTHER_VIDEOS in loaded.reader.fitted(clip, sampled=True)[1] for loaded in (own, tiny)] == [True, False]
