"""The image processor that a family comes with, and a tiny model that is fine enough to tell its cells apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from PIL import Image
from tests.support import configs_kinds as kinds
from tests.support.checkpoints import fuyu_words
from tests.support.families import FAMILIES, IMAGE
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vlm_pruner.adapters import Encoded, Layout, adapter_for
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
    words_of: Callable[[], Any] | None = None  # the tokenizer of a whole processor, where that alone cuts pictures up
    config: Callable[[], Any] | None = None  # of a model that this release cannot run: its tower it can

    def load(self) -> Any:
        """The image processor of transformers, or the whole of it, about to be given a picture."""
        if self.words_of is None:
            return getattr(transformers, self.processor)(**self.options)
        pictures = getattr(transformers, f"{self.processor}ImageProcessor")(**self.options)
        whole = getattr(transformers, f"{self.processor}Processor")(pictures, self.words_of())
        return partial(whole, text=["x"])

    def described(self, name: str) -> Any:
        """The configuration of the model `name`."""
        return (self.config or FAMILIES[name].config)()

    def build(self, name: str) -> Any:
        """The model `name` of `tests.support.families`, with the weights that new models have."""
        config = self.described(name)
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
        adapter, made = adapter_for(self._model.config.model_type), self.made(image)
        if "input_ids" in made:
            spans = adapter.spans(self._model.config, made["input_ids"] == IMAGE, "image") or []
            return [_record(span.layout) for span in spans]
        arguments, features = self._encode(image)
        rest = {k: v for k, v in arguments.items() if not k.startswith("pixel_values")}
        (shape,) = [tuple(v.shape) for k, v in arguments.items() if k in ("pixel_values", "pixel_values_images")]
        rest |= adapter.told(next(v for k, v in arguments.items() if k.startswith("pixel_values")))
        layouts = adapter.image_layouts(self._model.config, Encoded(rest, shape, [len(f) for f in features]))
        row = [there for one in layouts for there in (*[True] * one.tokens, *[False] * (not adapter.joins))]
        return [_record(span.layout) for span in deal_out(layouts, torch.tensor([row]), "image", adapter.joins)]

    def _encode(self, image: Image.Image) -> tuple[dict[str, Any], list[Tensor]]:
        encode = self._model.base_model.get_image_features
        arguments = _fitting(self.made(image), inspect.signature(encode).parameters)
        with torch.no_grad():
            out = encode(**arguments)
        return arguments, _by_picture(out)


def _by_picture(out: Any) -> list[Tensor]:
    """[n, d] of every picture: pooled, of the first decoder layer that gets some, or the last hidden states."""
    if getattr(out, "deepstack_features", None) and getattr(out, "pooler_output", None) is None:
        return list(out.deepstack_features[0][1])
    features = getattr(out, "pooler_output", out)
    if features is None:
        features = out.last_hidden_state
    return [features] if isinstance(features, Tensor) and features.dim() == 2 else list(features)


def _record(layout: Layout) -> Any:
    place = plane(*layout.grid) if layout.position is None else layout.position
    return SimpleNamespace(grid=layout.grid, position=place, total=layout.tokens)


def _fitting(made: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a method takes of what a processor has made; lists of numbers as tensors, in the dtype of the model."""
    made = {"pixel_values" if k == "image_patches" else k: v for k, v in made.items()}  # as Fuyu's own model renames
    named = {f"{k}_images" if f"{k}_images" in parameters else k: v for k, v in made.items()}
    given = {k: torch.as_tensor(v) for k, v in named.items() if k in parameters}
    return {k: v.float() if v.is_floating_point() else v for k, v in given.items()}


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
_SLICES = {"patch_size": 4, "scale_resolution": 64, "max_slice_nums": 6}
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
    "unlimited_ocr": Eye(**_square("UnlimitedOcrImageProcessor", 128, tile_size=128, max_patches=6)),
    "molmo2": Eye(**_square("Molmo2ImageProcessor", 28, patch_size=7, overlap_margins=[1, 1])),
    "gemma3n": Eye(**_square("SiglipImageProcessor"), model={"vision_soft_tokens_per_image": 196}),
    "llama4": Eye(**_square("Llama4ImageProcessor", 64, max_patches=6), vision=_SMALL, config=kinds.llama4_config),
    "granite4_vision": Eye(
        **_shortest("LlavaNextImageProcessor", image_grid_pinpoints=PINPOINTS),
        vision=_FINE, model={"image_grid_pinpoints": PINPOINTS},
    ),
    "dots3_note": _patches("Qwen2VLImageProcessor", temporal_patch_size=1),
    "lfm3_vl": _patches("Qwen2VLImageProcessor"),
    "qwen4_exp": _patches("Qwen2VLImageProcessor"),
    "glm5_next": _patches("Glm5NextImageProcessor"),
    "minimax_m3_vl": _patches("MiniMaxM3VLImageProcessor"),
    "hy_v4_vl": _patches("HYV4VLImageProcessor", temporal_patch_size=1),
    "nemotron_h_omni": Eye(
        "NemotronH_Omni_Reasoning_V3ImageProcessor", {"patch_size": 4, "min_num_patches": 64, "max_num_patches": 400}
    ),
    "lfm2_vl": Eye(
        "Lfm2VlImageProcessor",
        {"encoder_patch_size": 4, "tile_size": 32, "min_image_tokens": 16, "max_image_tokens": 36, "max_tiles": 6},
    ),
    "minicpmv4_6": Eye("MiniCPMV4_6ImageProcessor", _SLICES),
    "minicpmv4_7": Eye("MiniCPMV4_6ImageProcessor", _SLICES),
    "minicpm_ocr": Eye("MiniCPMOcrImageProcessor", _SLICES),
    "fuyu": Eye("Fuyu", {"patch_size": {"height": 4, "width": 4}, "size": {"height": 64, "width": 64}},
                words_of=fuyu_words),
    "inkling_mm_model": Eye("InklingImageProcessor", {"size": {"height": 4, "width": 4}, "rescale_image_frac": 0.25}),
    "apertus1p5": Eye(
        "Apertus1p5ImageProcessor", {"size": {"min_pixels": 32 * 32, "max_pixels": 64 * 64}, "spatial_factor": 4},
        words=True,
    ),
    "emu3": Eye(
        "Emu3ImageProcessor", {"min_pixels": 32 * 32, "max_pixels": 64 * 64, "spatial_factor": 4}, words=True
    ),
}  # fmt: skip
"""By the name in `tests.support.families`."""
