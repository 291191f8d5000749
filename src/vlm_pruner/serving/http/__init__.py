"""An OpenAI-compatible server over one pruned model, of the standard library alone: for people without vLLM."""

from vlm_pruner.serving.http.limits import Limits
from vlm_pruner.serving.http.server import serving

__all__ = ["Limits", "serving"]
