"""The plugin's way into vLLM: architectures by name, and two methods of its runners that are wrapped."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from vlm_pruner.serving.vllm.families import FAMILIES
from vlm_pruner.serving.vllm.pruning import Pruning
from vlm_pruner.serving.vllm.wanted import KEY

__all__ = ["check_server", "register_all"]

_MODELS = "vlm_pruner.serving.vllm.models"


def register_all() -> None:
    """Put our classes in the place of vLLM's, and look at every model that a worker loads."""
    from vllm import ModelRegistry
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    for architecture in FAMILIES:
        ModelRegistry.register_model(architecture, f"{_MODELS}:{architecture}")
    _wrap(GPUModelRunner)
    _wrap(importlib.import_module("vllm.v1.worker.gpu.model_runner").GPUModelRunner, takes_places=False)
    from vllm.platforms import current_platform

    if current_platform.is_cpu():  # whose runner has a method of its own, which does not look for pruning
        from vllm.v1.worker.cpu_model_runner import CPUModelRunner

        _wrap(CPUModelRunner)


def _wrap(runner: Any, *, takes_places: bool = True) -> None:
    """Have a runner's models looked at.

    Args:
        takes_places: can it be told the positions of what is left of a picture?
    """
    original = runner.__dict__["load_model"]
    if hasattr(original, "__wrapped__") and getattr(original, KEY, False):
        return

    @functools.wraps(original)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        done = original(self, *args, **kwargs)
        model = self.get_model()
        check_server(self.vllm_config, model)
        if isinstance(model, Pruning) and model.rotary:
            if not takes_places:
                raise RuntimeError(
                    "vlm-pruner: models with M-RoPE are pruned on vLLM's first model runner alone: set "
                    "VLLM_USE_V2_MODEL_RUNNER=0 (or VLLM_PLUGINS='' to run without this plugin)"
                )
            model.vlm_pruner_ready = self.is_multimodal_pruning_enabled = True
        return done

    setattr(load_model, KEY, True)
    runner.load_model = load_model


def check_server(config: Any, model: Any) -> None:
    """Refuse to start a server that was asked to prune and would not.

    Args:
        config: vLLM's, of the whole server.

    Raises:
        RuntimeError: as it says, with the reason.
    """
    if isinstance(model, Pruning):
        if getattr(config.compilation_config, "cudagraph_mm_encoder", False):
            raise RuntimeError("vlm-pruner: encoder CUDA graphs go around pruning: leave cudagraph_mm_encoder off")
        if config.model_config.multimodal_config.is_multimodal_pruning_enabled():
            raise RuntimeError("vlm-pruner: --video-pruning-rate would prune videos twice: leave it out")
        return
    if getattr(config.model_config.hf_config, KEY, None) is not None:
        raise RuntimeError(
            f"vlm-pruner: this server was asked to prune, and {type(model).__name__} is not pruned here; known are "
            f"{', '.join(FAMILIES)}. Leave {KEY!r} out of --hf-overrides to run it unpruned"
        )
