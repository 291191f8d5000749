"""Published checkpoints that transformers has no class of their own for, but another one that computes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LLAVA_VIDEO", "Renamed", "renamed"]

LLAVA_VIDEO = "LlavaQwenForCausalLM"
"""The class that its published configuration names."""


@dataclass(frozen=True)
class Renamed:
    """How such a checkpoint is read.

    Args:
        config: the configuration of that class, of the dict of a published one; keeps its `architectures`.
        load: the model, with the arguments of `from_pretrained`.
        processor: hub id of the processor, for a checkpoint that holds none.
        videos: what a person should know of videos there.
    """

    config: Callable[[dict[str, Any]], Any]
    load: Callable[..., Any]
    processor: str
    videos: str


def renamed(architectures: Sequence[str] | None) -> Renamed | None:
    """How a checkpoint whose configuration names these classes is read; None where transformers reads it itself."""
    if LLAVA_VIDEO not in (architectures or ()):
        return None
    from vlm_pruner.models import llava_video  # with the class of transformers, which no other model needs

    return Renamed(
        llava_video.onevision_config, llava_video.load_llava_video, llava_video.PROCESSOR, llava_video.OTHER_VIDEOS
    )
