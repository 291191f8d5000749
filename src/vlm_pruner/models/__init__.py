"""Models that come with the package."""

from vlm_pruner.torchvision_fit import declare_operators

from .embedded import load_embedded

__all__ = ["load_embedded"]

declare_operators()  # models import transformers
