"""The small LLaVA inside the package: its weights, its processor, and the recipe that trained it."""

from .loading import WEIGHTS, load_embedded

__all__ = ["WEIGHTS", "load_embedded"]
