"""LLaVA-Video, whose weights are published under the names of the LLaVA-NeXT repository, as a LLaVA-OneVision model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from vlm_pruner.errors import InputError
from vlm_pruner.models.renamed import LLAVA_VIDEO

__all__ = ["OTHER_VIDEOS", "PROCESSOR", "load_llava_video", "onevision_config"]

PROCESSOR = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
"""Its repository holds no processor; that of OneVision has the same tower and tokenizer."""
OTHER_VIDEOS = (
    "LLaVA-Video's own code pools the frames of a video otherwise than the OneVision class that runs it here: answers "
    "about videos may differ from published ones"
)
_NAMES = {  # published, here
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "model.vision_tower.",
    r"^model\.mm_projector\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.(?=embed_tokens\.|norm\.|layers\.)": "model.language_model.",
}
_FURTHER = {"rope_theta", "rope_scaling", "head_dim"}  # read by the configuration, but no fields of it

_FAULTS = {
    "missing_keys": "are missing",
    "unexpected_keys": "have no place",
    "mismatched_keys": "are of another shape",
}


def load_llava_video(
    name: str | Path, *, vision_config: dict[str, Any] | None = None, **options: Any
) -> LlavaOnevisionForConditionalGeneration:
    """A checkpoint such as LLaVA-Video-7B-Qwen2, from its folder or from the hub.

        model = load_llava_video("lmms-lab/LLaVA-Video-7B-Qwen2", dtype=torch.bfloat16)
        processor = AutoProcessor.from_pretrained(PROCESSOR)

    Args:
        name: as published; nothing is written there. `model.save_pretrained` keeps the result.
        vision_config: fields of another tower, see `onevision_config`.
        options: of `from_pretrained`, as `dtype`, `revision` or `device_map`.

    Raises:
        InputError: no such checkpoint, another decoder than Qwen2, or weights that are missing or too many.
        OSError: the hub has none of that name.
    """
    published, _ = PreTrainedConfig.get_config_dict(name, revision=options.get("revision"))
    if not published:
        raise InputError(f"{name} holds no checkpoint: config.json and *.safetensors are expected there")
    model, found = LlavaOnevisionForConditionalGeneration.from_pretrained(
        name, config=onevision_config(published, vision_config), key_mapping=_NAMES, output_loading_info=True,
        ignore_mismatched_sizes=True, **options,
    )  # fmt: skip
    _check(found)
    model.eval()
    return model


def onevision_config(published: dict[str, Any], vision: dict[str, Any] | None = None) -> LlavaOnevisionConfig:
    """The configuration of the OneVision class that belongs to a published `config.json`.

    Args:
        vision: fields of another tower than the published one, which is that of the folder that `mm_vision_tower`
            names, else `google/siglip-so400m-patch14-384` without its last layer.

    Raises:
        InputError: another decoder than Qwen2.
    """
    if "qwen" not in str(published.get("model_type", "")):
        raise InputError(f"model_type {published.get('model_type')!r} is no LLaVA with a Qwen2 decoder (llava_qwen)")
    known = (set(Qwen2Config().to_dict()) | _FURTHER) - {"model_type", "architectures", "transformers_version"}
    text = Qwen2Config.from_dict({key: value for key, value in published.items() if key in known})
    tied = bool(published.get("tie_word_embeddings", False))
    tower: dict[str, Any] = {
        key: published[key] for key in ("image_token_index", "video_token_index") if key in published
    }
    if vision is None and Path(place := str(published.get("mm_vision_tower"))).is_dir():
        vision = SiglipVisionConfig.from_pretrained(place).to_dict()
    if vision is not None:
        tower["vision_config"] = {**vision, "model_type": "siglip_vision_model"}
    pinpoints = published.get("image_grid_pinpoints")
    if isinstance(pinpoints, list):  # published as (width, height)
        tower["image_grid_pinpoints"] = [[height, width] for width, height in pinpoints]
    aspect = str(published.get("image_aspect_ratio", ""))
    if aspect.startswith("anyres_max_"):
        tower["vision_aspect_ratio"] = aspect
    return LlavaOnevisionConfig(
        text_config=text.to_dict(), tie_word_embeddings=tied, architectures=[LLAVA_VIDEO], **tower
    )


def _check(found: dict[str, Any]) -> None:
    """Raise unless every weight has found its place."""
    for kind, words in _FAULTS.items():
        names = sorted(_names(found[kind]))
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise InputError(f"{len(names)} weights {words} in this checkpoint: {shown}")


def _names(keys: Iterable[Any]) -> list[str]:
    return [key if isinstance(key, str) else str(key[0]) for key in keys]
