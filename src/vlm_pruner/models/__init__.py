"""Models that come with the package."""

from .embedded import load_embedded

__all__ = ["load_embedded"]
