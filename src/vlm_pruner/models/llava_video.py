"""LLaVA-Video, whose weights are published under the names of the LLaVA-NeXT repository, as a LLaVA-OneVision model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config

from vlm_pruner.errors import InputError

__all__ = ["load_llava_video", "onevision_config", "onevision_name"]

_PREFIXES = (  # published, here; the first that fits counts
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("model.", "model.language_model."),
    ("lm_head.", "lm_head."),
)
_ROPE = {"rope_theta", "rope_scaling"}  # read by the configuration, but no fields of it

_FAULTS = {
    "missing_keys": "are missing",
    "unexpected_keys": "have no place",
    "mismatched_keys": "are of another shape",
}


def onevision_name(published: str) -> str:
    """The parameter of `LlavaOnevisionForConditionalGeneration` that is published under this name.

    >>> onevision_name("model.mm_projector.2.bias")
    'model.multi_modal_projector.linear_2.bias'
    >>> onevision_name("model.layers.3.mlp.up_proj.weight")
    'model.language_model.layers.3.mlp.up_proj.weight'

    Raises:
        InputError: a name that does not belong to such a model.
    """
    for before, after in _PREFIXES:
        if published.startswith(before):
            return after + published.removeprefix(before)
    raise InputError(f"{published!r} is no weight of LLaVA-Video: its names begin with model. or lm_head.")


def load_llava_video(
    folder: str | Path, *, vision_config: dict[str, Any] | None = None, **options: Any
) -> LlavaOnevisionForConditionalGeneration:
    """A checkpoint such as LLaVA-Video-7B-Qwen2, from the folder that holds its `config.json` and `*.safetensors`.

        model = load_llava_video("LLaVA-Video-7B-Qwen2", dtype=torch.bfloat16)
        processor = AutoProcessor.from_pretrained("llava-hf/llava-onevision-qwen2-7b-ov-hf")

    Args:
        folder: as published; nothing is written there. `model.save_pretrained` keeps the result.
        vision_config: fields of another tower than `google/siglip-so400m-patch14-384` without its last layer.
        options: of `from_pretrained`, as `dtype` or `device_map`.

    Raises:
        InputError: no such folder, another decoder than Qwen2, or weights that are missing or too many.
    """
    folder = Path(folder)
    shards = sorted(folder.glob("*.safetensors"))
    if not shards or not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no checkpoint: config.json and *.safetensors are expected there")
    config = onevision_config(json.loads((folder / "config.json").read_text(encoding="utf-8")), vision_config)
    weights: dict[str, Tensor] = {}
    for shard in shards:
        weights |= {onevision_name(name): weight for name, weight in load_file(shard).items()}
    model, found = LlavaOnevisionForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=weights, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    _check(found)
    model.eval()
    return model


def onevision_config(published: dict[str, Any], vision: dict[str, Any] | None = None) -> LlavaOnevisionConfig:
    """The configuration of the OneVision class that belongs to a published `config.json`.

    Args:
        vision: fields of another tower than `google/siglip-so400m-patch14-384` without its last layer.

    Raises:
        InputError: another decoder than Qwen2.
    """
    if "qwen" not in str(published.get("model_type", "")):
        raise InputError(f"model_type {published.get('model_type')!r} is no LLaVA with a Qwen2 decoder (llava_qwen)")
    known = (set(Qwen2Config().to_dict()) | _ROPE) - {"model_type", "architectures", "transformers_version"}
    text = Qwen2Config.from_dict({key: value for key, value in published.items() if key in known})
    tied = bool(published.get("tie_word_embeddings", False))
    tower: dict[str, Any] = {} if vision is None else {"vision_config": {"model_type": "siglip_vision_model", **vision}}
    pinpoints = published.get("image_grid_pinpoints")
    if isinstance(pinpoints, list):  # published as (width, height)
        tower["image_grid_pinpoints"] = [[height, width] for width, height in pinpoints]
    aspect = str(published.get("image_aspect_ratio", ""))
    if aspect.startswith("anyres_max_"):
        tower["vision_aspect_ratio"] = aspect
    return LlavaOnevisionConfig(text_config=text.to_dict(), tie_word_embeddings=tied, **tower)


def _check(found: dict[str, Any]) -> None:
    """Raise unless every weight has found its place."""
    for kind, words in _FAULTS.items():
        names = sorted(_names(found[kind]))
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise InputError(f"{len(names)} weights {words} in this checkpoint: {shown}")


def _names(keys: Iterable[Any]) -> list[str]:
    return [key if isinstance(key, str) else str(key[0]) for key in keys]
