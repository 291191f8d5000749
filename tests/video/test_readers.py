"""In which sizes frames are read where the processors of the Qwen families cannot be built."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlm_pruner.video.stand_ins import NativeReader

SMALL, LARGE = {"shortest_edge": 28**2, "longest_edge": 280**2}, {"shortest_edge": 112**2, "longest_edge": 280**2}
WHOLE = {"shortest_edge": 32**2, "longest_edge": 8 * 96 * 96}
CAPPED = {
    # By an even share of nine tenths of 66 tokens: 784 * 66 * 0.9 * 2 / 8 = 108 * 108 pixels.
    "share": ({"cap_pixels_per_frame": True, "max_video_tokens": 66, "size": SMALL}, (8, 280, 280), (84, 84)),
    "no cap": ({"cap_pixels_per_frame": False, "max_video_tokens": 66, "size": SMALL}, (8, 280, 280), (280, 280)),
    "longest": ({"cap_pixels_per_frame": True, "size": SMALL}, (8, 560, 280), (392, 196)),
    # By 1.05 times the least: 115 * 115 pixels.
    "least": ({"cap_pixels_per_frame": True, "max_video_tokens": 66, "size": LARGE}, (8, 280, 280), (112, 112)),
    # By four tokens for a frame, or the even share of the longest edge: 96 * 96 pixels.
    "tokens": (
        {"cap_pixels_per_frame": True, "max_video_tokens": 4, "size": WHOLE, "patch_size": 16, "together": True},
        (8, 320, 320),
        (64, 64),
    ),
    "whole": (
        {"cap_pixels_per_frame": True, "size": WHOLE, "patch_size": 16, "together": True},
        (8, 320, 320),
        (96, 96),
    ),
    "least of all": (
        {
            "cap_pixels_per_frame": True, "max_video_tokens": 4, "size": WHOLE | {"shortest_edge": 128**2},
            "patch_size": 16, "together": True,
        },
        (8, 320, 320),
        (128, 128),
    ),
}  # fmt: skip
"""Fields of a reader, (frames, height, width) of a video, and (height, width) at which it is read."""


@pytest.mark.parametrize("name", CAPPED)
def test_frames_are_bounded_one_by_one(name: str) -> None:
    fields, (count, height, width), expected = CAPPED[name]
    reader = NativeReader(**fields)
    made: dict[str, Any] = reader([torch.zeros(count, 3, height, width, dtype=torch.uint8)])
    t, h, w = made["video_grid_thw"][0].tolist()
    assert (h * reader.patch_size, w * reader.patch_size) == expected
    assert t == count // reader.temporal_patch_size
    assert made["pixel_values_videos"].shape == (t * h * w, 3 * reader.temporal_patch_size * reader.patch_size**2)
