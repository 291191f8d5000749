"""Checkpoint folders that vLLM loads: the tiny families with heads as wide as its kernels on a CPU want them."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.support.checkpoints import CHECKPOINTS
from tests.support.configs import END, IMAGE, START, VIDEO
from tests.support.families import FAMILIES

__all__ = ["SERVED", "TAGS", "picture", "served"]

WIDTH = 64
SERVED = (
    "llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "internvl",
)  # fmt: skip
_VISION = "<|vision_start|><|image_pad|><|vision_end|>"
TAGS = dict.fromkeys(SERVED, "<image>") | {name: _VISION for name in SERVED if "qwen" in name}
TAGS["internvl"] = "<IMG_CONTEXT>"


def _widened(config: Any) -> Any:
    words = config.text_config
    words.hidden_size, words.intermediate_size, words.head_dim = WIDTH, 96, 32
    words.num_attention_heads = words.num_key_value_heads = 2
    rope = getattr(words, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        half = int(32 * rope.get("partial_rotary_factor", 1.0)) // 2
        rope["mrope_interleaved"] = "qwen3" in config.model_type  # as transformers has it, whatever is said
        rope["mrope_section"] = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    if config.model_type == "qwen3_5":
        words.linear_key_head_dim = words.linear_value_head_dim = 128
    if config.model_type == "qwen2_vl":
        config.vision_config.hidden_size = WIDTH
    elif hasattr(config.vision_config, "out_hidden_size"):
        config.vision_config.out_hidden_size = WIDTH
    return config


@functools.cache
def served(name: str) -> tuple[Path, Path]:
    """(for vLLM, for transformers) folders of the same weights, made once per process."""
    family = FAMILIES[name]
    wide = dataclasses.replace(family, config=lambda: _widened(family.config()))
    model = wide.model("sdpa", torch.float32)
    model.generation_config.suppress_tokens = [IMAGE, VIDEO, START, END]
    folder, plain = (Path(tempfile.mkdtemp(prefix=f"served-{name}-")) for _ in range(2))
    processor = CHECKPOINTS["qwen3_vl" if name == "qwen3_5" else name]()
    if name.startswith("qwen3"):  # as published: vLLM normalises both with the numbers for pictures
        pictures, videos = processor.image_processor, processor.video_processor
        videos.image_mean, videos.image_std = pictures.image_mean, pictures.image_std
    for place in (folder, plain):
        model.save_pretrained(place)
        processor.save_pretrained(place)
    if name.startswith("llava"):
        _name_as_before(folder / "model.safetensors")
    return folder, plain


def _name_as_before(file: Path) -> None:
    """CLIP and SigLIP weights under the names that the hub's checkpoints have, which vLLM reads."""
    old = {k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in load_file(file).items()}
    save_file(old, file, metadata={"format": "pt"})


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Coloured squares, with noise."""
    lots = np.random.default_rng(seed)
    squares = np.kron(lots.integers(0, 255, (-(-height // 8), -(-width // 8), 3)), np.ones((8, 8, 1)))
    noisy = squares[:height, :width] + lots.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
