"""Text files of the page."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["resource"]


def resource(name: str) -> str:
    """Text of a file beside this module."""
    return files("vlm_pruner.web").joinpath(name).read_text(encoding="utf-8")
