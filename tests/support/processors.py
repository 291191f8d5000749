"""The image processor that a family comes with, and a tiny model that is fine enough to tell its cells apart."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from PIL import Image
from tests.support.families import FAMILIES
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vlm_pruner.adapters import Encoded, adapter_for
from vlm_pruner.adapters.base import deal_out, plane

__all__ = ["EYES", "Eye", "Look"]

SIDE = 112  # pixels of a square that is sent to a model: 16 x 16 patches of 7
PINPOINTS = [[112, 224], [224, 112], [224, 224]]
BUDGET = {"shortest_edge": 32 * 32, "longest_edge": 96 * 96}  # pixels of a picture of any size


@dataclass(frozen=True)
class Eye:
    """How a family sees: what its processor is called, with which options, and how its model is made fine."""

    processor: str
    options: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] = field(default_factory=dict)  # of the configuration of the vision tower
    model: dict[str, Any] = field(default_factory=dict)  # of the configuration of the whole
    call: dict[str, Any] = field(default_factory=dict)  # what the family's processor passes to that of images
    words: bool = False  # tokens are words of a codebook: how much a feature changes says nothing

    def load(self) -> Any:
        """The image processor of transformers."""
        return getattr(transformers, self.processor)(**self.options)

    def build(self, name: str) -> Any:
        """The model `name` of `tests.support.families`, with the weights that new models have."""
        config = FAMILIES[name].config()
        for key, value in self.model.items():
            setattr(config, key, value)
        for key, value in self.vision.items():
            setattr(config.vision_config, key, value)
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1 and not weight.any():  # Gemma 3 starts with a projection of zeros
                    weight.normal_(0, 0.02)
        return model


class Look:
    """A family that looks at pictures: what its processor makes of them, and what its vision tower makes of that."""

    def __init__(self, name: str) -> None:
        self.eye = EYES[name]
        self._processor, self._model = self.eye.load(), self.eye.build(name)

    def made(self, image: Image.Image) -> dict[str, Any]:
        """The tensors for one picture, as the family's whole processor would ask for them."""
        return dict(self._processor(images=[image], return_tensors="pt", **self.eye.call))

    def features(self, image: Image.Image) -> Tensor:
        """[n, d] a row for every token, in the order of the placeholders."""
        return torch.cat(self._encode(image)[1])

    def records(self, image: Image.Image) -> list[Any]:
        """Where the adapter says that the tokens are: what the engine's records say."""
        arguments, features = self._encode(image)
        adapter = adapter_for(self._model.config.model_type)
        rest = {k: v for k, v in arguments.items() if not k.startswith("pixel_values")}
        (shape,) = [tuple(v.shape) for k, v in arguments.items() if k in ("pixel_values", "pixel_values_images")]
        layouts = adapter.image_layouts(self._model.config, Encoded(rest, shape, [len(f) for f in features]))
        row = [there for one in layouts for there in (*[True] * one.tokens, *[False] * (not adapter.joins))]
        spans = [span.layout for span in deal_out(layouts, torch.tensor([row]), "image", adapter.joins)]
        places = [plane(*one.grid) if one.position is None else one.position for one in spans]
        return [SimpleNamespace(grid=o.grid, position=p, total=o.tokens) for o, p in zip(spans, places, strict=True)]

    def _encode(self, image: Image.Image) -> tuple[dict[str, Any], list[Tensor]]:
        encode = self._model.base_model.get_image_features
        arguments = _fitting(self.made(image), inspect.signature(encode).parameters)
        with torch.no_grad():
            out = encode(**arguments)
        features = getattr(out, "pooler_output", out)
        if isinstance(features, Tensor) and features.dim() == 2:
            features = [features]
        return arguments, list(features)


