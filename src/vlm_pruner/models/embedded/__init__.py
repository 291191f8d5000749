"""The small LLaVA inside the package: its weights, its processor, and the recipe that trained it."""

from .loading import WEIGHTS, embedded_folder, load_embedded

__all__ = ["WEIGHTS", "embedded_folder", "load_embedded"]
