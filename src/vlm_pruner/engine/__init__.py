"""Pruning inside stock transformers models: hooks, cache layers, masks, signals. No other room touches nn.Module."""

from vlm_pruner.engine.costs import decoder_costs
from vlm_pruner.engine.entry import attach, plan_for, prune
from vlm_pruner.engine.records import ImageRecord
from vlm_pruner.engine.reuse import Prefix
from vlm_pruner.engine.session import Session, detach

__all__ = ["ImageRecord", "Prefix", "Session", "attach", "decoder_costs", "detach", "plan_for", "prune"]