def _fitting(made: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a method takes of what a processor has made; lists of numbers as tensors."""
    named = {f"{k}_images" if f"{k}_images" in parameters else k: v for k, v in made.items()}
    return {k: torch.as_tensor(v) if isinstance(v, list) else v for k, v in named.items() if k in parameters}


def _square(name: str, side: int = SIDE, **more: Any) -> dict[str, Any]:
    return {"processor": name, "options": {"size": {"height": side, "width": side}, **more}}


def _shortest(name: str, **more: Any) -> dict[str, Any]:
    crop = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return {"processor": name, "options": {**crop, **more}}


def _patches(name: str, **more: Any) -> Eye:
    return Eye(name, {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2, "size": BUDGET, **more})


_FINE = {"image_size": SIDE}
_PIXTRAL = {"size": {"longest_edge": SIDE}}
_SMALL = {"image_size": 64}
_TILES = {"crop_to_patches": True, "max_patches": 6}
_PAN = {"min_crop_size": 16, "max_num_crops": 4, "min_ratio_to_activate": 1.2}
_POOLED = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
_EDGES = {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}}

EYES: dict[str, Eye] = {
    "llava": Eye(**_shortest("CLIPImageProcessor"), vision=_FINE),
    "llava-cls": Eye(**_shortest("LlavaImageProcessor", do_pad=True), vision=_FINE),
    "vipllava": Eye(**_shortest("CLIPImageProcessor"), vision=_FINE),
    "video_llava": Eye(**_shortest("VideoLlavaImageProcessor"), vision=_FINE),
    "llava-pixtral": Eye("PixtralImageProcessor", {**_PIXTRAL, "patch_size": 7}, vision=_FINE),
    "mistral3": Eye("PixtralImageProcessor", {**_PIXTRAL, "patch_size": 14}, vision=_FINE),
    "mistral_large4": Eye("PixtralImageProcessor", {**_PIXTRAL, "patch_size": 14}, vision=_FINE),
    "lighton_ocr": Eye("PixtralImageProcessor", {**_PIXTRAL, "patch_size": 14}, vision=_FINE),
    "llava_next": Eye(
        **_shortest("LlavaNextImageProcessor", image_grid_pinpoints=PINPOINTS),
        vision=_FINE, model={"image_grid_pinpoints": PINPOINTS},
    ),
    "llava_next_video": Eye(
        **_shortest("LlavaNextImageProcessor", image_grid_pinpoints=PINPOINTS),
        vision=_FINE, model={"image_grid_pinpoints": PINPOINTS},
    ),
    "llava_onevision": Eye(
        **_square("LlavaOnevisionImageProcessor", image_grid_pinpoints=PINPOINTS),
        vision=_FINE, model={"image_grid_pinpoints": PINPOINTS},
    ),
    **{
        name: _patches("Qwen2VLImageProcessor")
        for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "exaone4_5", "hyperclovax_vision_v2",
                     "cosmos3_omni", "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker", "qwen3_5", "qwen3_5_moe")
    },
    "cohere_compass": _patches("CohereCompassImageProcessor"),
    "cosmos3_edge": _patches("Cosmos3EdgeImageProcessor", temporal_patch_size=1),
    "glm4v": _patches("Glm4vImageProcessor"),
    "glm4v_moe": _patches("Glm4vImageProcessor"),
    "glm46v": _patches("Glm46VImageProcessor"),
    "glm_ocr": _patches("Glm46VImageProcessor"),
    "paddleocr_vl": _patches("PaddleOCRVLImageProcessor", temporal_patch_size=1),
    "video_llama_3": _patches("VideoLlama3ImageProcessor", temporal_patch_size=1),
    "ernie4_5_vl_moe": _patches("Ernie4_5_VLMoeImageProcessor", temporal_patch_size=1),
    "hunyuan_vl": _patches("HunYuanVLImageProcessor", temporal_patch_size=1),
    "kimi_k25": Eye("Kimi_K25ImageProcessor", {"patch_size": 4, "merge_size": 2, "max_patches": 400}),
    "muse_glimmer": _patches("MuseGlimmerImageProcessor"),
    "muse_spark": _patches("MuseGlimmerImageProcessor"),
    "internvl": Eye(**_square("GotOcr2ImageProcessor", 64), vision={"image_size": [64, 64]}, call=_TILES),
    "qianfan_ocr": Eye(**_square("GotOcr2ImageProcessor", 64), vision={"image_size": [64, 64]}, call=_TILES),
    "aya_vision": Eye(**_square("GotOcr2ImageProcessor", 64), vision=_SMALL, call=_TILES),
    "cohere2_vision": Eye(**_square("Cohere2VisionImageProcessor", 64), vision=_SMALL),
    "ovis2": Eye(**_square("Ovis2ImageProcessor", SIDE), vision=_FINE, call=_TILES),
    "fast_vlm": Eye(**_shortest("CLIPImageProcessor")),
    "got_ocr2": Eye(**_square("GotOcr2ImageProcessor", 256)),
    "perception_lm": Eye("PerceptionLMImageProcessor", {"tile_size": 28, "max_num_tiles": 4}),
    "deepseek_vl": Eye(**_square("DeepseekVLImageProcessor"), vision=_FINE),
    "deepseek_vl_hybrid": Eye(
        **_square("DeepseekVLHybridImageProcessor", 28, high_res_size={"height": 56, "width": 56})
    ),
    "janus": Eye(**_square("JanusImageProcessor"), vision=_FINE),
    "paligemma": Eye(**_square("SiglipImageProcessor"), vision=_FINE),
    "gemma3": Eye(
        **_square("Gemma3ImageProcessor", 64), vision=_SMALL, model={"mm_tokens_per_image": 64},
        call={"do_pan_and_scan": True} | {f"pan_and_scan_{key}": value for key, value in _PAN.items()},
    ),
    "gemma4": Eye("Gemma4ImageProcessor", _POOLED),
    "gemma4_unified": Eye("Gemma4UnifiedImageProcessor", _POOLED),
    "chameleon": Eye(
        "ChameleonImageProcessor", {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}, words=True
    ),
    "idefics3": Eye("Idefics3ImageProcessor", _EDGES, vision=_SMALL),
    "smolvlm": Eye("SmolVLMImageProcessor", _EDGES, vision=_SMALL),
    "granite_docling": Eye(**_square("GraniteDoclingImageProcessor", 64, max_patches=6), vision=_SMALL),
    "step3p7": Eye(
        **_square("Step3p7ImageProcessor", 64, patch_size=32, max_image_size=96, vision_patch_size=4)
    ),
    "molmo2": Eye(**_square("Molmo2ImageProcessor", 28, patch_size=7, overlap_margins=[1, 1])),
    "emu3": Eye(
        "Emu3ImageProcessor", {"min_pixels": 32 * 32, "max_pixels": 64 * 64, "spatial_factor": 4}, words=True
    ),
}  # fmt: skip
"""By the name in `tests.support.families`."""
