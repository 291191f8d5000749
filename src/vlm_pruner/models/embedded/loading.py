"""Load the shipped model like any other LLaVA checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vlm_pruner.errors import InputError

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

__all__ = ["VIDEO_WEIGHTS", "WEIGHTS", "embedded_folder", "load_embedded"]

WEIGHTS = Path(__file__).parent / "weights"
"""A plain Hugging Face checkpoint folder: `from_pretrained` takes it as it is."""


VIDEO_WEIGHTS = Path(__file__).parent / "video_weights"
"""The same of the form for videos."""


def embedded_folder(video: bool = False) -> Path:
    """The checkpoint folder inside the package: the model for pictures, or its form for videos.

    Raises:
        InputError: the package was installed without its weights.
    """
    folder, recipe = (VIDEO_WEIGHTS, "train.video") if video else (WEIGHTS, "train")
    if not (folder / "model.safetensors").exists():
        raise InputError(f"no weights at {folder}: train them with `python -m vlm_pruner.models.embedded.{recipe}`")
    return folder


def load_embedded(
    device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The embedded model, ready to answer, and its processor.

    A stock `LlavaForConditionalGeneration`: 24x24 visual tokens of 336x336 pixels, 8 decoder layers of width 256. It
    knows the questions of `vlm_pruner.scenes` and nothing else; docs/embedded_model.md says how well.

    Args:
        device: where to put it; None is the CPU.
        dtype: None is float32. The stored weights are bfloat16, so that this loses nothing.

    Raises:
        InputError: the package was installed without its weights.
    """
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    folder = embedded_folder()
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype or torch.float32)
    return model.to(device or "cpu").eval(), LlavaProcessor.from_pretrained(folder)
