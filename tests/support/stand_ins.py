"""Run as a program: what stands in for stock processors beside these, on random sizes, frame counts and rates.

    python -m tests.support.stand_ins FAMILY COUNT

In a process of its own, so that `ATEN_CPU_CAPABILITY` can say which instructions torch uses.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from tests.support.vision import prepare

prepare()

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision")


def both(name: str, large: bool = False) -> tuple[Any, Any]:
    """The stock processor of a tiny checkpoint, and what stands in for it.

    Args:
        large: with the sizes of published checkpoints.
    """
    from tests.support.checkpoints import checkpoint
    from transformers import AutoConfig, AutoProcessor

    from vlm_pruner.video import stand_ins

    folder = str(checkpoint(name))
    stock = AutoProcessor.from_pretrained(folder)
    with patch.object(stand_ins, "find_spec", lambda package: None):
        own = stand_ins.stand_in(folder, AutoConfig.from_pretrained(folder).model_type, {})
    if large:
        pictures, videos = stand_ins.STAND_INS[type(stock).__name__]
        stock.image_processor, own.image_processor = type(stock.image_processor)(), pictures()
        stock.video_processor, own.video_processor = type(stock.video_processor)(), videos
    return stock, own


def same(one: Any, other: Any) -> bool:
    """Are two outputs of processors equal in every bit?"""
    if set(one) != set(other):
        return False
    return all(_equal(one[key], other[key]) for key in one)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


def sizes(random: np.random.Generator, longest: int) -> tuple[int, int]:
    """(height, width), up to four times as long as wide."""
    first = int(random.integers(28, longest))
    second = int(np.clip(first * 4.0 ** random.uniform(-1, 1), 28, longest))
    return first, second


def compare(name: str, count: int, seed: int = 0) -> int:
    """How many of `count` random prompts of a video and a picture are read alike."""
    from vlm_pruner.video import Clip

    random, alike = np.random.default_rng(seed), 0
    pairs = [both(name), both(name, large=True)]
    for number in range(count):
        stock, own = pairs[number % 2]
        rate = float(random.choice([0.3, 1, 2, 12.5, 23.976, 30, 60]))
        shape = (int(random.integers(1, 9)), 3, *sizes(random, 480))
        frames = torch.from_numpy(random.integers(0, 256, shape, np.uint8))
        clip = Clip(frames, tuple(k / rate for k in range(shape[0])), rate, shape[0] / rate)
        picture = Image.fromarray(random.integers(0, 256, (*sizes(random, 320), 3), np.uint8))
        text = f"ab{stock.image_token}cd{stock.video_token}ef"
        made = []
        for processor in (stock, own):
            ready = clip.lasting(2)
            told = {"videos": [ready.frames], "video_metadata": [ready.metadata()], "do_sample_frames": False}
            made.append(processor(text=[text], images=[picture], return_tensors="pt", **told))
        alike += same(*made)
    return alike


if __name__ == "__main__":
    print(torch.backends.cpu.get_cpu_capability(), compare(sys.argv[1], int(sys.argv[2])))
