"""The models of vLLM that are pruned, by the name of their architecture in a checkpoint's configuration."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FAMILIES", "WRITES_FRAMES", "Family"]

WRITES_FRAMES = ("vllm.model_executor.models.qwen3_vl", "Qwen3VLMultiModalProcessor")
"""What writes the words and marks between the frames of a video: module and class."""


@dataclass(frozen=True)
class Family:
    """One architecture, as vLLM has it."""

    module: str  # of vllm.model_executor.models
    model: str
    modalities: tuple[str, ...] = ("image",)  # that are pruned; others stay whole
    framed: bool = False  # frames of a video stand between words


_BOTH = ("image", "video")

FAMILIES = {
    "LlavaForConditionalGeneration": Family("llava", "LlavaForConditionalGeneration"),
    "LlavaNextForConditionalGeneration": Family("llava_next", "LlavaNextForConditionalGeneration"),
    "LlavaOnevisionForConditionalGeneration": Family(
        "llava_onevision", "LlavaOnevisionForConditionalGeneration", _BOTH
    ),
    "Qwen2VLForConditionalGeneration": Family("qwen2_vl", "Qwen2VLForConditionalGeneration", _BOTH),
    "Qwen2_5_VLForConditionalGeneration": Family("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", _BOTH),
    "Qwen3VLForConditionalGeneration": Family("qwen3_vl", "Qwen3VLForConditionalGeneration", _BOTH, framed=True),
    "Qwen3_5ForConditionalGeneration": Family("qwen3_5", "Qwen3_5ForConditionalGeneration", _BOTH, framed=True),
    "InternVLForConditionalGeneration": Family("interns1", "InternS1ForConditionalGeneration"),
}
"""Architectures by name. A video of InternVL is so many pictures to the library, and one to vLLM: it stays whole."""
