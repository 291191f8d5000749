"""Classes of pruned models, made when vLLM asks for one: `models.LlavaForConditionalGeneration` and the others."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from vllm.multimodal import MULTIMODAL_REGISTRY

from vlm_pruner.serving.vllm.counting import counting
from vlm_pruner.serving.vllm.families import FAMILIES, Family
from vlm_pruner.serving.vllm.places import Places
from vlm_pruner.serving.vllm.pruning import Pruning

__all__ = ["pruned"]


@functools.cache
def pruned(architecture: str) -> type:
    """vLLM's class for this architecture, which prunes.

    Raises:
        KeyError: an architecture that is not known here.
    """
    family = FAMILIES[architecture]
    base: Any = getattr(importlib.import_module(f"vllm.model_executor.models.{family.module}"), family.model)
    rotary = bool(getattr(base, "supports_mrope", False))
    bases: tuple[type, ...] = (Pruning, _places(family), base) if rotary else (Pruning, base)
    body = {"modalities": family.modalities, "rotary": rotary, "__module__": __name__, "__qualname__": architecture}
    made = type(architecture, bases, body)
    factories = base._processor_factory
    processor = counting(factories.processor, family.modalities, framed=family.framed)
    register = MULTIMODAL_REGISTRY.register_processor(
        processor, info=factories.info, dummy_inputs=factories.dummy_inputs
    )
    return register(made)  # type: ignore[no-any-return]


def _places(family: Family) -> type:
    if not family.framed:
        return Places
    from vlm_pruner.serving.vllm.frames import Frames  # which loads vLLM's Qwen3-VL

    return Frames


def __getattr__(name: str) -> type:
    if name in FAMILIES:
        return pruned(name)
    raise AttributeError(name)
