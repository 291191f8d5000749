"""Pruning inside stock transformers models: hooks, cache layers, masks, signals. No other room touches nn.Module."""

from vlm_pruner.engine.records import ImageRecord
from vlm_pruner.engine.reuse import Prefix
from vlm_pruner.engine.session import Handle, Session, attach, prune

__all__ = ["Handle", "ImageRecord", "Prefix", "Session", "attach", "prune"]
